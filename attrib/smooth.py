"""Attributions averaged over perturbed inputs, or over baselines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from attrib import perturb as perturbations
from attrib._batched import baseline_of, called_like, stacked
from attrib._checks import check_callable, check_count, check_input, describe
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks
from attrib._tree import differentiable, flatten, leaves_for, tree_map, unflatten
from attrib.errors import AttribValueError
from attrib.reducers import mean, second_moment, variance
from attrib.types import Attribute, Perturb, Reducer, Tree

__all__ = ["expected", "smooth", "smooth_grad", "smooth_grad_sq", "var_grad"]


def smooth(
    attribute: Attribute,
    perturb: Perturb,
    *,
    samples: int = 25,
    reduce: Reducer = mean,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Fold an attribution over random perturbations of its input,

    .. math:: \bar A(x) = \mathbb{E}_{x' \sim \mathrm{perturb}(x)}\, A(x').

    Args:
        attribute: Any attribution. Only ``x`` is perturbed.
        perturb: One random draw per call, e.g. `attrib.perturb.gaussian`.
        samples: Number of draws.
        reduce: How to fold them; `attrib.estimate` adds standard errors.
        chunk_size: Draws evaluated at once. Does not change the draws. An attribution that draws
            random numbers of its own is evaluated one draw at a time.

    Returns:
        ``attribute(x, *args)``, what `reduce` makes of trees like that of `attribute`.

    Raises:
        AttribError: If an argument is not what it should be; the errors of `attribute` pass
            through.

    References:
        Smilkov, Thorat, Kim, Viegas & Wattenberg (2017), https://arxiv.org/abs/1706.03825

    Example:
        >>> import torch, attrib
        >>> noise = attrib.perturb.gaussian(0.1, generator=torch.Generator().manual_seed(0))
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> smooth(attrib.saliency(f), noise)(torch.zeros(1, 2))
        tensor([[1., 2.]])
    """
    check_callable(perturb, "perturb", "pass a function x -> x', e.g. attrib.perturb.gaussian(0.1)")
    return _smooth(attribute, lambda: perturb, samples, reduce, chunk_size)


