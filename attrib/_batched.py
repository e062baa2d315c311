"""Functions of independent rows, and evaluating any function on a stack of points."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from einops import repeat
from torch import Tensor, nn

from attrib._carriers import Overridden
from attrib._transforms import compiling
from attrib._tree import flatten, leaves, length, tree_map, unflatten
from attrib.errors import ONE_BY_ONE, add_note
from attrib.types import Tree

__all__ = [
    "Batched",
    "Choice",
    "NotRowsError",
    "Rows",
    "baseline_of",
    "called_like",
    "inherit",
    "of_the_same_rows",
    "stacked",
]


class NotRowsError(Exception):
    """A function marked as batched did not return one result per row."""


class Rows(NamedTuple):
    """What belongs to the rows of a batched function.

    Attributes:
        tensors: Tensors with one entry per row that the function carries, such as its targets.
        length: How many rows the result must have; ``None`` if the caller knows best.
    """

    tensors: tuple[Tensor, ...] = ()
    length: int | None = None


class Choice(NamedTuple):
    """One of several outputs, for scores that share everything up to them.

    Attributes:
        position: Which output, a tensor without dimensions; inside of `torch.vmap`, many at once.
        outputs: ``outputs(x, args)``, what the scores share.
        select: ``select(outputs, position, x, length)``, the score of one output.
    """

    position: Tensor
    outputs: Callable[[Tree, tuple[Any, ...]], Any]
    select: Callable[[Any, int, Tree, int | None], Tensor]


_NO_ROWS = Rows()


@dataclass(frozen=True)
class Batched:
    """A function whose dimension 0 is a batch of rows that do not interact.

    A stack of points can then be evaluated as one large batch, with the row tensors repeated.

    Attributes:
        function: ``function(rows, x, *args)``.
        rows: The tensors that belong to the rows.
        choice: For a score that selects by a tensor: the parts that it is made of.
        models: The modules it calls, if it tells.
        marked: ``marked(spots)``, the same function of models in which these places are marked.
        like: The function whose signature it has.
    """

    function: Callable[..., Any]
    rows: Rows = _NO_ROWS
    choice: Choice | None = None
    models: tuple[nn.Module, ...] = ()
    marked: Callable[[Sequence[Any]], Any] | None = None
    like: Callable[..., Any] | None = None

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.like or _any_score)

    def __call__(self, x: Tree, /, *args: Any, **named: Any) -> Any:
        return self.function(self.rows, x, *args, **named)

    def on(self, rows: Rows) -> Batched:
        """The same function of other rows; `dataclasses.replace` takes as long as a kernel."""
        return Batched(self.function, rows, self.choice, self.models, self.marked, self.like)


def called_like(attribute: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of positions that is called as an attribution is, also by the names of its
    arguments, and says so."""
    return _CalledLike(attribute, function)


class _CalledLike:
    # Reading a signature takes as long as a few kernels: it is read where somebody asks.
    def __init__(self, attribute: Callable[..., Any], function: Callable[..., Any]) -> None:
        self._attribute = attribute
        self._function = function

    @property
    def __signature__(self) -> inspect.Signature:
        try:
            return inspect.signature(self._attribute)
        except (TypeError, ValueError):  # a callable may have no signature
            return inspect.signature(self._function)

    def __call__(self, *args: Any, **named: Any) -> Any:
        if not named:
            return self._function(*args)
        bound = self.__signature__.bind(*args, **named)
        return self._function(*bound.args, **bound.kwargs)


def baseline_of(attribute: Callable[..., Any]) -> str | None:
    """Whether an attribution is called as ``attribute(x, baseline)`` or ``(x, baselines)``."""
    names: list[str] = []
    with suppress(TypeError, ValueError):  # a callable may have no signature
        names = list(inspect.signature(attribute).parameters)
    return names[1] if len(names) > 1 and names[1] in ("baseline", "baselines") else None


def _any_score(x: Tree, *args: Any) -> Any:
    """What is called like any other score."""


