"""Measures against Quantus 0.6, where it is installed and right.

Left out: its ROAD, which averages over the examples of the first batch alone; its completeness,
which says whether and not by how much; and what it draws from generators of its own.
"""

from __future__ import annotations

import pytest

pytest.importorskip("quantus", exc_type=ImportError)

from benchmarks.with_quantus import distance, pairs

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # of Quantus, whatever they are
]
NAMES = (
    *("curve", "entropy", "faithfulness_estimate", "local_lipschitz", "max_sensitivity"),
    *("pointing_game", "relevance_mass", "relevance_rank", "sparseness", "top_k"),
)


def test_every_pair_is_compared() -> None:
    assert sorted(pairs()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_of_quantus_is_ours(name: str) -> None:
    assert distance(pairs(batch=6, side=8)[name]) < 2e-6
