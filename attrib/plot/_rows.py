"""Features of one example, ordered, named, the smallest ones taken together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from attrib.plot._arrays import check_names, check_same, numbers, one_row
from attrib.plot.colors import Array
from attrib.plot.labels import plain
from attrib.types import Estimate

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

__all__ = ["Rows", "as_many", "estimated", "feature_labels", "rows_of"]


class Rows(NamedTuple):
    """Features in the order in which they are drawn, from top to bottom."""

    values: Array
    labels: list[str]
    errors: Array | None


def estimated(attr: Any, error: Any = None) -> tuple[Array, Array | None]:
    """The numbers of one example, and their standard errors as far as they are known."""
    given = one_row(attr, "attr")
    if error is None and isinstance(attr, Estimate):
        error = attr.stderr
    return given, None if error is None else as_many(one_row(error, "error"), given, "error")


def rows_of(
    values: Array, labels: list[str], errors: Array | None, most: int, *, sort: bool = True
) -> Rows:
    """At most so many: the largest ones, and the sum of all others as the last one."""
    sizes = np.nan_to_num(np.abs(values), nan=np.inf)
    order = np.argsort(-sizes, kind="stable")
    kept = order if len(order) <= most else order[: most - 1]
    kept = kept if sort else np.sort(kept)
    left = np.setdiff1d(order, kept)
    names = [labels[place] for place in kept]
    shown, spread = values[kept], None if errors is None else errors[kept]
    if left.size:
        shown = np.append(shown, values[left].sum())
        names.append(f"{left.size} others")
        # How the errors of several go together is not known.
        spread = None if spread is None else np.append(spread, np.nan)
    return Rows(shown, names, spread)


def feature_labels(names: Sequence[object] | None, values: Any, count: int) -> list[str]:
    """``name``, or ``name = value`` where there are values."""
    labels = check_names(names, count, "names", "feature")
    if values is None:
        return labels
    told = check_names(_listed(values), count, "values", "")
    return [f"{label} = {value}" for label, value in zip(labels, told, strict=True)]


def as_many(value: Any, others: Array, name: str) -> Array:
    """Numbers that belong to the attributions one by one."""
    found = numbers(value, name)
    check_same(found, others, name, "attr", "pass one number for each attribution")
    return found


def _listed(values: Any) -> list[str]:
    if isinstance(values, (list, tuple)) and any(isinstance(each, str) for each in values):
        return [each if isinstance(each, str) else _written(float(each)) for each in list(values)]
    return [_written(each) for each in numbers(values, "values").reshape(-1).tolist()]


def _written(value: float) -> str:
    return f"{value:.0f}" if value == round(value, 0) and abs(value) < 1e9 else plain(value, 3)
