"""Coalition games: a score as a function of which features are present."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attrib._batched import Batched, stacked
from attrib._carriers import Overridden
from attrib._checks import check_baseline, check_input, check_values, describe
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks, slices
from attrib._tree import (
    copied,
    differentiable,
    flatten,
    leaves,
    leaves_for,
    length,
    tree_map,
    unflatten,
)
from attrib.errors import AttribTypeError, AttribValueError
from attrib.games._covers import Cover, hidden, spread
from attrib.games._players import Groups, covers_of, partition
from attrib.gradient import score_of
from attrib.types import Score, Tree

__all__ = ["Game", "game", "gathered"]

_Values = tuple[Tensor, Tensor]

# Chunks that are kept before they become one.
_FEW = 32


@dataclass(frozen=True, eq=False)
class Game:
    r"""A coalition game :math:`v`, made by `game`.

    Attributes:
        players: How many features there are.
        full: :math:`v` of all players, the score of ``x`` itself, ``(*batch,)``.
        chunk_size: Coalitions evaluated at once.
        x: What is explained.
        baseline: What absent features are replaced by.
        interventional: Whether the baseline is a set of rows to average over.
        covers: For each leaf of ``x``, which players stand for its entries.
        evaluate: ``evaluate(coalitions, baseline) -> (samples, *batch)``, all at once; the leaves
            of this baseline broadcast to ``(samples, *batch, *feature)``.
        broken: Whether there was a warning that the score of ``x`` is not finite.
        rows: The score of examples in one batch, of copies of its models, where it takes them so.
        models: These models.
        like: A tree as large as what is computed for one coalition, next to the model's own.
    """

    players: int
    full: Tensor = field(repr=False)
    chunk_size: ChunkSize
    x: Tree = field(repr=False)
    baseline: Tree = field(repr=False)
    interventional: bool
    covers: list[Cover | None] = field(repr=False)
    evaluate: Callable[[Tensor, Tree], Tensor] = field(repr=False)
    broken: bool = field(repr=False)
    rows: Callable[[Tree], Tensor] | None = field(repr=False)
    models: tuple[nn.Module, ...] = field(repr=False)
    like: Tree = field(repr=False)

    @property
    def batch(self) -> torch.Size:
        """The batch dimensions of ``x``."""
        return self.full.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the values."""
        return self.full.dtype

    @property
    def device(self) -> torch.device:
        """Where coalitions and values live."""
        return next(leaf.device for leaf in leaves(self.x) if leaf is not None)

    def __call__(self, coalitions: Tensor) -> Tensor:
        """The values of coalitions.

        Args:
            coalitions: Who is present, boolean: ``(samples, players)`` for all examples alike, or
                ``(samples, *batch, players)``.

        Returns:
            ``(samples, *batch)``.

        Raises:
            AttribError: If the coalitions are not boolean or have another shape.
        """
        self._check(coalitions)
        if len(coalitions) == 0:
            return self.full.new_zeros((0, *self.batch))
        return gathered(self.over(slices(coalitions)))[1]

    def over(self, points: Points) -> Iterator[tuple[Tensor, Tensor]]:
        """Coalitions that are made as they are needed, with their values, a chunk at a time.

        Args:
            points: Coalitions; each chunk is shaped as for ``__call__``.

        Returns:
            ``(coalitions, values)`` of one chunk after another, for a reducer to fold.
        """
        if self.interventional:
            pairs = _with_rows(points, self.baseline)
            yield from _averaged(self.over_pairs(pairs), length(self.baseline))
        else:
            kernel: Callable[[Tensor], Any] = lambda c: (c, self.evaluate(c, self.baseline))
            yield from self._evaluated(kernel, points)

    def over_pairs(self, points: Points) -> Iterator[tuple[Tensor, Tensor]]:
        """The same for coalitions that have baselines of their own.

        Args:
            points: ``(coalitions, baselines)``, the latter a tree like ``x`` with leaves that
                broadcast to ``(samples, *batch, *feature)``.
        """
        return self._evaluated(lambda pair: (pair[0], self.evaluate(*pair)), points)

    def spread(self, values: Tensor) -> Tree:
        """Numbers of players as an attribution: every entry gets the number of its feature.

        Args:
            values: ``(*batch, players)``.

        Returns:
            A tree like ``x``. An entry that several windows cover gets their mean, one that belongs
            to no feature gets zero. The dtype is that of ``x``, and that of the values where ``x``
            has integers.
        """
        parts, spec = flatten(self.x)

        def filled(leaf: Any, cover: Cover | None) -> Any:
            if leaf is None:
                return None
            dtype = leaf.dtype if differentiable(leaf) else values.dtype
            if cover is None:
                return torch.zeros_like(leaf, dtype=dtype)
            found = spread(cover, values, len(self.batch)).to(dtype)
            return found.expand(leaf.shape).contiguous()

        return unflatten(spec, [filled(a, c) for a, c in zip(parts, self.covers, strict=True)])

    def _evaluated(
        self, kernel: Callable[[Any], tuple[Tensor, Tensor]], points: Points
    ) -> Iterator[tuple[Tensor, Tensor]]:
        known = self.broken
        chunks = map_chunks(kernel, points, chunk_size=self.chunk_size, like=self.like)
        for coalitions, found in chunks:
            values, known = check_values(found, known=known)
            yield coalitions, values

    def _check(self, coalitions: Tensor) -> None:
        found: Any = coalitions
        if not isinstance(found, Tensor) or found.dtype != torch.bool:
            kind = str(found.dtype) if isinstance(found, Tensor) else type(found).__name__
            raise AttribTypeError(
                f"coalitions: must be a boolean tensor, got {kind}; true for the players who are "
                "present",
                code="coalitions.type",
            )
        shared = coalitions.ndim == 2 and coalitions.shape[1] == self.players
        if not shared and coalitions.shape[1:] != (*self.batch, self.players):
            raise AttribValueError(
                f"coalitions: must have shape (samples, {self.players}) or (samples, "
                f"{', '.join(map(str, (*self.batch, self.players)))}), got "
                f"{tuple(coalitions.shape)}",
                code="coalitions.shape",
            )


