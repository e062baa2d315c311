"""What the score loses without the features that an attribution names, or keeps with them alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrib._checks import (
    check_baseline,
    check_callable,
    check_count,
    check_input,
    check_number,
    check_several,
    check_values,
)
from attrib._map import ChunkSize, check_chunk_size
from attrib._tree import differentiable, flatten, leaves, unflatten
from attrib.games.game import game
from attrib.games.groups import Groups
from attrib.gradient import score_of
from attrib.metrics._calling import (
    as_large,
    check_attribution,
    featurewise,
    given_or_made,
)
from attrib.metrics._direction import named
from attrib.metrics._hiding import (
    check_groups,
    inserted,
    player_values,
    ranks_of,
    removed,
    scores_of,
)
from attrib.metrics._statistics import ratio
from attrib.metrics.curves import curve
from attrib.types import Attribute, Measure, Score, Tree

__all__ = [
    "average_drop",
    "average_increase",
    "comprehensiveness",
    "monotonicity",
    "sufficiency",
]

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


def comprehensiveness(
    f: Score,
    attribute: Attribute | None = None,
    *,
    shares: Sequence[float] = SHARES,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Comprehensiveness, higher is better: the loss without the most relevant features,

    .. math:: \frac{1}{|Q|} \sum_{q \in Q} \big(f(x) - f(x_{\setminus q})\big).

    Args:
        f: Score; the paper's is a probability.
        attribute: Attribution function, or ``None`` to pass what one returned.
        shares: The parts :math:`Q` of the features that are hidden, rounded up to whole features.
        groups: What is one feature, as for `attrib.games.game`, but no windows.
        chunk_size: Inputs evaluated at once.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, in units of the score; without an
        attribution function ``measure(attribution, x, baseline=0, *args)``.

    Raises:
        AttribError: If an argument is not what it should be, and as for `attrib.games.game`.

    References:
        DeYoung et al. (2020), section 4, equation 1 and the mean over bins,
        https://arxiv.org/abs/1911.03429

    Example:
        >>> import torch
        >>> measure = comprehensiveness(lambda x: x.sum(-1), shares=[0.5])
        >>> measure(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        tensor(3.)
    """
    return named("comprehensiveness", _erased(f, attribute, shares, groups, chunk_size, removed))


