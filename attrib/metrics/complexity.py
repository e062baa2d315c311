"""Complexity: on how few features an attribution rests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attrib._batched import inherit
from attrib._checks import check_callable, check_count, check_number
from attrib._map import ChunkSize, check_chunk_size
from attrib.games.game import game
from attrib.games.groups import Groups
from attrib.gradient import score_of
from attrib.metrics._calling import explaining, featurewise, given_or_made
from attrib.metrics._direction import named
from attrib.metrics._hiding import check_groups, inserted, player_values, ranks_of, scores_of
from attrib.metrics._statistics import wide
from attrib.types import Attribute, Measure, Score, Tree

__all__ = ["effective_complexity", "entropy", "sparseness"]


def sparseness(attribute: Attribute | None = None, *, batch_dims: int = 1) -> Measure:
    r"""Sparseness, higher is better: the Gini index of the sizes of the attributions,

    .. math:: G = 1 - 2 \sum_{k=1}^{d} \frac{a_{(k)}}{\lVert a \rVert_1}
              \Big(\frac{d - k + \frac12}{d}\Big), \qquad a_{(1)} \le \dots \le a_{(d)},

    with :math:`a_i = |\phi_i|`: 0 if all are equal, :math:`1 - 1/d` if all but one are zero.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        ``measure(attribution) -> (*batch,)``; with an attribution function ``measure(x, *args)``,
        called like that. NaN for an attribution of zeros.

    Raises:
        AttribError: If the attribution is not a tree of tensors with a batch.

    References:
        Chalasani, Chen, Chowdhury, Jha & Wu (2020), "Gini index",
        https://arxiv.org/abs/1810.06583; Hurley & Rickard (2009), table I,
        https://arxiv.org/abs/0811.4706

    Example:
        >>> import torch
        >>> sparseness()(torch.tensor([[1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 3.0, 0.0]]))
        tensor([0.0000, 0.7500])
    """

    def measure(attribution: Tree) -> Tensor:
        rows = featurewise(attribution, batch_dims)
        sizes = wide(rows).abs().sort(-1).values
        count = sizes.shape[-1]
        places = torch.arange(1, count + 1, dtype=sizes.dtype, device=sizes.device)
        weighted = (sizes * (2 * places - count - 1)).sum(-1)
        return (weighted / (count * sizes.sum(-1))).to(rows.dtype)

    check_count(batch_dims, "batch_dims", least=0)
    return named("sparseness", explaining(attribute, measure))


def entropy(attribute: Attribute | None = None, *, batch_dims: int = 1) -> Measure:
    r"""Complexity, lower is better: the entropy of the shares of the features,

    .. math:: -\sum_i p_i \ln p_i, \qquad p_i = \frac{|\phi_i|}{\sum_j |\phi_j|}.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        As for `sparseness`, in nats: from 0 to the logarithm of the number of features.

    Raises:
        AttribError: As for `sparseness`.

    References:
        Bhatt, Weller & Moura (2020), definition 4, https://arxiv.org/abs/2005.00631

    Example:
        >>> import torch
        >>> entropy()(torch.tensor([[1.0, -1.0], [0.0, 3.0]]))
        tensor([0.6931, 0.0000])
    """

    def measure(attribution: Tree) -> Tensor:
        rows = featurewise(attribution, batch_dims)
        sizes = wide(rows).abs()
        shares = sizes / sizes.sum(-1, keepdim=True)
        return (0 - torch.xlogy(shares, shares).sum(-1)).to(rows.dtype)

    check_count(batch_dims, "batch_dims", least=0)
    return named("entropy", explaining(attribute, measure))


def effective_complexity(
    f: Score,
    attribute: Attribute | None = None,
    *,
    tol: float,
    interventional: bool = False,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Effective complexity, lower is better: how many features it takes to know the score,

    .. math:: k^* = \min \Big\{ k : \mathbb{E}\,\big(f(x_{M_k}, X'_{\bar M_k}) - f(x)\big)^2 \le
              \epsilon \Big\},

    where :math:`M_k` are the :math:`k` features with the largest absolute attribution.

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        tol: The tolerance :math:`\epsilon`, in squared units of the score.
        interventional: The baseline is a set over whose rows the expectation is taken, as for
            `attrib.games.game`. An `attribute` that takes a single baseline must be bound to one.
        groups: What is one feature, as for `attrib.games.game`, but no windows.
        chunk_size: Inputs evaluated at once.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, a number of features in the dtype of the
        score; without an attribution function ``measure(attribution, x, baseline=0, *args)``.

    Raises:
        AttribError: If an argument is not what it should be, and as for `attrib.games.game`.

    References:
        Nguyen & Martinez (2020), "effective complexity", https://arxiv.org/abs/2007.07584

    Example:
        >>> import torch
        >>> measure = effective_complexity(lambda x: x.sum(-1), tol=1.0)
        >>> measure(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([1.0, 3.0, 0.0]))
        tensor(1.)
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_number(tol, "tol")
    groups, chunk_size = check_groups(groups), check_chunk_size(chunk_size)

    def squared(f: Score) -> Score:
        def loss(x: Tree, *args: Any) -> Tensor:
            full: Tensor = args[0]
            return (f(x, *args[1:]) - full).square()

        return loss

    loss = inherit(score_of(f), squared)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        task: Any = {"groups": groups, "chunk_size": chunk_size, "interventional": interventional}
        full = game(f, x, baseline, *args, **task).full
        v = game(loss, x, baseline, full, *args, **task)
        values = player_values(attribution, v)
        points = inserted(ranks_of(values.abs()), range(v.players + 1))
        losses = scores_of(v.over(points), values)
        enough = (losses <= tol).to(torch.int8).argmax(0).to(losses.dtype)
        return enough.where(~losses.isnan().any(0), losses[0] * torch.nan)

    return named("effective_complexity", given_or_made(attribute, measure))