def smooth_grad(
    attribute: Attribute,
    std: Any,
    *,
    samples: int = 25,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Mean attribution under normal noise, :math:`\mathbb{E}_\varepsilon\, A(x + \varepsilon)`.

    Args:
        attribute: Any attribution; the paper's is `attrib.saliency`.
        std: Standard deviation of the noise in units of ``x``: a number, or a tree of numbers like
            ``x``.
        samples: Number of draws.
        generator: Source of randomness. Without one, the draws come from a copy of the global
            generator: the same at every call until something else advances it.
        chunk_size: Draws evaluated at once. Does not change the draws.

    Returns:
        ``attribute(x, *args)``, a tree like that of `attribute`.

    Raises:
        AttribError: As for `smooth` and `attrib.perturb.gaussian`.

    References:
        Smilkov, Thorat, Kim, Viegas & Wattenberg (2017), https://arxiv.org/abs/1706.03825

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> smooth_grad(attrib.saliency(f), 0.1)(torch.zeros(1, 2))
        tensor([[1., 2.]])
    """
    return _under_noise(attribute, std, samples, generator, mean, chunk_size)


def smooth_grad_sq(
    attribute: Attribute,
    std: Any,
    *,
    samples: int = 25,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Mean squared attribution under noise, :math:`\mathbb{E}_\varepsilon\, A(x + \varepsilon)^2`.

    Args:
        attribute: Any attribution.
        std: As for `smooth_grad`.
        samples: Number of draws.
        generator: As for `smooth_grad`.
        chunk_size: Draws evaluated at once.

    Returns:
        ``attribute(x, *args)``, a tree like that of `attribute`, in units of its square.

    Raises:
        AttribError: As for `smooth` and `attrib.perturb.gaussian`.

    References:
        Hooker, Erhan, Kindermans & Kim (2019), section 4.1, https://arxiv.org/abs/1806.10758

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> smooth_grad_sq(attrib.saliency(f), 0.1)(torch.zeros(1, 2))
        tensor([[1., 4.]])
    """
    return _under_noise(attribute, std, samples, generator, second_moment, chunk_size)


def var_grad(
    attribute: Attribute,
    std: Any,
    *,
    samples: int = 25,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Variance of an attribution under noise, :math:`\mathbb{V}_\varepsilon\, A(x + \varepsilon)`,
    the population variance of the draws.

    Args:
        attribute: Any attribution.
        std: As for `smooth_grad`.
        samples: Number of draws.
        generator: As for `smooth_grad`.
        chunk_size: Draws evaluated at once.

    Returns:
        ``attribute(x, *args)``, a tree like that of `attribute`, in units of its square.

    Raises:
        AttribError: As for `smooth` and `attrib.perturb.gaussian`.

    References:
        Adebayo, Gilmer, Goodfellow & Kim (2018), https://arxiv.org/abs/1810.03307

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x @ torch.tensor([1.0, 2.0])
        >>> var_grad(attrib.saliency(f), 0.1)(torch.zeros(1, 2))
        tensor([[0., 0.]])
    """
    return _under_noise(attribute, std, samples, generator, variance, chunk_size)


def expected(
    attribute: Attribute, *, reduce: Reducer = mean, chunk_size: ChunkSize = "auto"
) -> Attribute:
    r"""Average an attribution over a set of baselines, :math:`\frac1n \sum_j A(x, x'_j)`.

    Args:
        attribute: Any attribution that takes a baseline, e.g. `attrib.integrated_gradients`.
        reduce: How to fold over the baselines; `attrib.estimate` adds standard errors.
        chunk_size: Baselines evaluated at once.

    Returns:
        ``attribute(x, baselines, *args)``; ``baselines`` is a tree like ``x``, or one tensor for
        every leaf, with leaves ``(count, ...)`` of which each row is one baseline.

    Raises:
        AttribValueError: If the baselines are empty, or of another structure than ``x``.
        AttribError: As for `smooth`.

    References:
        Lundberg & Lee (2017), section 4.2 (DeepLIFT over several references),
        https://arxiv.org/abs/1705.07874

    Example:
        >>> import torch, attrib
        >>> attribute = expected(attrib.integrated_gradients(lambda x: x.square().sum(-1)))
        >>> attribute(torch.tensor([[2.0]]), torch.tensor([[0.0], [1.0]]))
        tensor([[3.5000]])
    """
    check_callable(
        attribute, "attribute", "pass an attribution, e.g. attrib.integrated_gradients(f)"
    )
    check_callable(reduce, "reduce", "pass a reducer such as attrib.mean")
    chunk_size = check_chunk_size(chunk_size)

    def averaged(x: Tree, baselines: Tree, *args: Any) -> Tree:
        check_input(x, gradients=False)
        parts, spec = flatten(x)
        given = leaves_for(x, baselines) or [None] * len(parts)
        # Beside floating leaves, integers are carried along from x: they have no baseline.
        alone = not any(differentiable(a) for a in parts)
        stack = [
            b if alone or differentiable(a) else None for a, b in zip(parts, given, strict=True)
        ]
        counts = {b.shape[0] if getattr(b, "ndim", 0) else 0 for b in stack if b is not None}
        if len(counts) != 1 or 0 in counts:
            raise AttribValueError(
                "baselines: must hold the same number of at least one row in every leaf, got "
                f"{describe(baselines)}; expected a tree like x ({describe(x)}) with a leading "
                "axis",
                code="baselines.shape",
            )
        pairs = list(zip(parts, stack, strict=True))
        # Full rows of x, so that a batched attribution can fold them.
        rows = unflatten(spec, [None if b is None else _rows_like(a, b) for a, b in pairs])

        def take(start: int, stop: int) -> tuple[Tree, Tree]:
            same = tree_map(lambda a: a.expand(stop - start, *a.shape), x)
            return same, tree_map(lambda b: b[start:stop], rows)

        points = Points(counts.pop(), take)
        over = stacked(attribute, *args)
        return reduce(map_chunks(lambda chunk: over(*chunk), points, chunk_size=chunk_size, like=x))

    return averaged


def _under_noise(
    attribute: Attribute,
    std: Any,
    samples: int,
    generator: torch.Generator | None,
    reduce: Reducer,
    chunk_size: ChunkSize,
) -> Attribute:
    perturbations.gaussian(std, generator=generator)

    # Made anew for every call: without a generator the draws follow torch's global state.
    def noise() -> Perturb:
        return perturbations.gaussian(std, generator=perturbations.fork(generator))

    return _smooth(attribute, noise, samples, reduce, chunk_size)


def _smooth(
    attribute: Attribute,
    perturb: Callable[[], Perturb],
    samples: int,
    reduce: Reducer,
    chunk_size: ChunkSize,
) -> Attribute:
    check_callable(attribute, "attribute", "pass an attribution, e.g. attrib.saliency(f)")
    check_callable(reduce, "reduce", "pass a reducer such as attrib.mean")
    check_count(samples, "samples")
    chunk_size = check_chunk_size(chunk_size)

    role = baseline_of(attribute)

    def smoothed(x: Tree, *args: Any) -> Tree:
        check_input(x, gradients=False)
        if role == "baseline" and args:
            args = (_whole(args[0], x), *args[1:])
        points = perturbations.drawn(perturb(), x, samples)
        return reduce(map_chunks(stacked(attribute, *args), points, chunk_size=chunk_size, like=x))

    return called_like(attribute, smoothed)


def _whole(baseline: Any, x: Tree) -> Any:
    """A baseline as large as ``x``: a row of features may be as long as the batch, and be taken for
    what belongs to its examples."""
    given = leaves_for(x, baseline)
    if given is None or not all(isinstance(b, Tensor) for b in given):
        return baseline
    parts, spec = flatten(x)
    with suppress(RuntimeError):  # what does not broadcast is refused where it is used
        return unflatten(
            spec,
            [b if a is None else b.expand_as(a) for a, b in zip(parts, given, strict=True)],
        )
    return baseline


def _rows_like(x: Tensor, baselines: Tensor) -> Tensor:
    row = baselines.shape[1:]
    try:
        aligned = baselines.reshape(len(baselines), *(1 for _ in range(x.ndim - len(row))), *row)
        return aligned.expand(len(baselines), *x.shape)
    except RuntimeError:
        raise AttribValueError(
            f"baselines: a row does not broadcast to x, got rows of shape {tuple(row)}; x has "
            f"shape {tuple(x.shape)}",
            code="baselines.shape",
        ) from None