def sufficiency(
    f: Score,
    attribute: Attribute | None = None,
    *,
    shares: Sequence[float] = SHARES,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Sufficiency, lower is better: the loss with the most relevant features alone,

    .. math:: \frac{1}{|Q|} \sum_{q \in Q} \big(f(x) - f(x_q)\big).

    Args:
        f: Score; the paper's is a probability.
        attribute: Attribution function, or ``None`` to pass what one returned.
        shares: The parts :math:`Q` of the features that are shown, rounded up to whole features.
        groups: As for `comprehensiveness`.
        chunk_size: Inputs evaluated at once.

    Returns:
        As for `comprehensiveness`.

    Raises:
        AttribError: As for `comprehensiveness`.

    References:
        DeYoung et al. (2020), section 4, equation 2, https://arxiv.org/abs/1911.03429

    Example:
        >>> import torch
        >>> measure = sufficiency(lambda x: x.sum(-1), shares=[0.5])
        >>> measure(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        tensor(1.)
    """
    return named("sufficiency", _erased(f, attribute, shares, groups, chunk_size, inserted))


def monotonicity(
    f: Score,
    attribute: Attribute | None = None,
    *,
    steps: int | None = None,
    groups: Groups = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Monotonicity, higher is better: the share of steps at which the score does not fall while
    features are shown in increasing order of their attribution; one if it never falls.

    Args:
        f: Score; the paper's is the probability of the predicted class.
        attribute: Attribution function, or ``None`` to pass what one returned.
        steps: As for `attrib.metrics.curve`.
        groups: As for `comprehensiveness`.
        chunk_size: Steps evaluated at once.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, from 0 to 1; without an attribution function
        ``measure(attribution, x, baseline=0, *args)``. The metric of the papers is ``== 1``.

    Raises:
        AttribError: As for `comprehensiveness`.

    References:
        Luss et al. (2019), https://arxiv.org/abs/1905.12698; Arya et al. (2019),
        https://arxiv.org/abs/1909.03012

    Example:
        >>> import torch
        >>> measure = monotonicity(lambda x: x.prod(-1))
        >>> measure(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0]), 1.0)
        tensor(0.5000)
    """
    climb = curve(f, order="least", insert=True, steps=steps, groups=groups, chunk_size=chunk_size)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        rises = climb(attribution, x, baseline, *args).scores.diff(dim=0)
        return torch.where(rises.isnan(), rises, (rises >= 0).to(rises.dtype)).mean(0)

    return named("monotonicity", given_or_made(attribute, measure))


def average_drop(f: Score, attribute: Attribute | None = None) -> Measure:
    r"""Average drop, lower is better: the share of the score that is lost behind the explanation,

    .. math:: \frac{\max(0, f(x) - f(x \odot E + b \odot (1 - E)))}{f(x)},

    where the map :math:`E` is the attribution of an example, scaled from 0 to 1.

    Args:
        f: Score above zero, a probability.
        attribute: Attribution function, or ``None`` to pass what one returned.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, without a unit; without an attribution
        function ``measure(attribution, x, baseline=0, *args)``. The number of the paper is the mean
        over a data set in percent. The attribution may broadcast over features of ``x``.

    Raises:
        AttribError: As for `attrib.metrics.completeness`.

    References:
        Chattopadhay, Sarkar, Howlader & Balasubramanian (2018), section 4.1, "average drop %",
        https://arxiv.org/abs/1710.11063

    Example:
        >>> import torch
        >>> average_drop(lambda x: x.sum(-1))(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
        tensor(0.2500)
    """
    return named(
        "average_drop",
        _behind_map(f, attribute, lambda full, seen: ratio((full - seen).clamp_min(0), full)),
    )


def average_increase(f: Score, attribute: Attribute | None = None) -> Measure:
    r"""Increase in confidence, higher is better: whether the score rises behind the explanation,
    :math:`[f(x) < f(x \odot E + b \odot (1 - E))]`.

    Args:
        f: Score.
        attribute: Attribution function, or ``None`` to pass what one returned.

    Returns:
        ``measure(x, baseline=0, *args) -> (*batch,)``, zero or one; without an attribution function
        ``measure(attribution, x, baseline=0, *args)``. The map :math:`E` is that of `average_drop`.

    Raises:
        AttribError: As for `average_drop`.

    References:
        Chattopadhay, Sarkar, Howlader & Balasubramanian (2018), section 4.1, "% increase in
        confidence", https://arxiv.org/abs/1710.11063

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 3.0])
        >>> average_increase(lambda x: -x[..., 0])(x, x)
        tensor(1.)
    """

    def rising(full: Tensor, seen: Tensor) -> Tensor:
        rise = seen - full
        return torch.where(rise.isnan(), rise, (rise > 0).to(rise.dtype))

    return named("average_increase", _behind_map(f, attribute, rising))


def _erased(
    f: Score,
    attribute: Attribute | None,
    shares: Sequence[float],
    groups: Groups,
    chunk_size: ChunkSize,
    points: Callable[..., Any],
) -> Measure:
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    parts = [
        check_number(share, "shares", most=1.0, exclusive=True)
        for share in check_several(shares, "shares")
    ]
    check_count(len(parts), "shares")
    groups, chunk_size = check_groups(groups), check_chunk_size(chunk_size)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        v = game(f, x, baseline, *args, groups=groups, chunk_size=chunk_size)
        values = player_values(attribution, v)
        # A share such as 0.1 of 30 features is 3 of them, whatever the rounding of 0.1.
        counts = [math.ceil(part * v.players - 1e-9) for part in parts]
        return v.full - scores_of(v.over(points(ranks_of(values), counts)), values).mean(0)

    return given_or_made(attribute, measure)


def _behind_map(
    f: Score, attribute: Attribute | None, compared: Callable[[Tensor, Tensor], Tensor]
) -> Measure:
    score = score_of(f)

    def measure(attribution: Tree, x: Tree, baseline: Any = 0, *args: Any) -> Tensor:
        check_input(x, gradients=False)
        starts = leaves(check_baseline(baseline, x))
        full, known = check_values(score(x, *args))
        parts = check_attribution(attribution, x, full.shape)
        rows = featurewise(attribution, full.ndim)
        low, high = rows.amin(-1), rows.amax(-1)

        def shown(part: Any, leaf: Any, start: Any) -> Any:
            if part is None or not differentiable(leaf):
                return leaf
            down, up = (
                end.reshape((*full.shape, *(1 for _ in part.shape[full.ndim :])))
                for end in (low, high)
            )
            seen = ratio(as_large(part, leaf) - down, up - down)
            return (start + seen * (leaf - start)).to(leaf.dtype)

        spec = flatten(x)[1]
        each = zip(parts, leaves(x), starts, strict=True)
        seen = score(unflatten(spec, [shown(*e) for e in each]), *args)
        return compared(full, check_values(seen, known=known)[0])

    return given_or_made(attribute, measure)
