"""Images: pixels, maps over them, and what a person may erase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attrib.errors import AttribValueError
from attrib.insights.features.feature import Grouping, each, entries_of, tiled, whole
from attrib.insights.features.measures import as_numbers, shrunk, statistics
from attrib.insights.protocol import quantised

__all__ = ["Image"]


@dataclass(frozen=True)
class Image:
    """A feature ``(channels, height, width)``, see `attrib.insights.image`."""

    denorm: tuple[Any, Any] | None = None
    baselines: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kind: str = field(default="image", init=False)
    embed: None = field(default=None, init=False)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "editable": True}

    def check(self, x: Tensor, name: str) -> None:
        if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[0] not in (1, 2, 3, 4)):
            raise AttribValueError(
                f"data: feature {name!r} must be an image (channels, height, width) with 1 to 4 "
                f"channels, got shape {tuple(x.shape)}; use insights.array() for other tensors",
                code="data.shape",
            )

    def view(self, x: Tensor) -> dict[str, Any]:
        image = _channels(x).detach().to("cpu", torch.float64)
        size = list(image.shape[-2:])
        image = shrunk(self._visible(image))
        if image.shape[0] not in (1, 3):
            image = image[:3] if image.shape[0] > 3 else image.mean(0, keepdim=True)
        pixels = torch.nan_to_num(image, nan=0.0).mul(255).round().clamp(0, 255)
        return {
            "kind": self.kind,
            "pixels": pixels.permute(1, 2, 0).to(torch.uint8).numpy(),
            "size": size,
        }

    def show(self, attribution: Tensor, x: Tensor, grouped: bool) -> dict[str, Any]:
        channels = _channels(attribution).detach().to("cpu", torch.float64)
        # A region has one number, which all channels repeat.
        heat = channels.mean(0) if grouped else channels.sum(0)
        size = list(heat.shape)
        small = shrunk(heat[None])[0]
        return {
            "kind": self.kind,
            **statistics(as_numbers(heat)),
            "values": quantised(as_numbers(small)),
            "size": size,
            "factor": size[0] / small.shape[0],
        }

    def displayed(self, attribution: Tensor, grouped: bool) -> Tensor:
        channels = _channels(attribution)
        return channels.mean(0) if grouped else channels.sum(0)

    def texts(self, x: Tensor) -> list[str]:
        return []

    def names(self, x: Tensor) -> list[Sequence[str]] | None:
        return None

    def groupings(self) -> dict[str, Grouping]:
        found = {f"grid-{count}": tiled(count, 2) for count in (8, 16, 4, 3, 2)}
        return {**found, "entry": each, "whole": whole}

    def choices(self) -> dict[str, Any]:
        return {"zero": 0.0, "mean": _mean_colour, "blurred": _blurred}

    def window(self, x: Tensor) -> list[int]:
        return [max(1, length // 8) for length in x.shape[-2:]]

    def edited(self, x: Tensor, edit: Mapping[str, Any], fill: Tensor) -> tuple[Tensor, None]:
        height, width = x.shape[-2:]
        hidden = torch.zeros(height, width, dtype=torch.bool)
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
        for box in entries_of(edit, "erase", ("y0", "x0", "y1", "x1")):
            hidden |= (
                (rows >= box["y0"])
                & (rows < box["y1"])
                & (columns >= box["x0"])
                & (columns < box["x1"])
            )
        for spot in entries_of(edit, "paint", ("y", "x", "radius")):
            hidden |= (rows - spot["y"]) ** 2 + (columns - spot["x"]) ** 2 <= spot["radius"] ** 2
        return torch.where(hidden.to(x.device), fill, x), None

    def _visible(self, image: Tensor) -> Tensor:
        """An image in the range from 0 to 1."""
        if self.denorm is not None:
            mean, std = (
                torch.as_tensor(part, dtype=image.dtype).reshape(-1, 1, 1) for part in self.denorm
            )
            return image * std + mean
        finite = image[torch.isfinite(image)]
        low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 1.0)
        if low >= 0 and high <= 1:
            return image
        if low >= 0 and high <= 255 and high > 2:
            return image / 255
        return (image - low) / max(high - low, 1e-12)


def _channels(x: Tensor) -> Tensor:
    return x[None] if x.ndim == 2 else x


def _mean_colour(x: Tensor) -> Tensor:
    return x.mean((-2, -1), keepdim=True).expand_as(x)


def _blurred(x: Tensor) -> Tensor:
    """A Gaussian blur so wide, a tenth of the longer side, that little can be recognised."""
    found = x
    sigma = max(x.shape[-2:]) / 10
    for dim in (-2, -1):
        places = torch.arange(x.shape[dim], dtype=x.dtype, device=x.device)
        weights = torch.exp(-((places[:, None] - places[None]) ** 2) / (2 * sigma**2))
        weights = weights / weights.sum(-1, keepdim=True)
        found = (found.movedim(dim, -1) @ weights.mT).movedim(-1, dim)
    return found