def game(
    f: Score,
    x: Tree,
    baseline: Any = 0,
    *args: Any,
    groups: Groups = None,
    interventional: bool = False,
    chunk_size: ChunkSize = "auto",
) -> Game:
    r"""The score as a game of its features: absent ones are hidden by the baseline,

    .. math:: v(S) = f(x_S, x'_{\bar S}).

    Args:
        f: Score.
        x: What is explained. Integer and boolean leaves have features like any other.
        baseline: What the entries of absent features are replaced by: a number (``-inf`` or the id
            of a mask token are fine), a tensor that broadcasts to every leaf, or a tree like ``x``.
        *args: What else `f` takes.
        groups: Which entries are one feature. ``None``: every entry of an example, leaf by leaf.
            Integer ids, a tree like ``x`` of tensors that broadcast to its leaves (per example, if
            they have the batch dimensions): entries of the same id, in whatever leaf, are one
            feature; features are in the order of their ids, which may have gaps; entries of a
            negative id, and leaves whose ids are ``None``, are never hidden. Or `windows`: an entry
            is hidden if any window over it is absent.
        interventional: The baseline is a set, leaves ``(count, *feature)``, over whose rows the
            score is averaged, :math:`v(S) = \frac1n \sum_j f(x_S, x'_{j, \bar S})`.
        chunk_size: Coalitions (pairs of a coalition and a row of the baselines) evaluated at once.

    Returns:
        The game. The score of ``x`` itself is evaluated to make it.

    Raises:
        AttribValueError: For a baseline or groups that do not fit ``x``, or a score that is not one
            number per example.
        AttribTypeError: For arguments of another type.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite.

    References:
        Strumbelj & Kononenko (2014), https://doi.org/10.1007/s10115-013-0679-x; Lundberg & Lee
        (2017), https://arxiv.org/abs/1705.07874; for hiding as a choice of its own, Covert,
        Lundberg & Lee (2021), https://arxiv.org/abs/2011.14878

    Example:
        >>> import torch
        >>> v = game(lambda x: x.prod(-1), torch.tensor([[2.0, 3.0]]), 1.0)
        >>> v(torch.tensor([[False, False], [True, False], [True, True]]))
        tensor([[1.],
                [2.],
                [6.]])
    """
    chunk_size = check_chunk_size(chunk_size)
    check_input(x, gradients=False)
    groups = partition(groups)
    start = _rows(baseline, x) if interventional else check_baseline(baseline, x, integers=True)
    score = score_of(f, own=True)
    full = score(copied(x), *args)
    _check_batch(full, x)
    full, broken = check_values(full)
    if interventional:
        _check_rows(baseline, x, full.ndim)
    players, covers = covers_of(groups, x, full.ndim)

    def single(x: Tree, *args: Any) -> Tensor:
        return score(x, *args)

    # One example has no batch dimension to fold the samples into, whatever the score is marked as.
    over = stacked(score if full.ndim else single, *args)
    alike = (1,) * full.ndim

    def evaluate(coalitions: Tensor, baseline: Tree) -> Tensor:
        if coalitions.ndim == 2:
            coalitions = coalitions.reshape(len(coalitions), *alike, players)
        return over(hidden(x, baseline, covers, coalitions, full.ndim))

    rows, models = _of_rows(f, args) if full.ndim == 1 else (None, ())
    return Game(
        *(players, full, chunk_size, x, start, interventional, covers, evaluate, broken),
        rows=rows,
        models=models,
        like=x,
    )


