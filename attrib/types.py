"""The five kinds of function, and the data that passes between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor

__all__ = ["Attribute", "Estimate", "Measure", "Perturb", "Reducer", "Score", "Tree"]

Tree: TypeAlias = Any
"""A tensor, or a (nested) tuple, list or dict of tensors, as `torch.utils._pytree` sees it."""


class Score(Protocol):
    """``f(x, *args) -> (*batch,)``: one number per example.

    The leaves of ``x`` have shape ``(*batch, *feature)``; there may be any number of batch
    dimensions, none included. Examples do not interact: the score of one does not depend on
    another.
    """

    def __call__(self, x: Tree, /, *args: Any) -> Tensor: ...


class Attribute(Protocol):
    """``attribute(x, *args) -> tree like x``: what each entry of ``x`` contributes to the score.

    Integer, boolean and absent leaves of ``x`` are carried along; an attribution made from
    gradients holds ``None`` in their place.
    """

    def __call__(self, x: Tree, /, *args: Any) -> Tree: ...


class Measure(Protocol):
    """``measure(...) -> (*batch,)``: one number per example about an attribution."""

    def __call__(self, *args: Any) -> Tensor: ...


class Perturb(Protocol):
    """``perturb(x) -> x'``: a fresh random draw per call, shaped like ``x``."""

    def __call__(self, x: Tree, /) -> Tree: ...


class Reducer(Protocol):
    """Folds an iterable of chunks, stacked on a leading sample axis, into one tree."""

    def __call__(self, chunks: Iterable[Tree], /) -> Any: ...


class Estimate(NamedTuple):
    """A value with its uncertainty.

    Attributes:
        value: The estimate.
        stderr: Its standard error (for a quadrature: the estimated error), a tree like ``value``.
        samples: How many samples (for a quadrature: how many nodes) it rests on.
    """

    value: Tree
    stderr: Tree
    samples: int
