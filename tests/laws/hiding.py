"""Methods that need to know how many features there are, or where, as methods of any input."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from attrib import games
from attrib._tree import differentiable
from attrib.types import Attribute, Score, Tree


def owen(f: Score, **options: Any) -> Attribute:
    """Features in pairs that come and go together."""
    games.owen_values(f, unions=_pairs(2), **options)  # refuses options at once

    def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
        groups = options.get("groups")
        pairs = _pairs(games.game(f, x, baseline, *args, groups=groups).players)
        return games.owen_values(f, unions=pairs, **options)(x, baseline, *args)

    return attribute


def _pairs(features: int) -> Tensor:
    return torch.arange(features, device="cpu") // 2


def alone(f: Score, **options: Any) -> Attribute:
    """What features contribute alone, of a game of pairs that fits all coalitions best."""
    games.interactions(f, index="faithful", **options)  # refuses options at once

    def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
        v = games.game(f, x, baseline, *args, groups=options.get("groups"))
        few = 5 * v.players * (v.players + 1) // 4  # of so many, not all coalitions of six
        found = games.interactions(f, index="faithful", samples=few, **options)(x, baseline, *args)
        return v.spread(found.values[..., : v.players])

    return attribute


def visible(f: Score, **options: Any) -> Attribute:
    """Random masks that fade along the last dimension, which all leaves have."""

    def attribute(x: Tree, baseline: Any = 0, *args: Any) -> Tree:
        lasts = [leaf.shape[-1:] for leaf in pytree.tree_leaves(x) if differentiable(leaf)]
        return games.rise(f, cells=min(lasts, default=()) or (1,), **options)(x, baseline, *args)

    return attribute
