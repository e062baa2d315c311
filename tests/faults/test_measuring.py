"""The cases that measures are put to."""

from __future__ import annotations

import pytest

from attrib.metrics import DIRECTION

from .battery import Case, judge
from .cases import CASES
from .measuring import APART, CHOSEN, MEASURES
from .methods import METHODS, Method

CELLS = [
    pytest.param(case, measure, id=f"{case.group}-{case.name}-{measure.name}")
    for case in CASES
    if (case.group, case.name) in CHOSEN
    for measure in MEASURES
    if case.applies(measure) and measure.name not in APART.get(case.name, ())
]


@pytest.mark.parametrize(("case", "measure"), CELLS)
def test_a_fault_is_refused_in_words_or_measured_rightly_and_leaves_nothing(
    case: Case, measure: Method
) -> None:
    for grad in case.modes:
        verdict = judge(case, measure, grad)
        assert not verdict.complaints, f"gradients {grad}: {verdict.outcome}"


def test_every_measure_is_put_to_them_or_to_all_cases() -> None:
    names = [row.name for row in (*MEASURES, *METHODS)]
    assert len(set(names)) == len(names)
    assert set(DIRECTION) <= set(names)


def test_every_chosen_case_is_there() -> None:
    assert set(CHOSEN) <= {(case.group, case.name) for case in CASES}
    assert set(APART) <= {name for _, name in CHOSEN}
