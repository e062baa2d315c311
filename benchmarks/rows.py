"""Every row the benchmarks know. A new family adds its module of rows here."""

from __future__ import annotations

from benchmarks import (
    bench_accuracy,
    bench_games,
    bench_gradient,
    bench_layers,
    bench_maps,
    bench_memory,
    bench_metrics,
    bench_rules,
    bench_shapley,
)
from benchmarks.harness import Row
from benchmarks.models import WORKLOADS

TIMED: tuple[Row, ...] = tuple(
    sorted(
        (
            *bench_gradient.ROWS,
            *bench_rules.ROWS,
            *bench_layers.ROWS,
            *bench_maps.ROWS,
            *bench_games.ROWS,
            *bench_shapley.ROWS,
            *bench_accuracy.ROWS,
            *bench_metrics.ROWS,
        ),
        key=lambda row: list(WORKLOADS).index(row.model),
    )
)
"""Rows that are timed, in the order of the report: model by model, so that each is built once."""


def every_row() -> dict[str, Row]:
    """All rows by key, those whose memory alone is measured included."""
    rows = (*TIMED, *bench_memory.ROWS)
    table = {row.key: row for row in rows}
    if len(table) != len(rows):
        raise ValueError("two rows have the same key")
    return table
