"""Relative stability: how far an attribution moves for what the model sees move."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from attrib._batched import inherit
from attrib._checks import check_callable, check_number
from attrib._map import ChunkSize
from attrib._tree import copied
from attrib.metrics._calling import at_points
from attrib.metrics._direction import named
from attrib.metrics._moving import Seen, compared, differences, floating
from attrib.metrics._statistics import Norm, check_norm, norm_of, ratio
from attrib.reducers import maximum
from attrib.scores import batched
from attrib.types import Attribute, Measure, Perturb, Tree

__all__ = [
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
]


def relative_input_stability(
    attribute: Attribute,
    perturb: Perturb,
    *,
    samples: int = 10,
    norm: Norm = 2,
    eps: float = 1e-6,
    predict: Callable[..., Tensor] | None = None,
    batch_dims: int = 1,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Relative input stability, lower is better: relative change of the attribution per relative
    change of the input,

    .. math:: \max_{x'} \frac{\lVert (\phi(x) - \phi(x')) / \phi(x) \rVert_p}
              {\max(\lVert (x - x') / x \rVert_p, \epsilon)},

    where the divisions inside of the norms go entry by entry.

    Args:
        attribute: As for `attrib.metrics.max_sensitivity`.
        perturb: As for `attrib.metrics.max_sensitivity`.
        samples: Number of draws.
        norm: As for `attrib.metrics.max_sensitivity`.
        eps: The least denominator :math:`\epsilon`, which also takes the place of zeros that are
            divided by.
        predict: ``predict(x, *args) -> (*batch,)``, the predicted class. If given, draws that
            change it do not count, as in the paper; where none is left the measure is NaN.
        batch_dims: As for `attrib.metrics.max_sensitivity`.
        chunk_size: Draws evaluated at once.

    Returns:
        ``measure(x, *args) -> (*batch,)``, without a unit.

    Raises:
        AttribError: As for `attrib.metrics.max_sensitivity`.

    References:
        Agarwal et al. (2022), section 3.3, equation 2, https://arxiv.org/abs/2203.06877

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x.square().sum(-1))
        >>> relative_input_stability(saliency, lambda x: 1.5 * x)(torch.ones(1, 4))
        tensor([1.])
    """
    return named(
        "relative_input_stability",
        _stability(
            attribute, perturb, None, samples, norm, eps, predict, batch_dims, chunk_size, "x"
        ),
    )


