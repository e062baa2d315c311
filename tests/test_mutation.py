"""The suite notices when attrib is wrong: deliberate faults are caught."""

from __future__ import annotations

from pathlib import Path

import pytest

import mutation
from mutation import MUTANTS, Mutant

EVERY = pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.fault for mutant in MUTANTS])


@EVERY
def test_the_source_of_a_fault_is_there_once(mutant: Mutant, tmp_path: Path) -> None:
    mutation.copy_to(tmp_path)
    mutation.apply(mutant, tmp_path)


def test_a_fault_that_no_longer_applies_is_reported(tmp_path: Path) -> None:
    mutation.copy_to(tmp_path)
    stale = MUTANTS[0]._replace(source="what was there in another version")
    with pytest.raises(LookupError, match="is 0 times in attrib/_quadrature"):
        mutation.apply(stale, tmp_path)


@pytest.mark.slow
def test_without_a_fault_the_chosen_tests_pass() -> None:
    status, report = mutation.run_tests(sorted({mutant.tests for mutant in MUTANTS}))
    assert status == 0, report


@pytest.mark.slow
@EVERY
def test_a_deliberate_fault_is_caught(mutant: Mutant) -> None:
    verdict = mutation.judge(mutant)
    assert verdict.caught, verdict.report
