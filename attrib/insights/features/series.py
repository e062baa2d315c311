"""Time series: channels over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.errors import AttribValueError
from attrib.insights.features.feature import Grouping, each, entries_of, tiled, whole
from attrib.insights.features.measures import as_numbers, binned, statistics
from attrib.insights.plain import figure

__all__ = ["TimeSeries"]

MOST_POINTS = 4000  # of a channel; more are sent as means


@dataclass(frozen=True)
class TimeSeries:
    """A feature ``(channels, steps)`` or ``(steps,)``, see `attrib.insights.timeseries`."""

    channels: Sequence[str] | None = None
    dt: float = 1.0
    unit: str = ""
    baselines: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kind: str = field(default="timeseries", init=False)
    embed: None = field(default=None, init=False)

    def config(self) -> dict[str, Any]:
        channels = None if self.channels is None else list(self.channels)
        found = {"channels": channels, "dt": self.dt, "unit": self.unit}
        return {"kind": self.kind, "editable": True, **found}

    def check(self, x: Tensor, name: str) -> None:
        channels = x.shape[0] if x.ndim == 2 else 1
        if x.ndim not in (1, 2) or (self.channels is not None and channels != len(self.channels)):
            expected = "channels" if self.channels is None else str(len(self.channels))
            raise AttribValueError(
                f"data: feature {name!r} must be a series ({expected}, steps), got shape "
                f"{tuple(x.shape)}",
                code="data.shape",
            )

    def view(self, x: Tensor) -> dict[str, Any]:
        series, stride = binned(_two(x).detach().to("cpu", torch.float64), MOST_POINTS)
        return {
            "kind": self.kind,
            "series": series.numpy().astype(np.float32),
            "length": x.shape[-1],
            "stride": stride,
        }

    def show(self, attribution: Tensor, x: Tensor, grouped: bool) -> dict[str, Any]:
        whole_series = _two(attribution).detach().to("cpu", torch.float64)
        series, stride = binned(whole_series, MOST_POINTS)
        return {
            "kind": self.kind,
            **statistics(as_numbers(whole_series)),
            "values": series.numpy().astype(np.float32),
            "length": attribution.shape[-1],
            "stride": stride,
        }

    def displayed(self, attribution: Tensor, grouped: bool) -> Tensor:
        return _two(attribution)

    def texts(self, x: Tensor) -> list[str]:
        return []

    def names(self, x: Tensor) -> list[Sequence[str]] | None:
        channels = self.channels or [f"channel {index}" for index in range(_two(x).shape[0])]
        return [list(channels), [figure(step * self.dt) for step in range(x.shape[-1])]]

    def groupings(self) -> dict[str, Grouping]:
        found = {f"windows-{count}": tiled(count, 1) for count in (16, 64, 8, 4)}
        return {**found, "channel": _BY_CHANNEL, "entry": each, "whole": whole}

    def choices(self) -> dict[str, Any]:
        return {"zero": 0.0, "mean": _mean}

    def window(self, x: Tensor) -> list[int]:
        return [max(1, x.shape[-1] // 16)]

    def edited(self, x: Tensor, edit: Mapping[str, Any], fill: Tensor) -> tuple[Tensor, None]:
        series, filling = _two(x).clone(), _two(fill)
        steps = torch.arange(series.shape[-1], device=x.device)
        channels = torch.arange(series.shape[0], device=x.device)[:, None]
        for part in entries_of(edit, "erase", ("channel", "start", "stop"), optional=["channel"]):
            hidden = (steps >= part["start"]) & (steps < part["stop"])
            if part.get("channel") is not None:
                hidden = hidden & (channels == part["channel"])
            series = torch.where(hidden, filling, series)
        return series.reshape(x.shape), None


def _mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True).expand_as(x)


def _two(x: Tensor) -> Tensor:
    return x[None] if x.ndim == 1 else x


_BY_CHANNEL = Grouping(
    lambda x: torch.arange(len(x))[:, None] if x.ndim == 2 else whole(x),
    lambda x, name: f"torch.arange({len(x)})[:, None]" if x.ndim == 2 else whole.code(x, name),
)
