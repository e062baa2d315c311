"""What is said of every attribution, whatever it belongs to, and how maps get smaller."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attrib.plot.colors import limit

__all__ = ["MOST_SIDE", "Numbers", "as_numbers", "binned", "shrunk", "statistics"]

Numbers = NDArray[np.float64]

MOST_SIDE = 512  # pixels: a larger map is sent as means over areas


def as_numbers(tensor: Tensor) -> Numbers:
    """A tensor as float64 numbers on the CPU."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def statistics(values: Numbers) -> dict[str, Any]:
    """Sums, and a scale that a few large entries do not decide: the 99th percentile."""
    finite = values[np.isfinite(values)]
    sizes = np.abs(finite)
    largest = float(sizes.max()) if sizes.size else 0.0
    scale = limit(values) if largest else 0.0
    return {
        "total": float(finite.sum()),
        "absolute": float(sizes.sum()),
        "scale": scale,
        "max": largest,
        "clipped": float((sizes > scale).mean()) if sizes.size else 0.0,
        "nan": int(np.isnan(values).sum()),
        "inf": int(np.isinf(values).sum()),
    }


def shrunk(image: Tensor, most: int = MOST_SIDE) -> Tensor:
    """An image ``(channels, height, width)`` with sides of at most `most`, by means over areas."""
    height, width = image.shape[-2:]
    factor = max(height, width) / most
    if factor <= 1:
        return image
    size = (max(1, round(height / factor)), max(1, round(width / factor)))
    return F.adaptive_avg_pool2d(image[None], size)[0]


def binned(series: Tensor, most: int) -> tuple[Tensor, int]:
    """A series ``(channels, steps)`` of at most `most` points, and how many steps each is a mean
    of."""
    stride = -(-series.shape[-1] // most)
    if stride == 1:
        return series, 1
    return F.avg_pool1d(series[None], stride, ceil_mode=True, count_include_pad=False)[0], stride
