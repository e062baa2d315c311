"""The whole table: every case with every method it concerns."""

from __future__ import annotations

import pytest

from .battery import Case, judge
from .cases import CASES
from .methods import METHODS, Method

CELLS = [
    pytest.param(case, method, id=f"{case.group}-{case.name}-{method.name}")
    for case in CASES
    for method in METHODS
    if case.applies(method)
]


@pytest.mark.parametrize(("case", "method"), CELLS)
def test_a_fault_is_refused_in_words_or_answered_rightly_and_leaves_nothing(
    case: Case, method: Method
) -> None:
    for grad in case.modes:
        verdict = judge(case, method, grad)
        assert not verdict.complaints, f"gradients {grad}: {verdict.outcome}"


def test_every_case_concerns_a_method() -> None:
    assert [case.name for case in CASES if not any(map(case.applies, METHODS))] == []


def test_no_two_cases_have_the_same_name() -> None:
    names = [(case.group, case.name) for case in CASES]
    assert sorted(set(names)) == sorted(names)
