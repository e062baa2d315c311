"""Hand-written limits of the methods that hide features: one loop over rows of a good size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attrib.games import patches
from benchmarks.models import Workload

Call = Callable[[], Tensor]


def tiles(x: Tensor, size: Sequence[int]) -> Tensor:
    """Ids of the boxes that tile the last dimensions of ``x``, zero for a whole dimension."""
    shape = x.shape[x.dim() - len(size) :]
    return patches(x, [step or whole for step, whole in zip(size, shape, strict=True)])


def feature_ablation(
    workload: Workload, *, size: Sequence[int], rows: int, layout: str = "contiguous"
) -> Call:
    """The score without each tile."""
    x, baseline = workload.x, workload.baseline
    ids = tiles(x, size)
    ids = ids.view(*(1 for _ in range(x.dim() - ids.dim())), *ids.shape)
    features = int(ids.max()) + 1
    together = max(1, rows // len(x))

    def call() -> Tensor:
        whole = _score(workload, x, layout)
        parts: list[Tensor] = []
        for start in range(0, features, together):
            absent = torch.arange(start, min(start + together, features))
            hidden = ids == absent.view(-1, *(1 for _ in ids.shape))
            points = torch.where(hidden, baseline, x).flatten(0, 1)
            parts.append(whole - _score(workload, points, layout).view(len(absent), -1))
        return torch.cat(parts).T[:, ids[0]].expand_as(x)

    return call


def occlusion(
    workload: Workload, *, window: int, stride: int, rows: int, layout: str = "contiguous"
) -> Call:
    """The score behind square windows over all channels, on a grid that ends with the image."""
    x, baseline = workload.x, workload.baseline
    height, width = x.shape[-2:]
    corners = [
        (top, left)
        for top in range(0, height - window + 1, stride)
        for left in range(0, width - window + 1, stride)
    ]
    masks = torch.zeros(len(corners), height, width, dtype=torch.bool)
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[top : top + window, left : left + window] = True
    together = max(1, rows // len(x))
    counts = masks.sum(0)

    def call() -> Tensor:
        whole = _score(workload, x, layout)
        lost: list[Tensor] = []
        for some in masks.split(together):
            points = torch.where(some[:, None, None], baseline, x)
            without = _score(workload, points.flatten(0, 1), layout)
            lost.append(whole - without.view(len(some), -1))
        total = torch.einsum("wb,whv->bhv", torch.cat(lost), masks.to(x.dtype))
        return (total / counts).unsqueeze(1).expand_as(x)

    return call


def _score(workload: Workload, points: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        points = points.contiguous(memory_format=torch.channels_last)
    return workload.model(points)[:, workload.target]