def relative_representation_stability(
    attribute: Attribute,
    representation: Callable[..., Tree],
    perturb: Perturb,
    *,
    samples: int = 10,
    norm: Norm = 2,
    eps: float = 1e-6,
    predict: Callable[..., Tensor] | None = None,
    batch_dims: int = 1,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Relative representation stability, lower is better: relative change of the attribution per
    relative change of what the model makes of the input,

    .. math:: \max_{x'} \frac{\lVert (\phi(x) - \phi(x')) / \phi(x) \rVert_p}
              {\max(\lVert (L(x) - L(x')) / L(x) \rVert_p, \epsilon)}.

    Args:
        attribute: As for `attrib.metrics.max_sensitivity`.
        representation: :math:`L`, called as ``representation(x, *args)``, e.g.
            ``attrib.activation(model, "layer3")``.
        perturb: As for `attrib.metrics.max_sensitivity`.
        samples: Number of draws.
        norm: As for `attrib.metrics.max_sensitivity`.
        eps: As for `relative_input_stability`.
        predict: As for `relative_input_stability`.
        batch_dims: As for `attrib.metrics.max_sensitivity`.
        chunk_size: Draws evaluated at once.

    Returns:
        As for `relative_input_stability`.

    Raises:
        AttribError: As for `attrib.metrics.max_sensitivity`.

    References:
        Agarwal et al. (2022), section 3.3, equation 3, https://arxiv.org/abs/2203.06877

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x.square().sum(-1))
        >>> measure = relative_representation_stability(saliency, torch.square, lambda x: 2 * x)
        >>> measure(torch.ones(1, 4))
        tensor([0.3333])
    """
    check_callable(representation, "representation", "pass e.g. attrib.activation(model, 'layer3')")
    return named(
        "relative_representation_stability",
        _stability(
            attribute,
            perturb,
            representation,
            samples,
            norm,
            eps,
            predict,
            batch_dims,
            chunk_size,
            "representation",
        ),
    )


def relative_output_stability(
    attribute: Attribute,
    outputs: Callable[..., Tree],
    perturb: Perturb,
    *,
    samples: int = 10,
    norm: Norm = 2,
    eps: float = 1e-6,
    predict: Callable[..., Tensor] | None = None,
    batch_dims: int = 1,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Relative output stability, lower is better: relative change of the attribution per change of
    the logits,

    .. math:: \max_{x'} \frac{\lVert (\phi(x) - \phi(x')) / \phi(x) \rVert_p}
              {\max(\lVert h(x) - h(x') \rVert_p, \epsilon)}.

    Args:
        attribute: As for `attrib.metrics.max_sensitivity`.
        outputs: The logits :math:`h`, called as ``outputs(x, *args) -> (*batch, classes)``: the
            model.
        perturb: As for `attrib.metrics.max_sensitivity`.
        samples: Number of draws.
        norm: As for `attrib.metrics.max_sensitivity`.
        eps: As for `relative_input_stability`.
        predict: As for `relative_input_stability`.
        batch_dims: As for `attrib.metrics.max_sensitivity`.
        chunk_size: Draws evaluated at once.

    Returns:
        ``measure(x, *args) -> (*batch,)``, per unit of the logits.

    Raises:
        AttribError: As for `attrib.metrics.max_sensitivity`.

    References:
        Agarwal et al. (2022), section 3.3, equation 5, https://arxiv.org/abs/2203.06877

    Example:
        >>> import torch, attrib
        >>> saliency = attrib.saliency(lambda x: x.square().sum(-1))
        >>> relative_output_stability(saliency, torch.square, lambda x: 2 * x)(torch.ones(1, 4))
        tensor([0.3333])
    """
    check_callable(outputs, "outputs", "pass the model")
    return named(
        "relative_output_stability",
        _stability(
            attribute,
            perturb,
            outputs,
            samples,
            norm,
            eps,
            predict,
            batch_dims,
            chunk_size,
            "outputs",
        ),
    )


def _stability(
    attribute: Attribute,
    perturb: Perturb,
    seen: Callable[..., Tree] | None,
    samples: int,
    norm: Norm,
    eps: float,
    predict: Callable[..., Tensor] | None,
    batch_dims: int,
    chunk_size: ChunkSize,
    name: Literal["x", "representation", "outputs"],
) -> Measure:
    unit, least = check_norm(norm), check_number(eps, "eps", exclusive=True)
    if predict is not None:
        check_callable(predict, "predict", "pass a function of x that returns the class")
    look = None if seen is None else _on_copies(seen)
    judge = None if predict is None else _on_copies(predict)

    def beside(args: tuple[Any, ...]) -> Callable[[Tree], Tree]:
        over = None if look is None else at_points(look, batch_dims, *args)
        classes = None if judge is None else at_points(judge, batch_dims, *args)

        def seen_at(points: Tree) -> Tree:
            found = points if over is None else over(points)
            return floating(found, name), classes and classes(points)

        return seen_at

    def share(here: Seen, dims: int) -> Callable[[Seen], Tensor]:
        before, label = here.beside

        def at(there: Seen) -> Tensor:
            after, found = there.beside
            moved = differences(after, before)
            if name != "outputs":
                moved = _relative(moved, before, least)
            changes = _relative(differences(there.found, here.found), here.found, least)
            size = norm_of(moved, dims + 1, unit).clamp_min(least)
            result = norm_of(changes, dims + 1, unit) / size
            return result if label is None else result.where(found == label, -math.inf)

        return at

    def reduce(chunks: Any) -> Tensor:
        found = maximum(chunks)
        return found.masked_fill(found == -math.inf, math.nan)

    return compared(attribute, perturb, beside, share, samples, batch_dims, chunk_size, reduce)


def _relative(changes: list[Tensor], units: list[Tensor], least: float) -> list[Tensor]:
    return [ratio(change, unit, least) for change, unit in zip(changes, units, strict=True)]


def _on_copies(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of copies, which a model may write to; the rows of a module do not interact."""

    def method(function: Callable[..., Any]) -> Callable[..., Any]:
        def on_copies(x: Tree, *args: Any) -> Any:
            return function(copied(x), *copied(args))

        return on_copies

    return inherit(batched(function) if isinstance(function, nn.Module) else function, method)
