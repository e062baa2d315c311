"""Rows whose peak memory is measured at two numbers of steps: it should not grow with them."""

from __future__ import annotations

from benchmarks.bench_gradient import integrated_gradients
from benchmarks.harness import Goal, Row

FEW, MANY = 50, 800
FLAT = 1.1
"""At most so many times the memory at MANY steps as at FEW, and so many times the limit's."""


def pair(model: str, batch: int, rows: int) -> tuple[Row, Row]:
    """The two rows of a model; tuned Captum and the limit take the chunk that is fastest there."""
    few, many = (
        integrated_gradients(model, steps, Goal(), batch, "memory of IG", (rows,))
        for steps in (FEW, MANY)
    )
    return few, many


PAIRS: tuple[tuple[Row, Row], ...] = (pair("mlp", 512, 4096), pair("cnn", 2, 32))
ROWS: tuple[Row, ...] = tuple(row for both in PAIRS for row in both)
