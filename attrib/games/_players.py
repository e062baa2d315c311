"""Who the players are: from ids and windows to what each player covers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from attrib._checks import check_count, describe
from attrib._transforms import numbers
from attrib._tree import flatten, leaf_names, leaves, leaves_for, unflatten
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games._covers import Cover, Entries, Grid, Members
from attrib.types import Tree

__all__ = ["Groups", "Partition", "Windows", "check_ids", "covers_of", "partition"]


@dataclass(frozen=True)
class Windows:
    """Boxes that slide over the features of every leaf, see `windows`.

    Attributes:
        window: Sizes of the box in the last dimensions of a leaf, or a tree of them.
        strides: Steps of the box.
    """

    window: Any
    strides: Any = 1


@dataclass(frozen=True, eq=False)
class Partition:
    """A mask of ids, see `partition`.

    Attributes:
        ids: Tree of integer tensors, the player of each entry; -1 for an entry of none.
        players: How many there are.
    """

    ids: Tree
    players: int


Groups: TypeAlias = "Tree | Windows | Partition | None"
"""What is one feature: ``None`` for every entry, a tree of integer ids, or `windows`."""


def partition(groups: Groups) -> Groups:
    """Ids made ready for use: checked, and numbered without gaps; anything else as it is.

    Raises:
        AttribTypeError: If the ids are not integer tensors, or have no numbers as inside of a
            compiler.
        AttribValueError: If all of them are negative.
    """
    if groups is None or isinstance(groups, (Windows, Partition)):
        return groups
    parts, spec = flatten(groups)
    for part, name in zip(parts, leaf_names(groups, "groups"), strict=True):
        if part is not None:
            check_ids(
                part,
                name,
                "number the features, with the same id for entries that belong "
                "together and a negative one for entries that are never hidden",
            )
    masks = [part for part in parts if part is not None]
    known = [numbers(mask) for mask in masks]
    if any(k is None or k is not mask for k, mask in zip(known, masks, strict=True)):
        raise AttribTypeError(
            "groups: ids without numbers, got tensors inside of torch.compile or torch.vmap; make "
            "the method outside",
            code="groups.traced",
        )
    present = _present(masks)
    if len(present) == 0:
        raise AttribValueError(
            "groups: no feature, got only negative ids; a negative id is for entries that are "
            "never hidden",
            code="groups.empty",
        )

    def numbered(mask: Any) -> Any:
        if mask is None:
            return None
        place = torch.searchsorted(present.to(mask.device), mask.long().contiguous())
        return torch.where(mask < 0, -1, place)

    return Partition(unflatten(spec, [numbered(part) for part in parts]), len(present))


def covers_of(groups: Groups, x: Tree, batch_dims: int) -> tuple[int, list[Cover | None]]:
    """How many players there are, and how they cover each leaf of ``x``.

    Raises:
        AttribError: If the groups do not fit ``x``.
    """
    parts = leaves(x)
    groups = partition(groups)
    if groups is None:
        return _entries(x, batch_dims)
    if isinstance(groups, Windows):
        return _grids(groups, x, batch_dims)
    given = leaves_for(x, groups.ids)
    if given is None:
        raise AttribValueError(
            f"groups: structure differs from that of x, got {describe(groups.ids)}; expected one "
            f"tensor of ids that broadcasts to every leaf, or a tree like x ({describe(x)})",
            code="groups.structure",
        )
    names = leaf_names(x, "groups")
    each = zip(parts, given, names, strict=True)
    return groups.players, [_members(leaf, ids, groups.players, name) for leaf, ids, name in each]


def check_ids(ids: Any, name: str, hint: str) -> None:
    code = name.partition("[")[0]
    if not isinstance(ids, Tensor):
        raise AttribTypeError(
            f"{name}: must be a tensor of integers, got {type(ids).__name__}; {hint}",
            code=f"{code}.type",
        )
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise AttribTypeError(
            f"{name}: must be integers, got {ids.dtype}; {hint}", code=f"{code}.type"
        )


def _present(masks: list[Tensor]) -> Tensor:
    """The ids that there are, in order, without negative ones."""
    ids = [np.unique(mask.detach().to("cpu", torch.long).numpy()) for mask in masks]
    present = torch.as_tensor(
        np.unique(np.concatenate([np.zeros(0, np.int64), *ids])), device="cpu"
    )
    return present[present >= 0]


def _entries(x: Tree, batch_dims: int) -> tuple[int, list[Cover | None]]:
    covers: list[Cover | None] = []
    players = 0
    for part in leaves(x):
        shape = () if part is None else tuple(part.shape[batch_dims:])
        covers.append(None if part is None else Entries(players, shape))
        players += 0 if part is None else math.prod(shape)
    if players == 0:
        raise AttribValueError(
            f"x: no feature, got shape {describe(x)}; nothing is there that could be hidden",
            code="groups.empty",
        )
    return players, covers


def _members(leaf: Any, ids: Any, players: int, name: str) -> Cover | None:
    if leaf is None or ids is None:
        return None
    fits = ids.ndim <= leaf.ndim and all(
        own in (1, size)
        for own, size in zip(reversed(ids.shape), reversed(leaf.shape), strict=False)
    )
    if not fits:
        raise AttribValueError(
            f"{name}: does not broadcast to x, got shape {tuple(ids.shape)}; x has shape "
            f"{tuple(leaf.shape)}",
            code="groups.shape",
        )
    ids = ids.to(leaf.device).reshape((1,) * (leaf.ndim - ids.ndim) + ids.shape)
    return Members(torch.where(ids < 0, players, ids))


def _grids(groups: Windows, x: Tree, batch_dims: int) -> tuple[int, list[Cover | None]]:
    parts, names = leaves(x), leaf_names(x, "window")
    sizes = _per_leaf(groups.window, x, "window")
    single = isinstance(groups.strides, int) and not isinstance(groups.strides, bool)
    strides = [groups.strides] * len(parts) if single else _per_leaf(groups.strides, x, "strides")
    covers: list[Cover | None] = []
    players = 0
    for part, size, stride, name in zip(parts, sizes, strides, names, strict=True):
        if part is None or size is None:
            covers.append(None)
            continue
        grid = _grid(part.shape[batch_dims:], size, stride, players, name, part.device)
        covers.append(grid)
        players += math.prod(grid.counts)
    if all(cover is None for cover in covers):
        raise AttribValueError(
            f"window: no feature, got {groups.window!r}; a window of None is for leaves that are "
            "never hidden",
            code="groups.empty",
        )
    return players, covers


def _per_leaf(value: Any, x: Tree, name: str) -> list[Any]:
    if isinstance(x, Tensor):
        return [value]
    try:
        return pytree.tree_structure(x).flatten_up_to(value)
    except ValueError:
        raise AttribValueError(
            f"{name}: structure differs from that of x, got {type(value).__name__}; expected a "
            f"tree like x ({describe(x)}) with a tuple of integers for each leaf",
            code=f"{name}.structure",
        ) from None


def _grid(
    shape: torch.Size, window: Any, stride: Any, start: int, name: str, device: torch.device
) -> Grid:
    if not isinstance(window, (tuple, list)):
        raise AttribTypeError(
            f"{name}: must be a tuple of integers, got {type(window).__name__}; pass the size of "
            f"the box in the last of the features {tuple(shape)}",
            code="window.type",
        )
    sizes = [check_count(size, "window") for size in _listed(window)]
    given = _listed(stride) if isinstance(stride, (tuple, list)) else [stride] * len(sizes)
    steps = [check_count(step, "strides") for step in given]
    whole = len(shape) - len(sizes)
    if whole < 0 or any(w > n for w, n in zip(sizes, shape[whole:], strict=True)):
        raise AttribValueError(
            f"{name}: larger than x, got {tuple(sizes)} for features of shape {tuple(shape)}",
            code="window.shape",
        )
    if len(steps) != len(sizes):
        raise AttribValueError(
            f"strides: one step for each size of the window, got {len(steps)} for {len(sizes)}",
            code="strides.shape",
        )
    along = [
        _covering(length, size, step, device)
        for length, size, step in zip(shape[whole:], sizes, steps, strict=True)
    ]
    counts = (1,) * whole + tuple(count for count, _ in along)
    return Grid(start, counts, (None,) * whole + tuple(covering for _, covering in along))


def _listed(values: Any) -> list[Any]:
    return list(values)


def _covering(length: int, size: int, step: int, device: torch.device) -> tuple[int, Tensor | None]:
    """How many windows there are, and which of them cover each position."""
    count = math.ceil((length - size) / step) + 1
    count = min(count, math.ceil(length / step))  # steps beyond the end lead nowhere
    if size == length:
        return 1, None
    position = torch.arange(length, device=device)
    window = position // step - torch.arange(math.ceil(size / step), device=device).unsqueeze(-1)
    covers = (window >= 0) & (window < count) & (position < window * step + size)
    return count, torch.where(covers, window, count)
