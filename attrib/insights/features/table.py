"""Rows of tables: named columns, with units and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from attrib.errors import AttribValueError
from attrib.insights.features.feature import Grouping, each, whole
from attrib.insights.features.measures import as_numbers, statistics
from attrib.insights.plain import figure, is_number, is_object
from attrib.insights.protocol import Failure

__all__ = ["Tabular"]


@dataclass(frozen=True)
class Tabular:
    """A feature ``(columns,)``, see `attrib.insights.tabular`."""

    columns: Sequence[str]
    units: Mapping[str, str] = field(default_factory=dict[str, str])
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    scale: tuple[Any, Any] | None = None
    baselines: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kind: str = field(default="tabular", init=False)
    embed: None = field(default=None, init=False)

    def config(self) -> dict[str, Any]:
        columns = [
            {
                "name": name,
                "unit": self.units.get(name),
                "categories": list(self.categories[name]) if name in self.categories else None,
            }
            for name in self.columns
        ]
        return {"kind": self.kind, "editable": True, "columns": columns}

    def check(self, x: Tensor, name: str) -> None:
        if tuple(x.shape) != (len(self.columns),):
            raise AttribValueError(
                f"data: feature {name!r} must have a number for each of {len(self.columns)} "
                f"columns, got shape {tuple(x.shape)}",
                code="data.shape",
            )

    def view(self, x: Tensor) -> dict[str, Any]:
        values = self._in_units(x)
        return {
            "kind": self.kind,
            "values": values,
            "text": [self._text(*pair) for pair in zip(self.columns, values, strict=True)],
        }

    def show(self, attribution: Tensor, x: Tensor, grouped: bool) -> dict[str, Any]:
        values = as_numbers(attribution)
        return {"kind": self.kind, **statistics(values), "values": values.astype(np.float32)}

    def displayed(self, attribution: Tensor, grouped: bool) -> Tensor:
        return attribution

    def texts(self, x: Tensor) -> list[str]:
        return self.view(x)["text"]

    def names(self, x: Tensor) -> list[Sequence[str]] | None:
        return [list(self.columns)]

    def groupings(self) -> dict[str, Grouping]:
        return {"column": each, "whole": whole}

    def choices(self) -> dict[str, Any]:
        return {"zero": 0.0}

    def window(self, x: Tensor) -> list[int]:
        return [1]

    def edited(self, x: Tensor, edit: Mapping[str, Any], fill: Tensor) -> tuple[Tensor, None]:
        values: Any = edit.get("values", {})
        if not is_object(values):
            raise Failure("field", "values: takes an object of numbers by column", field="values")
        changed = x.clone()
        places = {name: place for place, name in enumerate(self.columns)}
        for name, value in values.items():
            if name not in places or not is_number(value) or abs(value) > 1e30:
                raise Failure("field", f"{name[:60]}: must be a number", field="values")
            changed[places[name]] = self._from_units(places[name], float(value))
        return changed, None

    def _in_units(self, x: Tensor) -> list[float]:
        numbers = as_numbers(x)
        if self.scale is not None:
            mean, std = (np.asarray(part, dtype=np.float64) for part in self.scale)
            numbers = numbers * std + mean
        return numbers.tolist()

    def _from_units(self, place: int, value: float) -> float:
        if self.scale is None:
            return value
        mean, std = (np.broadcast_to(part, (len(self.columns),))[place] for part in self.scale)
        return float((value - mean) / std)

    def _text(self, name: str, value: float) -> str:
        categories = self.categories.get(name)
        if categories is not None and np.isfinite(value) and 0 <= round(value) < len(categories):
            return str(categories[round(value)])
        unit = self.units.get(name)
        return f"{figure(value)} {unit}" if unit else figure(value)
