"""Robustness: how far an attribution moves when its input moves a little."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from attrib._map import ChunkSize
from attrib.metrics._direction import named
from attrib.metrics._moving import Look, Seen, compared, differences, floating
from attrib.metrics._statistics import Norm, check_norm, norm_of
from attrib.reducers import maximum, mean
from attrib.types import Attribute, Measure, Perturb, Reducer

__all__ = ["average_sensitivity", "local_lipschitz", "max_sensitivity"]


def max_sensitivity(
    attribute: Attribute,
    perturb: Perturb,
    *,
    samples: int = 10,
    norm: Norm = 2,
    relative: bool = True,
    batch_dims: int = 1,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Max-sensitivity, lower is better: how far the attribution moves at most,

    .. math:: \mathrm{SENS_{MAX}} = \max_{x' \sim \mathrm{perturb}(x)}
              \frac{\lVert \phi(x') - \phi(x) \rVert}{\lVert \phi(x) \rVert}.

    Args:
        attribute: Attribution function. Only ``x`` is perturbed.
        perturb: ``x -> x'``, a fresh draw at every call; that of the paper is
            ``attrib.perturb.uniform(radius)``.
        samples: Number of draws; the maximum over the neighbourhood is estimated from below.
        norm: The p of the p-norm over all features of all leaves, infinity included, or a function
            ``(..., features) -> (...)``.
        relative: Divide by the norm of the attribution (by one, where that is zero); the
            definition of the paper does not, its experiments do.
        batch_dims: How many batch dimensions ``x`` has: 0 for one example.
        chunk_size: Draws evaluated at once. Does not change the draws.

    Returns:
        ``measure(x, *args) -> (*batch,)``, called like `attribute`.

    Raises:
        AttribError: If an argument is not what it should be; the errors of `attribute` pass
            through.

    References:
        Yeh, Hsieh, Suggala, Inouye & Ravikumar (2019), definition 3.1,
        https://arxiv.org/abs/1901.09392; Kokhlikyan et al. (2020), equation 2,
        https://arxiv.org/abs/2009.07896

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x @ torch.tensor([1.0, 2.0]))
        >>> max_sensitivity(saliency, attrib.perturb.uniform(0.1))(torch.zeros(1, 2))
        tensor([0.])
    """
    return named(
        "max_sensitivity",
        _sensitivity(attribute, perturb, samples, norm, relative, batch_dims, chunk_size, maximum),
    )


def average_sensitivity(
    attribute: Attribute,
    perturb: Perturb,
    *,
    samples: int = 10,
    norm: Norm = 2,
    relative: bool = True,
    batch_dims: int = 1,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Average sensitivity, lower is better: how far the attribution moves on average,

    .. math:: \mathbb{E}_{x' \sim \mathrm{perturb}(x)}
              \frac{\lVert \phi(x') - \phi(x) \rVert}{\lVert \phi(x) \rVert}.

    Args:
        attribute: As for `max_sensitivity`.
        perturb: As for `max_sensitivity`.
        samples: Number of draws.
        norm: As for `max_sensitivity`.
        relative: As for `max_sensitivity`.
        batch_dims: As for `max_sensitivity`.
        chunk_size: Draws evaluated at once.

    Returns:
        As for `max_sensitivity`.

    Raises:
        AttribError: As for `max_sensitivity`.

    References:
        Bhatt, Weller & Moura (2020), definition 2, https://arxiv.org/abs/2005.00631

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x @ torch.tensor([1.0, 2.0]))
        >>> average_sensitivity(saliency, attrib.perturb.uniform(0.1))(torch.zeros(1, 2))
        tensor([0.])
    """
    return named(
        "average_sensitivity",
        _sensitivity(attribute, perturb, samples, norm, relative, batch_dims, chunk_size, mean),
    )


def local_lipschitz(
    attribute: Attribute,
    perturb: Perturb,
    *,
    samples: int = 10,
    norm: Norm = 2,
    batch_dims: int = 1,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Local Lipschitz estimate, lower is better: the steepest change of the attribution,

    .. math:: \max_{x' \sim \mathrm{perturb}(x)}
              \frac{\lVert \phi(x') - \phi(x) \rVert}{\lVert x' - x \rVert}.

    Args:
        attribute: As for `max_sensitivity`.
        perturb: As for `max_sensitivity`; a draw that does not move ``x`` counts as zero.
        samples: Number of draws.
        norm: As for `max_sensitivity`, for attributions and inputs.
        batch_dims: As for `max_sensitivity`.
        chunk_size: Draws evaluated at once.

    Returns:
        ``measure(x, *args) -> (*batch,)``, in units of the attribution per unit of ``x``.

    Raises:
        AttribError: As for `max_sensitivity`.

    References:
        Alvarez-Melis & Jaakkola (2018), equation 2, https://arxiv.org/abs/1806.08049

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x.square().sum(-1))
        >>> local_lipschitz(saliency, lambda x: x + 0.5)(torch.ones(1, 4))
        tensor([2.])
    """
    unit = check_norm(norm)

    def slope(here: Seen, dims: int) -> Callable[[Seen], Tensor]:
        def at(there: Seen) -> Tensor:
            moved = norm_of(differences(there.beside, here.beside), dims + 1, unit)
            far = norm_of(differences(there.found, here.found), dims + 1, unit)
            return torch.where(moved == 0, 0, far / torch.where(moved == 0, 1, moved))

        return at

    inputs: Look = lambda args: partial(floating, name="x")
    return named(
        "local_lipschitz",
        compared(attribute, perturb, inputs, slope, samples, batch_dims, chunk_size, maximum),
    )


def _sensitivity(
    attribute: Attribute,
    perturb: Perturb,
    samples: int,
    norm: Norm,
    relative: bool,
    batch_dims: int,
    chunk_size: ChunkSize,
    reduce: Reducer,
) -> Measure:
    unit = check_norm(norm)

    def distance(here: Seen, dims: int) -> Callable[[Seen], Tensor]:
        size = norm_of(here.found, dims, unit) if relative else None
        whole = None if size is None else torch.where(size == 0, 1, size)

        def at(there: Seen) -> Tensor:
            far = norm_of(differences(there.found, here.found), dims + 1, unit)
            return far if whole is None else far / whole

        return at

    nothing: Look = lambda args: lambda points: None
    return compared(attribute, perturb, nothing, distance, samples, batch_dims, chunk_size, reduce)