def inherit(f: Any, method: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """``method(f)``, marked as batched if `f` is: rows that do not interact keep to themselves."""
    plain = method(f)
    score = f.score if isinstance(f, Overridden) else f
    if not isinstance(score, Batched):
        return plain

    def function(rows: Rows, x: Tree, *args: Any, **named: Any) -> Any:
        if rows is score.rows:
            return plain(x, *args, **named)
        own = score.on(rows)
        return method(replace(f, score=own) if isinstance(f, Overridden) else own)(
            x, *args, **named
        )

    return Batched(function, score.rows, like=plain)


def of_the_same_rows(fn: Any, other: Any) -> Any:
    """`fn` for the rows that another function has, which was made from the same score."""
    if isinstance(fn, Batched) and isinstance(other, Batched):
        return fn.on(other.rows)
    return fn


def stacked(fn: Callable[..., Any], *shared: Any, same_draws: bool = False) -> Callable[..., Any]:
    """Evaluate `fn` on points stacked along a leading sample axis, as its kind allows.

    A single point is called as it is, so that anything Python can do works. A batched function sees
    one large batch, ``"samples batch ... -> (samples batch) ..."``; any other function goes through
    `torch.vmap`.

    Args:
        fn: ``fn(*point, *shared)``.
        *shared: Arguments that all points have in common.
        same_draws: Let all points see the same random numbers. Without it a function that draws
            some is called point by point, so that the draws do not depend on the chunk size.

    Returns:
        ``over(*points)`` with the results stacked in the same way.
    """

    def over(*points: Tree) -> Tree:
        parts = [leaf for leaf in leaves(points) if leaf is not None]
        samples = parts[0].shape[0]
        if samples == 1:
            return _one(fn, points, shared)
        if isinstance(fn, Batched) and _may_fold(points[0]):
            try:
                return _fold(fn, samples, parts, points, shared)
            except NotRowsError:
                pass
            except Exception as error:
                if compiling() or not _single_example(fn, points, shared):
                    add_note(
                        error,
                        f"attrib was evaluating {samples} points folded into one batch; "
                        f"{ONE_BY_ONE}",
                    )
                    raise
        return _lift(fn, points, shared, "same" if same_draws else "error")

    return over


def _one(fn: Callable[..., Any], points: tuple[Tree, ...], shared: tuple[Any, ...]) -> Tree:
    (first,) = _each(points)
    return tree_map(lambda leaf: leaf[None], fn(*first, *shared))


def _each(points: tuple[Tree, ...]) -> list[tuple[Tree, ...]]:
    samples = range(length(points[0]))
    return [tree_map(lambda leaf, i=i: leaf[i], points) for i in samples]


def _may_fold(x: Tree) -> bool:
    dimensions = [leaf.ndim - 1 for leaf in leaves(x) if leaf is not None]
    # A vector is nearly always one example. Outside of a compiler the model itself tells.
    return min(dimensions) > 1 if compiling() else min(dimensions) > 0


def _fold(
    fn: Batched,
    samples: int,
    parts: list[Tensor],
    points: tuple[Tree, ...],
    shared: tuple[Any, ...],
) -> Tree:
    batch = parts[0].shape[1]
    for part in parts:
        if part.shape[1] != batch:
            raise NotRowsError  # a leaf that the examples share is no row of any of them

    def folded(leaf: Tensor) -> Tensor:
        return leaf.flatten(0, 1)

    def unfolded(leaf: Tensor) -> Tensor:
        return leaf.reshape(samples, batch, *leaf.shape[1:])

    def repeated(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == batch:
            return repeat(leaf, "batch ... -> (samples batch) ...", samples=samples)
        return leaf

    rows = Rows(tuple(map(repeated, fn.rows.tensors)), samples * batch)
    each = [tree_map(folded, point) for point in points]
    return tree_map(unfolded, fn.function(rows, *each, *tree_map(repeated, shared)))


def _single_example(fn: Batched, points: tuple[Tree, ...], shared: tuple[Any, ...]) -> bool:
    """Whether the points are examples without a batch dimension, told by evaluating the first."""
    first = _each(tree_map(lambda leaf: leaf[:1], points))[0]
    try:
        # No score has -1 rows: the refusal says how many dimensions it has instead.
        fn.function(Rows(fn.rows.tensors, length=-1), *first, *shared)
    except NotRowsError as refusal:
        return refusal.args == (0,)
    except Exception:
        return False
    return False


def _lift(
    fn: Callable[..., Any], points: tuple[Tree, ...], shared: tuple[Any, ...], randomness: str
) -> Tree:
    structure: list[Any] = []

    def tensors(*point: Tree) -> tuple[Tensor, ...]:
        # vmap takes and gives tensors alone; an attribution may hold None.
        results, spec = flatten(fn(*point, *shared))
        structure[:] = [spec, [leaf is not None for leaf in results]]
        return tuple(leaf for leaf in results if leaf is not None)

    if compiling() and randomness == "error":
        randomness = "different"
    in_dims = tree_map(lambda leaf: 0, points)
    try:
        results = iter(torch.vmap(tensors, in_dims=in_dims, randomness=randomness)(*points))
    except RuntimeError as error:
        if "randomness" in str(error):
            each = [fn(*point, *shared) for point in _each(points)]
            return tree_map(lambda *leaf: torch.stack(leaf), *each)
        add_note(
            error,
            f"attrib was evaluating {length(points[0])} points at once with torch.vmap; "
            f"{ONE_BY_ONE}",
        )
        raise
    spec, present = structure
    return unflatten(spec, [next(results) if here else None for here in present])
