"""Features that are exchanged between the examples of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attrib._checks import check_callable
from attrib._map import ChunkSize, Points, check_chunk_size, draws, map_chunks
from attrib._tree import tree_map
from attrib.errors import AttribValueError
from attrib.games._folding import check_stopping, folded
from attrib.games._players import Groups, partition
from attrib.games.ablation import all_but_one
from attrib.games.game import Game, game
from attrib.perturb import Stream, fork
from attrib.reducers import mean
from attrib.types import Attribute, Reducer, Score, Tree

__all__ = ["feature_permutation"]


def feature_permutation(
    f: Score,
    *,
    groups: Groups = None,
    samples: int = 1,
    generator: torch.Generator | None = None,
    reduce: Reducer = mean,
    tol: float | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""What the score loses when a feature comes from another example of the batch,

    .. math:: \phi_i(x^{(n)}) = \mathbb{E}_\pi \big[ f(x^{(n)})
              - f(x^{(n)}_{N \setminus \{i\}}, x^{(\pi(n))}_i) \big].

    Every feature has its own random order :math:`\pi` of the examples, in which at least two change
    places. The mean over the examples is the permutation importance of the feature.

    Args:
        f: Score.
        groups: What is one feature, as for `attrib.games.game`; every entry by default.
        samples: Orders drawn for each feature; with `tol`, at most.
        generator: Source of randomness. Without one, the orders come from a copy of the global
            generator: the same at every call until something else advances it.
        reduce: How samples are folded: `attrib.estimate` adds standard errors.
        tol: As for `attrib.shapley_sampling`.
        chunk_size: Features exchanged at once. Does not change the orders.

    Returns:
        ``attribute(x, *args)``, a tree like ``x``, in units of the score.

    Raises:
        AttribValueError: If there are no two examples to exchange features between.
        AttribError: As for `attrib.games.game`.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite.

    References:
        Breiman (2001), section 10, https://doi.org/10.1023/A:1010933404324; Fisher, Rudin &
        Dominici (2019), https://arxiv.org/abs/1801.01489

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 5.0], [2.0, 7.0]])
        >>> feature_permutation(lambda x: x @ torch.tensor([1.0, 10.0]))(x)
        tensor([[ -1., -20.],
                [  1.,  20.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_stopping(samples, reduce, tol)
    chunk_size = check_chunk_size(chunk_size)
    groups = partition(groups)
    Stream(generator)

    def attribute(x: Tree, *args: Any) -> Tree:
        v = game(f, x, 0, *args, groups=groups, chunk_size=chunk_size)
        rows = _check_examples(v)
        stream = Stream(fork(generator)).on(v.device)

        def losses(drawn: Tensor) -> Tensor:
            pairs = _exchanged(v, drawn[0])
            values = torch.cat([values for _, values in v.over_pairs(pairs)])
            return (values[0] - values[1:]).movedim(0, -1)[None]

        def losses_of(start: int, stop: int) -> Iterator[Any]:
            orders = draws(lambda: _orders(v.players, rows, stream, v.device), stop - start)
            return map_chunks(losses, orders, chunk_size=1, like=x)

        found = folded(v.full, losses_of, samples, reduce, tol)
        return tree_map(lambda a: v.spread(a) if isinstance(a, Tensor) else a, found)

    return attribute


def _check_examples(v: Game) -> int:
    rows = v.full.numel()
    if v.full.ndim == 0 or rows == 1:
        raise AttribValueError(
            "x: nothing to exchange features with, got one example; pass a batch of at least two, "
            "such as a part of the training data",
            code="x.batch",
        )
    return rows


def _orders(
    players: int, rows: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """A random order of the rows for each player; one that changes nothing becomes a rotation."""
    keys = torch.rand(players, rows, generator=generator, dtype=torch.float64, device=device)
    shifts = torch.randint(1, max(rows, 2), (players, 1), generator=generator, device=device)
    orders, places = keys.argsort(-1), torch.arange(rows, device=device)
    same = (orders == places).all(-1, keepdim=True)
    return torch.where(same, (places + shifts) % max(rows, 1), orders)


def _exchanged(v: Game, orders: Tensor) -> Points:
    """Nobody exchanged, then each player alone: what is not exchanged is kept."""
    kept, dims = all_but_one(v.players, v.device), v.full.ndim

    def take(start: int, stop: int) -> tuple[Tensor, Tree]:
        which = orders[torch.arange(start - 1, stop - 1, device=v.device).clamp_min(0)]
        other = tree_map(lambda a: a.flatten(0, dims - 1)[which].unflatten(1, v.batch), v.x)
        return kept.take(start, stop), other

    return Points(kept.total, take)
