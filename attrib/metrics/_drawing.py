"""Means with error bars, side by side (needs matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

__all__ = ["Panel", "panelled"]

_BEST, _OTHER = "#a34a00", "#5a6570"


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: What is drawn.
        means: A number for each name.
        errors: How far the bar reaches to each side.
        best: Which of them are marked.
    """

    title: str
    means: Sequence[float]
    errors: Sequence[float]
    best: Sequence[bool]


def panelled(names: Sequence[str], panels: Sequence[Panel]) -> Any:
    """A figure with the names from top to bottom, and the panels from left to right."""
    matplotlib: Any = import_module("matplotlib.figure")  # pyplot would keep global state
    size = 1.2 + 0.09 * max(map(len, names)) + 2.6 * len(panels), 1.1 + 0.3 * len(names)
    figure = matplotlib.Figure(figsize=size, layout="constrained")
    places = range(len(names))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for place, mean, error, best in zip(
            places, panel.means, panel.errors, panel.best, strict=True
        ):
            colour, marker = (_BEST, "D") if best else (_OTHER, "o")
            reach = error if math.isfinite(error) else 0
            axes.errorbar(mean, place, xerr=reach, fmt=marker, color=colour, capsize=3)
        if _far_apart(panel.means):
            axes.set_xscale("log")
        else:
            axes.locator_params(axis="x", nbins=5)
        axes.set_title(panel.title, fontsize=9, parse_math=False)
        axes.set_yticks(places, names if axes is figure.axes[0] else [], parse_math=False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(labelsize=8)
        axes.grid(axis="both", color="0.9")
        axes.set_axisbelow(True)
    return figure


def _far_apart(means: Sequence[float]) -> bool:
    there = [mean for mean in means if math.isfinite(mean)]
    return bool(there) and min(there) > 0 and max(there) > 30 * min(there)
