"""Any tensor at all: so that no modality goes unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from attrib.insights.features.feature import Grouping, each, parts, whole
from attrib.insights.features.measures import as_numbers, statistics
from attrib.insights.protocol import Failure

__all__ = ["ArrayFeature", "largest"]

MOST = 50  # entries listed


@dataclass(frozen=True)
class ArrayFeature:
    """A tensor of any shape, see `attrib.insights.array`."""

    baselines: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kind: str = field(default="array", init=False)
    embed: None = field(default=None, init=False)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "editable": False}

    def check(self, x: Tensor, name: str) -> None:
        return None

    def view(self, x: Tensor) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "shape": list(x.shape),
            "dtype": str(x.dtype).removeprefix("torch."),
            "first": as_numbers(x.flatten()[:1000]).astype(np.float32),
        }

    def show(self, attribution: Tensor, x: Tensor, grouped: bool) -> dict[str, Any]:
        return largest(attribution)

    def displayed(self, attribution: Tensor, grouped: bool) -> Tensor:
        return attribution

    def texts(self, x: Tensor) -> list[str]:
        return []

    def names(self, x: Tensor) -> list[Sequence[str]] | None:
        return None

    def groupings(self) -> dict[str, Grouping]:
        return {"entry": each, **parts(16, 8), "whole": whole}

    def choices(self) -> dict[str, Any]:
        return {"zero": 0}

    def window(self, x: Tensor) -> list[int]:
        return [max(1, length // 8) for length in x.shape[-2:]]

    def edited(self, x: Tensor, edit: Mapping[str, Any], fill: Tensor) -> tuple[Tensor, None]:
        raise Failure("field", "edits: an array cannot be edited", field="edits")


def largest(attribution: Tensor) -> dict[str, Any]:
    """The largest entries of any attribution, and where they are."""
    values, flat = as_numbers(attribution), as_numbers(attribution.flatten())
    sizes = np.nan_to_num(np.abs(flat), nan=-1.0, posinf=np.inf)
    places = np.argsort(-sizes, kind="stable")[:MOST]
    index: Any = np.stack(np.unravel_index(places, values.shape), 1) if values.ndim else [[]]
    return {
        "kind": "array",
        **statistics(values),
        "shape": list(values.shape),
        "top": {"index": np.asarray(index).tolist(), "values": flat[places].tolist()},
    }
