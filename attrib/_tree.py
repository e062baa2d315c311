"""Trees: tensors and nested tuples, lists and dicts of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch.utils._pytree as pytree
from torch import Tensor

from attrib.types import Tree

__all__ = [
    "copied",
    "differentiable",
    "features",
    "flatten",
    "leaf_names",
    "leaves",
    "leaves_for",
    "length",
    "put",
    "tree_map",
    "unflatten",
]

_LEAF = pytree.tree_structure(0)


def flatten(tree: Tree) -> tuple[list[Any], pytree.TreeSpec]:
    """The leaves of a tree, and what puts them back together."""
    return ([tree], _LEAF) if isinstance(tree, Tensor) else pytree.tree_flatten(tree)


def unflatten(spec: pytree.TreeSpec, parts: Sequence[Any]) -> Tree:
    """A tree from its leaves."""
    return parts[0] if spec is _LEAF else spec.unflatten(parts)


def copied(tree: Any) -> Any:
    """The same with copies of all tensors, for a model that may write to what it is given."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)


def leaves(tree: Tree) -> list[Any]:
    """The leaves of a tree."""
    if isinstance(tree, (Tensor, int, float)):
        return [tree]
    parts: Any = tree
    if type(tree) is tuple:
        return [leaf for part in parts for leaf in leaves(part)]
    return pytree.tree_leaves(tree)


@overload
def tree_map(fn: Callable[[Any], Any], tree: Tree, /) -> Tree: ...
@overload
def tree_map(fn: Callable[[Any, Any], Any], tree: Tree, second: Tree, /) -> Tree: ...
@overload
def tree_map(
    fn: Callable[[Any, Any, Any], Any], tree: Tree, second: Tree, third: Tree, /
) -> Tree: ...
@overload
def tree_map(fn: Callable[..., Any], tree: Tree, /, *rest: Tree) -> Tree: ...
def tree_map(fn: Callable[..., Any], tree: Tree, /, *rest: Tree) -> Tree:
    """Apply `fn` to corresponding leaves; a leaf that is ``None`` in the first tree stays so."""
    # The common cases; walking them as general trees costs as much as a small kernel.
    if isinstance(tree, Tensor):
        return fn(tree, *rest)
    parts: Any = tree
    if type(tree) is tuple and not rest:
        return tuple(tree_map(fn, part) for part in parts)

    def unless_absent(leaf: Any, *more: Any) -> Any:
        return None if leaf is None else fn(leaf, *more)

    return pytree.tree_map(unless_absent, tree, *rest)


def leaves_for(tree: Tree, value: Any) -> list[Any] | None:
    """The leaves of `value` that belong to those of `tree`; one leaf belongs to all of them.

    Returns ``None`` where the structures differ.
    """
    if isinstance(tree, Tensor) and isinstance(value, (Tensor, int, float)):
        return [value]
    spec = pytree.tree_structure(tree)
    parts, own = pytree.tree_flatten(value)
    if own == spec:
        return parts
    return parts * spec.num_leaves if own.is_leaf() else None


def length(tree: Tree) -> int:
    """The size of the leading axis that the leaves share."""
    return next(leaf.shape[0] for leaf in leaves(tree) if leaf is not None)


def put(parts: Sequence[Any], places: Sequence[int], values: Iterable[Any]) -> list[Any]:
    """A copy of `parts` with other values in some places."""
    filled = list(parts)
    for place, value in zip(places, values, strict=True):
        filled[place] = value
    return filled


def differentiable(leaf: Any) -> bool:
    """Whether a leaf is a tensor that has gradients."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def features(leaf: Tensor, batch_dims: int) -> Tensor:
    """The features of every example in one dimension; a leaf of plain numbers has one feature."""
    return leaf.unsqueeze(-1) if leaf.ndim == batch_dims else leaf.flatten(batch_dims)


def leaf_names(tree: Tree, name: str) -> list[str]:
    """How each leaf is written in code: ``x``, ``x[0]``, ``x['mask']``."""
    return [name + pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]
