"""Deletion and insertion: the score while features go in the order of their attribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from attrib._checks import check_callable, check_choice, check_count
from attrib._map import ChunkSize, check_chunk_size
from attrib.games.game import game
from attrib.games.groups import Groups
from attrib.metrics._calling import given_or_made
from attrib.metrics._direction import named
from attrib.metrics._hiding import (
    check_groups,
    inserted,
    player_values,
    ranks_of,
    removed,
    scores_of,
)
from attrib.types import Attribute, Measure, Score, Tree

__all__ = ["Curve", "aopc", "curve", "deletion", "deletion_gap", "insertion"]


class Curve(NamedTuple):
    """The score while features are hidden or shown.

    Attributes:
        shares: The part of the features that is hidden or shown, ``(steps + 1,)`` from 0 to 1.
        scores: ``(steps + 1, *batch)``.
    """

    shares: Tensor
    scores: Tensor

    @property
    def area(self) -> Tensor:
        """The area under the curve by the trapezoidal rule, ``(*batch,)``."""
        return torch.trapezoid(self.scores, self.shares, dim=0)


def curve(
    f: Score,
    attribute: Attribute | None = None,
    *,
    order: Literal["most", "least"] = "most",
    insert: bool = False,
    steps: int | None = None,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Curve]:
    """The score while features are hidden one after another, or shown.

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        order: Which features go first: the ``"most"`` relevant (MoRF) or the ``"least"`` (LeRF).
            Of features that are equally relevant the first one goes first.
        insert: Begin with the baseline and show features, instead of beginning with ``x`` and
            hiding them.
        steps: How many steps of equal size, up to the number of features. ``None``: a step for each
            feature.
        groups: What is one feature, as for `attrib.games.game`, but no windows.
        chunk_size: Steps evaluated at once.

    Returns:
        ``call(x, baseline=0, *args) -> Curve``; without an attribution function
        ``call(attribution, x, baseline=0, *args)``. The attribution of a group is the sum over its
        entries; numbers of groups themselves, ``(*batch, groups)``, may be passed instead.

    Raises:
        AttribError: If an argument is not what it should be, and as for `attrib.games.game`.

    References:
        Samek, Binder, Montavon, Lapuschkin & Mueller (2017), section III,
        https://arxiv.org/abs/1509.06321; Petsiuk, Das & Saenko (2018),
        https://arxiv.org/abs/1806.07421

    Example:
        >>> import torch
        >>> f = lambda x: x.sum(-1)
        >>> curve(f)(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        Curve(shares=tensor([0.0000, 0.5000, 1.0000]), scores=tensor([4., 1., 0.]))
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    check_choice(order, "order", ("most", "least"))
    if steps is not None:
        check_count(steps, "steps")
    groups, chunk_size = check_groups(groups), check_chunk_size(chunk_size)

    def call(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Curve:
        v = game(f, x, baseline, *args, groups=groups, chunk_size=chunk_size)
        values = player_values(attribution, v)
        ranks = ranks_of(values, largest_first=order == "most")
        parts = v.players if steps is None else min(steps, v.players)
        counts = [round(step * v.players / parts) for step in range(parts + 1)]
        scores = scores_of(v.over((inserted if insert else removed)(ranks, counts)), values)
        shares = torch.tensor(counts, dtype=scores.dtype, device=scores.device) / v.players
        return Curve(shares, scores)

    found: Any = given_or_made(attribute, call)
    return found


def deletion(
    f: Score,
    attribute: Attribute | None = None,
    *,
    steps: int | None = None,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Deletion, lower is better: the area under the score while the most relevant go first,

    .. math:: \int_0^1 f(x_{\setminus q}) \, dq,

    where :math:`x_{\setminus q}` is ``x`` without the share :math:`q` of its most relevant
    features.

    Args:
        f: Score, usually a probability.
        attribute: Attribution function, or ``None`` to pass what one returned.
        steps: As for `curve`.
        groups: As for `curve`.
        chunk_size: Steps evaluated at once.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, in units of the score; without an
        attribution function ``measure(attribution, x, baseline=0, *args)``.

    Raises:
        AttribError: As for `curve`.

    References:
        Petsiuk, Das & Saenko (2018), "deletion", https://arxiv.org/abs/1806.07421

    Example:
        >>> import torch
        >>> deletion(lambda x: x.sum(-1))(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        tensor(1.5000)
    """
    call = curve(f, steps=steps, groups=groups, chunk_size=chunk_size)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        return call(attribution, x, baseline, *args).area

    return named("deletion", given_or_made(attribute, measure))


def insertion(
    f: Score,
    attribute: Attribute | None = None,
    *,
    steps: int | None = None,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Insertion, higher is better: the area under the score while the most relevant come first,

    .. math:: \int_0^1 f(x_q) \, dq,

    where :math:`x_q` is the baseline with the share :math:`q` of the most relevant features of
    ``x``.

    Args:
        f: Score, usually a probability.
        attribute: Attribution function, or ``None`` to pass what one returned.
        steps: As for `curve`.
        groups: As for `curve`.
        chunk_size: Steps evaluated at once.

    Returns:
        As for `deletion`.

    Raises:
        AttribError: As for `curve`.

    References:
        Petsiuk, Das & Saenko (2018), "insertion", https://arxiv.org/abs/1806.07421

    Example:
        >>> import torch
        >>> insertion(lambda x: x.sum(-1))(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        tensor(2.5000)
    """
    call = curve(f, insert=True, steps=steps, groups=groups, chunk_size=chunk_size)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        return call(attribution, x, baseline, *args).area

    return named("insertion", given_or_made(attribute, measure))


def aopc(
    f: Score,
    attribute: Attribute | None = None,
    *,
    steps: int | None = None,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Area over the perturbation curve, higher is better: the mean loss as the most relevant go,

    .. math:: \mathrm{AOPC} = \frac{1}{L + 1} \sum_{k=0}^{L} \big(f(x) - f(x^{(k)})\big),

    where :math:`x^{(k)}` is ``x`` after :math:`k` of :math:`L` steps.

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        steps: As for `curve`.
        groups: As for `curve`.
        chunk_size: Steps evaluated at once.

    Returns:
        As for `deletion`.

    Raises:
        AttribError: As for `curve`.

    References:
        Samek, Binder, Montavon, Lapuschkin & Mueller (2017), equation 12,
        https://arxiv.org/abs/1509.06321

    Example:
        >>> import torch
        >>> aopc(lambda x: x.sum(-1))(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        tensor(2.3333)
    """
    call = curve(f, steps=steps, groups=groups, chunk_size=chunk_size)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        scores = call(attribution, x, baseline, *args).scores
        return (scores[0] - scores).mean(0)

    return named("aopc", given_or_made(attribute, measure))


def deletion_gap(
    f: Score,
    attribute: Attribute | None = None,
    *,
    steps: int | None = None,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Degradation score, higher is better: the area between the curves of the two orders,

    .. math:: \int_0^1 f(x_{\setminus q}^{\mathrm{LeRF}}) -
              f(x_{\setminus q}^{\mathrm{MoRF}}) \, dq.

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.
        steps: As for `curve`.
        groups: As for `curve`.
        chunk_size: Steps evaluated at once.

    Returns:
        As for `deletion`.

    Raises:
        AttribError: As for `curve`.

    References:
        Schulz, Sixt, Tombari & Landgraf (2020), "degradation", https://arxiv.org/abs/2001.00396

    Example:
        >>> import torch
        >>> deletion_gap(lambda x: x.sum(-1))(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        tensor(1.)
    """
    task: Any = {"steps": steps, "groups": groups, "chunk_size": chunk_size}
    least, most = (curve(f, order=order, **task) for order in ("least", "most"))

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        data = (attribution, x, baseline, *args)
        return least(*data).area - most(*data).area

    return named("deletion_gap", given_or_made(attribute, measure))
