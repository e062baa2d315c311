"""A table of means with standard errors: as text, as Markdown, as a dict, and drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from attrib.metrics._direction import Direction
from attrib.metrics._drawing import Panel, panelled

__all__ = ["Cell", "Comparison"]

_WORDS: Mapping[Direction, str] = {
    "higher": "higher is better",
    "lower": "lower is better",
    "zero": "zero is best",
}


class Cell(NamedTuple):
    """What one measure says about one method.

    Attributes:
        mean: The mean over the examples.
        stderr: Its standard error, NaN for a single example.
        examples: How many examples that is: all but those whose measure is NaN.
    """

    mean: float
    stderr: float
    examples: int


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Methods by measures, as `attrib.compare` returns it.

    Attributes:
        values: The measure of every example, ``values[method][metric]`` of shape ``(examples,)``.
        better: For each metric, whether ``"higher"`` or ``"lower"`` values are better, or those
            close to ``"zero"``.
    """

    values: Mapping[str, Mapping[str, Tensor]]
    better: Mapping[str, Direction]

    def cell(self, method: str, metric: str) -> Cell:
        """The mean of a measure over the examples for which it is not NaN."""
        values = self.values[method][metric].to("cpu").double()
        there = values[~values.isnan()]
        count = len(there)
        stderr = float(there.std() / math.sqrt(count)) if count > 1 else math.nan
        return Cell(float(there.mean()) if count else math.nan, stderr, count)

    def best(self, metric: str) -> list[str]:
        """The methods with the best mean; several if they are equal."""
        way = self.better[metric]

        def worse(mean: float) -> float:
            return abs(mean) if way == "zero" else mean if way == "lower" else -mean

        means = {method: self.cell(method, metric).mean for method in self.values}
        means = {method: mean for method, mean in means.items() if not math.isnan(mean)}
        least = min(map(worse, means.values()), default=math.nan)
        return [method for method, mean in means.items() if worse(mean) == least]

    def as_dict(self) -> dict[str, dict[str, dict[str, float | int]]]:
        """``{method: {metric: {"mean": .., "stderr": .., "examples": ..}}}``, of plain numbers."""
        return {
            method: {metric: self.cell(method, metric)._asdict() for metric in self.better}
            for method in self.values
        }

    def as_text(self) -> str:
        """The table in columns; a star marks the best mean."""
        header = [["", *self.better], ["", *map(_WORDS.__getitem__, self.better.values())]]
        rows = self._rows(lambda cell, best: f"{cell} *" if best else cell)
        return "\n".join([*_aligned([*header, *rows]), *self._remarks("*")])

    def as_markdown(self) -> str:
        """The table in Markdown; the best mean is bold."""
        names = [f"{metric}, {_WORDS[way]}" for metric, way in self.better.items()]
        rows = self._rows(lambda cell, best: f"**{cell}**" if best else cell)
        table = [["", *names], ["---", *(":--" for _ in names)], *rows]
        lines = [f"| {' | '.join(text.replace('|', '&#124;') for text in row)} |" for row in table]
        return "\n\n".join(["\n".join(lines), *self._remarks("bold")])

    def figure(self) -> Any:
        """A panel for each measure, with the mean of every method and two standard errors to each
        side: a `matplotlib.figure.Figure` (needs matplotlib, the extra ``plot``)."""
        panels = [
            Panel(
                f"{metric}\n{_WORDS[way]}",
                [self.cell(method, metric).mean for method in self.values],
                [2 * self.cell(method, metric).stderr for method in self.values],
                [method in self.best(metric) for method in self.values],
            )
            for metric, way in self.better.items()
        ]
        return panelled(list(self.values), panels)

    def __repr__(self) -> str:
        return self.as_text()

    def _rows(self, written: Callable[[str, bool], str]) -> list[list[str]]:
        best = {metric: self.best(metric) for metric in self.better}
        return [
            [method, *(written(_rounded(self.cell(method, m)), method in best[m]) for m in best)]
            for method in self.values
        ]

    def _remarks(self, mark: str) -> list[str]:
        examples = next(len(values) for row in self.values.values() for values in row.values())
        remarks = [f"{examples} examples, mean ± standard error; {mark} marks the best mean"]
        for method, row in self.values.items():
            for metric in row:
                missing = examples - self.cell(method, metric).examples
                if missing:
                    remarks.append(f"{metric} of {method}: NaN for {missing}, which are left out")
        return remarks


def _rounded(cell: Cell) -> str:
    """Two digits of the standard error, and the mean to the same place."""
    mean, stderr, _ = cell
    if not (math.isfinite(mean) and math.isfinite(stderr) and stderr > 1e-6 * abs(mean)):
        return f"{mean:.4g} ± {stderr:.2g}"
    places = 1 - math.floor(math.log10(stderr))
    if 0 <= places <= 5:
        return f"{mean:.{places}f} ± {stderr:.{places}f}"
    power = math.floor(math.log10(max(abs(mean), stderr)))
    mean, stderr, places = mean / 10.0**power, stderr / 10.0**power, max(0, places + power)
    return f"({mean:.{places}f} ± {stderr:.{places}f})e{power:+03d}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