def gathered(chunks: Iterable[_Values]) -> _Values:
    """Coalitions and their values, of all chunks in one tensor each.

    They are put together a few at a time: between the large tensors that a model frees, many small
    ones that are kept would hold the memory of all (measured: 60 times their own).
    """
    held: list[_Values] = []
    few: list[_Values] = []
    for chunk in chunks:
        few.append(chunk)
        if len(few) == _FEW:
            held.append(_joined(few))
            few.clear()
    return _joined([*held, *few])


def _joined(parts: list[_Values]) -> _Values:
    coalitions, values = zip(*parts, strict=True)
    return torch.cat(coalitions), torch.cat(values)


def _of_rows(
    f: Score, args: tuple[Any, ...]
) -> tuple[Callable[[Tree], Tensor] | None, tuple[nn.Module, ...]]:
    """A score that takes its examples in one batch, on copies of its models, and the models."""
    score = f.score if isinstance(f, Overridden) else f
    if not isinstance(score, Batched) or score.marked is None:
        return None, ()
    copy = score.marked

    def rows(x: Tree) -> Tensor:
        return score_of(copy(()), own=True)(x, *args)

    return rows, score.models


def _check_batch(full: Tensor, x: Tree) -> None:
    shapes = [tuple(part.shape) for part in leaves(x) if part is not None]
    batch = tuple(full.shape)
    if any(shape[: len(batch)] != batch for shape in shapes) or (
        len(shapes) == 1 and shapes[0] == batch and len(batch) > 1
    ):
        raise AttribValueError(
            f"f: the score must hold one number per example, got shape {batch} for x of shape "
            f"{' and '.join(map(str, shapes))}; the shape of the score must be the leading (batch) "
            "dimensions of every leaf of x. Close over a tensor that the examples share",
            code="score.shape",
        )


def _rows(baselines: Any, x: Tree) -> Tree:
    """A set of baselines, each row shaped to be broadcast to ``x``."""
    given = leaves_for(x, baselines)
    stacks = [b for b in given or [] if isinstance(b, Tensor)]
    counts = {b.shape[0] if b.ndim else 0 for b in stacks}
    parts, spec = flatten(x)
    wanted = [a for a in parts if a is not None]
    if given is None or len(counts) != 1 or 0 in counts or len(stacks) < len(wanted):
        raise AttribValueError(
            "baselines: with interventional=True the same number of at least one row in every "
            f"leaf, got {describe(baselines)}; expected a tree like x ({describe(x)}) with leaves "
            "(count, *feature)",
            code="baselines.shape",
        )
    first = [b[0] if isinstance(b, Tensor) else b for b in given]
    dtypes = leaves(check_baseline(unflatten(spec, first), x, "baselines", integers=True))

    def aligned(row: Any, stack: Any, leaf: Any) -> Any:
        if leaf is None:
            return None
        missing = leaf.ndim - row.ndim
        return stack.to(row.dtype).reshape(len(stack), *(1 for _ in range(missing)), *row.shape)

    return unflatten(spec, [aligned(*each) for each in zip(dtypes, given, parts, strict=True)])


def _check_rows(baselines: Any, x: Tree, batch_dims: int) -> None:
    """Refuse what is one example, whose entries would each be a row, with the dimension missing."""
    stacks = zip(leaves_for(x, baselines) or [], leaves(x), strict=True)
    if any(isinstance(b, Tensor) and b.ndim == 1 and a.ndim > batch_dims for b, a in stacks):
        raise AttribValueError(
            "baselines: with interventional=True rows of features, got single numbers "
            f"({describe(baselines)}); expected leaves (count, *feature), e.g. baseline[None] for "
            "one row",
            code="baselines.shape",
        )


def _with_rows(points: Points, baselines: Tree) -> Points:
    """Every coalition with every row of the baselines."""
    count = length(baselines)
    begun: list[Tensor] = []

    def take(start: int, stop: int) -> tuple[Tensor, Tree]:
        first, end = start // count, -(-stop // count)
        fresh = first + (start % count > 0)
        # A coalition that the chunk before has begun is not drawn again.
        parts = [*(begun if fresh > first else []), *([points.take(fresh, end)] * (fresh < end))]
        coalitions = torch.cat(parts)
        begun[:] = [coalitions[-1:]]
        pairs = torch.arange(start, stop, device=coalitions.device)
        rows = tree_map(lambda b: b[pairs % count], baselines)
        return coalitions[pairs // count - first], rows

    return Points(points.total * count, take)


def _averaged(
    pairs: Iterator[tuple[Tensor, Tensor]], count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The mean over the rows of the baselines, of every coalition whose rows are complete."""
    rest: list[tuple[Tensor, Tensor]] = []
    for pair in pairs:
        coalitions, values = (torch.cat(parts) for parts in zip(*rest, pair, strict=True))
        complete = len(values) // count
        whole = complete * count
        if complete:
            each = values[:whole].reshape(complete, count, *values.shape[1:])
            yield coalitions[:whole:count], torch.mean(each, 1)
        rest = [(coalitions[whole:], values[whole:])]
