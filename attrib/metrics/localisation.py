"""Localisation: does an attribution lie where somebody has marked what matters?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrib._checks import check_count, check_number
from attrib.errors import AttribTypeError, AttribValueError
from attrib.metrics._calling import check_tensors, explaining
from attrib.metrics._direction import named
from attrib.metrics._hiding import ranks_of
from attrib.metrics._statistics import wide
from attrib.types import Attribute, Measure

__all__ = ["iou", "pointing_game", "relevance_mass", "relevance_rank", "top_k"]


def pointing_game(
    attribute: Attribute | None = None, *, tolerance: float = 0.0, batch_dims: int = 1
) -> Measure:
    r"""Pointing game, higher is better: whether the largest attribution lies in the mask.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        tolerance: How far from the mask still counts, in entries of the mask; the paper allows 15
            pixels.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        ``measure(attribution, mask) -> (*batch,)``, zero or one; with an attribution function
        ``measure(x, mask, *args)``. The attribution is one tensor. The mask is true where it should
        lie, ``(*batch, *space)``; the attribution is summed over the feature dimensions in front
        that the mask does not have (channels), and over those in which it has size one.

    Raises:
        AttribTypeError: If the mask is not boolean, or the attribution not a tensor.
        AttribValueError: If the mask does not fit the attribution.

    References:
        Zhang, Bargal, Lin, Brandt, Shen & Sclaroff (2018), "pointing game",
        https://arxiv.org/abs/1608.00507

    Example:
        >>> import torch
        >>> pointing_game()(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([[True, False, False]]))
        tensor([0.])
    """
    check_number(tolerance, "tolerance")

    def hit(values: Tensor, inside: Tensor, space: torch.Size) -> Tensor:
        best = values.argmax(-1, keepdim=True)
        if tolerance == 0:
            return inside.gather(-1, best).squeeze(-1)
        axes = [torch.arange(size, device=values.device) for size in space]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        far = (places - places[best]).square().sum(-1)
        return (inside & (far <= tolerance**2)).any(-1)

    return named("pointing_game", _located(attribute, batch_dims, hit))


def relevance_mass(attribute: Attribute | None = None, *, batch_dims: int = 1) -> Measure:
    r"""Relevance mass accuracy, higher is better: the share of the attribution in the mask,

    .. math:: \frac{\sum_{i \in M} \phi_i^+}{\sum_i \phi_i^+}.

    Only positive attributions count; pass absolute values for all to count.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        As for `pointing_game`, from 0 to 1; NaN if nothing is positive.

    Raises:
        AttribError: As for `pointing_game`.

    References:
        Arras, Osman & Samek (2022), section 3.5, equations 1 and 2, "relevance mass accuracy",
        https://arxiv.org/abs/2003.07258

    Example:
        >>> import torch
        >>> relevance_mass()(torch.tensor([[1.0, 3.0, -2.0]]), torch.tensor([[True, False, False]]))
        tensor([0.2500])
    """

    def mass(values: Tensor, inside: Tensor, space: torch.Size) -> Tensor:
        positive = values.clamp_min(0)
        return (positive * inside).sum(-1) / positive.sum(-1)

    return named("relevance_mass", _located(attribute, batch_dims, mass))


def relevance_rank(attribute: Attribute | None = None, *, batch_dims: int = 1) -> Measure:
    r"""Relevance rank accuracy, higher is better: the share of the mask among the largest
    attributions, :math:`|P_{|M|} \cap M| / |M|`, with as many of them as the mask has entries.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        As for `pointing_game`, from 0 to 1; NaN for an empty mask.

    Raises:
        AttribError: As for `pointing_game`.

    References:
        Arras, Osman & Samek (2022), section 3.5, equations 3 and 4, "relevance rank accuracy",
        https://arxiv.org/abs/2003.07258

    Example:
        >>> import torch
        >>> relevance_rank()(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, True, False]]))
        tensor([0.5000])
    """

    def rank(values: Tensor, inside: Tensor, space: torch.Size) -> Tensor:
        size = inside.sum(-1)
        found = inside & (ranks_of(values) < size.unsqueeze(-1))
        return _share(found, size, values)

    return named("relevance_rank", _located(attribute, batch_dims, rank))


def top_k(attribute: Attribute | None = None, *, k: int, batch_dims: int = 1) -> Measure:
    r"""Top-k intersection, higher is better: the share of the k largest attributions that lies in
    the mask, :math:`|P_k \cap M| / k`.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        k: How many; at most the number of entries.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        As for `pointing_game`, from 0 to 1.

    Raises:
        AttribError: As for `pointing_game`.

    References:
        Theiner, Mueller-Budack & Ewerth (2022), "top-k intersection",
        https://arxiv.org/abs/2104.14995

    Example:
        >>> import torch
        >>> top_k(k=1)(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, True, False]]))
        tensor([1.])
    """
    count = check_count(k, "k")

    def among(values: Tensor, inside: Tensor, space: torch.Size) -> Tensor:
        if count > values.shape[-1]:
            raise AttribValueError(
                f"k: too large, got {count} for {values.shape[-1]} entries", code="k.range"
            )
        return _share(inside & (ranks_of(values) < count), count, values)

    return named("top_k", _located(attribute, batch_dims, among))


def iou(
    attribute: Attribute | None = None, *, threshold: float = 0.5, batch_dims: int = 1
) -> Measure:
    r"""Intersection over union, higher is better, of the mask and the large attributions,
    :math:`|T \cap M| / |T \cup M|` with :math:`T = \{i : \phi_i \ge \theta \max_j \phi_j > 0\}`.

    Args:
        attribute: Attribution function, or ``None`` to pass what one returned.
        threshold: The share :math:`\theta` of the largest attribution.
        batch_dims: How many batch dimensions there are: 0 for one example.

    Returns:
        As for `pointing_game`, from 0 to 1.

    Raises:
        AttribError: As for `pointing_game`.

    References:
        Zhou, Khosla, Lapedriza, Oliva & Torralba (2016), section 3, for regions above a share of
        the maximum, https://arxiv.org/abs/1512.04150

    Example:
        >>> import torch
        >>> iou()(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, True, False]]))
        tensor([0.3333])
    """
    share = check_number(threshold, "threshold", most=1.0)

    def overlap(values: Tensor, inside: Tensor, space: torch.Size) -> Tensor:
        large = (values >= share * values.amax(-1, keepdim=True)) & (values > 0)
        return _share(large & inside, (large | inside).sum(-1), values)

    return named("iou", _located(attribute, batch_dims, overlap))


def _located(
    attribute: Attribute | None,
    batch_dims: int,
    compared: Callable[[Tensor, Tensor, torch.Size], Tensor],
) -> Measure:
    """A measure of the entries ``(*batch, entries)`` of an attribution and of a mask."""
    check_count(batch_dims, "batch_dims", least=0)

    def measure(attribution: Any, mask: Any) -> Tensor:
        values, inside = _aligned(attribution, mask, batch_dims)
        space = values.shape[batch_dims:]
        found = compared(wide(values).flatten(batch_dims), inside.flatten(batch_dims), space).to(
            values.dtype
        )
        return found.where(~values.flatten(batch_dims).isnan().any(-1), torch.nan)

    return explaining(attribute, measure, data=1)


def _share(found: Tensor, whole: Tensor | int, values: Tensor) -> Tensor:
    """The number of entries that are true by another number, in the precision of the attribution,
    not in that which torch takes for a quotient of integers."""
    return found.sum(-1).to(values.dtype) / whole


def _aligned(attribution: Any, mask: Any, batch_dims: int) -> tuple[Tensor, Tensor]:
    """The attribution, summed over what the mask does not tell apart, and the mask."""
    parts = check_tensors(attribution)
    if len(parts) != 1:
        raise AttribTypeError(
            f"attribution: must be one tensor, got a tree of {len(parts)}; measure the leaf that "
            "the mask belongs to",
            code="attribution.type",
        )
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
        raise AttribTypeError(
            f"mask: must be a boolean tensor, got {kind}; true where the attribution should lie",
            code="mask.type",
        )
    values: Tensor = parts[0]
    batch = values.shape[:batch_dims]
    missing = values.ndim - mask.ndim
    space = mask.shape[batch_dims:]
    own = values.shape[batch_dims + max(missing, 0) :]
    fits = (
        missing >= 0
        and mask.shape[:batch_dims] == batch
        and len(space) > 0
        and all(size in (1, whole) for size, whole in zip(space, own, strict=True))
    )
    if not fits:
        raise AttribValueError(
            f"mask: does not fit the attribution, got shape {tuple(mask.shape)} for "
            f"{tuple(values.shape)}; expected {tuple(batch)} and the last feature dimensions",
            code="mask.shape",
        )
    shared = [batch_dims + i for i in range(missing)] + [
        batch_dims + missing + i
        for i, (size, whole) in enumerate(zip(space, own, strict=True))
        if size == 1 and whole != 1
    ]
    summed = values.sum(shared, keepdim=True) if shared else values
    return summed.reshape(mask.shape), mask
