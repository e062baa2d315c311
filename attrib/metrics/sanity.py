"""Sanity checks: an attribution that does not depend on the model or the class explains neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from attrib._batched import stacked
from attrib._checks import check_callable, check_count, check_input, check_several, describe
from attrib._map import ChunkSize, check_chunk_size, map_chunks, slices
from attrib._tree import leaves
from attrib.errors import AttribTypeError, AttribValueError
from attrib.metrics._calling import featurewise
from attrib.metrics._direction import named
from attrib.metrics._models import parameters_by_module, with_parameters
from attrib.metrics._statistics import spearman
from attrib.perturb import Stream, fork
from attrib.types import Attribute, Measure, Tree

__all__ = ["agreement", "parameter_randomisation", "random_logit", "randomisation_curve"]

Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From two attributions ``(..., features)`` to ``(...)``."""


def agreement(
    attribute: Attribute,
    other: Attribute,
    *,
    similarity: Similarity = spearman,
    batch_dims: int = 1,
) -> Measure:
    r"""Similarity of two attributions, :math:`s(\phi(x), \psi(x))`: higher is more alike.

    For the data randomisation test of Adebayo et al., lower is better: `other` explains a model of
    the same kind that was trained on permuted labels.

    Args:
        attribute: Attribution function.
        other: Another one, called alike.
        similarity: From two tensors ``(*batch, features)`` to ``(*batch,)``; for one that ignores
            signs ``lambda a, b: spearman(a.abs(), b.abs())``.
        batch_dims: How many batch dimensions ``x`` has: 0 for one example.

    Returns:
        ``measure(x, *args) -> (*batch,)``, in units of the similarity.

    Raises:
        AttribError: If an argument is not what it should be.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim (2018), section 4, "data randomization
        test", https://arxiv.org/abs/1810.03292

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x.square().sum(-1)
        >>> both = agreement(attrib.saliency(f), attrib.integrated_gradients(f))
        >>> both(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([1.])
    """
    check_callable(attribute, "attribute", "pass an attribution, e.g. attrib.saliency(f)")
    check_callable(other, "other", "pass an attribution, e.g. attrib.saliency(g)")
    check_callable(similarity, "similarity", "pass e.g. attrib.metrics.spearman")
    check_count(batch_dims, "batch_dims", least=0)

    def measure(x: Tree, *args: Any) -> Tensor:
        one, two = (featurewise(function(x, *args), batch_dims) for function in (attribute, other))
        if one.shape != two.shape:
            raise AttribValueError(
                f"other: returns another shape, got {describe(two)} for {describe(one)}",
                code="other.shape",
            )
        return similarity(one, two)

    return named("agreement", measure)


def parameter_randomisation(
    method: Callable[[nn.Module], Attribute],
    model: nn.Module,
    *,
    cascading: bool = True,
    layers: Sequence[str] | None = None,
    randomise: Callable[[Tensor, torch.Generator | None], Tensor] | None = None,
    similarity: Similarity = spearman,
    batch_dims: int = 1,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Measure:
    r"""Model-parameter randomisation, lower is better: how much an attribution stays the same when
    the model forgets, averaged over layers,

    .. math:: \frac1L \sum_{l=1}^{L} s\big(\phi^{m}(x), \phi^{m_l}(x)\big).

    Args:
        method: From a module to an attribution, e.g. ``lambda m: attrib.saliency(attrib.target(m,
            3))``. It is given copies of the model with other parameters, with the same names.
        model: The module; it is left alone.
        cascading: In :math:`m_l` the last :math:`l` layers are random; if false, the l-th last one
            alone (independent randomisation).
        layers: Names of modules with parameters of their own, in the order in which they are
            randomised. ``None``: all there are, from the last to the first.
        randomise: ``randomise(parameter, generator)``, another tensor like it. By default normal
            numbers of the same root mean square.
        similarity: As for `agreement`.
        batch_dims: How many batch dimensions ``x`` has: 0 for one example.
        generator: Source of randomness; without one, a copy of the global generator.
        chunk_size: Models evaluated at once, with `torch.vmap` over their parameters; one at a time
            for a model that it cannot trace.

    Returns:
        ``measure(x, *args) -> (*batch,)``, in units of the similarity, called like what `method`
        makes.

    Raises:
        AttribValueError: If there are no parameters, a layer has none, or `randomise` returns
            other than a tensor like the parameter.
        AttribError: If an argument is not what it should be.

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim (2018), sections 3.1 (cascading) and 3.2
        (independent), "model parameter randomization test", https://arxiv.org/abs/1810.03292

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> method = lambda model: attrib.saliency(attrib.target(model, 0))
        >>> parameter_randomisation(method, model)(torch.randn(5, 4)).shape
        torch.Size([5])
    """
    task: Any = {"cascading": cascading, "layers": layers, "randomise": randomise}
    more: Any = {"similarity": similarity, "batch_dims": batch_dims, "generator": generator}
    call = randomisation_curve(method, model, chunk_size=chunk_size, **task, **more)

    def measure(x: Tree, *args: Any) -> Tensor:
        return torch.stack(list(call(x, *args).values())).mean(0)

    return named("parameter_randomisation", measure)


def randomisation_curve(
    method: Callable[[nn.Module], Attribute],
    model: nn.Module,
    *,
    cascading: bool = True,
    layers: Sequence[str] | None = None,
    randomise: Callable[[Tensor, torch.Generator | None], Tensor] | None = None,
    similarity: Similarity = spearman,
    batch_dims: int = 1,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = "auto",
) -> Callable[..., dict[str, Tensor]]:
    """What `parameter_randomisation` averages, layer by layer.

    Args:
        method: As for `parameter_randomisation`.
        model: As for `parameter_randomisation`.
        cascading: As for `parameter_randomisation`.
        layers: As for `parameter_randomisation`.
        randomise: As for `parameter_randomisation`.
        similarity: As for `parameter_randomisation`.
        batch_dims: As for `parameter_randomisation`.
        generator: As for `parameter_randomisation`.
        chunk_size: As for `parameter_randomisation`.

    Returns:
        ``call(x, *args)``, the similarity ``(*batch,)`` after each layer, by its name and in the
        order in which they are randomised.

    Raises:
        AttribError: As for `parameter_randomisation`.

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> method = lambda model: attrib.saliency(attrib.target(model, 0))
        >>> list(randomisation_curve(method, model)(torch.randn(5, 4)))
        ['2', '0']
    """
    check_callable(
        method,
        "method",
        "pass a function of a module, e.g. lambda m: attrib.saliency(attrib.target(m, 3))",
    )
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AttribTypeError(
            f"model: must be a module, got {type(model).__name__}; its parameters are randomised",
            code="model.type",
        )
    check_callable(similarity, "similarity", "pass e.g. attrib.metrics.spearman")
    if randomise is not None:
        check_callable(randomise, "randomise", "pass a function of a parameter and a generator")
    check_count(batch_dims, "batch_dims", least=0)
    chunk_size = check_chunk_size(chunk_size)
    Stream(generator)
    owned = _chosen(parameters_by_module(model), layers)

    def call(x: Tree, *args: Any) -> dict[str, Tensor]:
        base = featurewise(method(model)(x, *args), batch_dims)
        forgetful, entries = _forgetful(
            model, owned, randomise or _normal, Stream(fork(generator)), cascading
        )

        def explained(place: Tensor) -> Tree:
            return method(forgetful(place))(x, *args)

        over = stacked(explained, same_draws=True)
        points = slices(torch.arange(len(owned), device=base.device))
        like = base.new_empty(()).expand(1, entries)  # every model has parameters of its own
        chunks = [
            similarity(featurewise(attributions, batch_dims + 1), base)
            for attributions in map_chunks(over, points, chunk_size=chunk_size, like=like)
        ]
        return dict(zip(owned, torch.cat(chunks), strict=True))

    return call


def random_logit(
    method: Callable[[Any], Attribute],
    *,
    classes: int,
    similarity: Similarity = spearman,
    batch_dims: int = 1,
    generator: torch.Generator | None = None,
) -> Measure:
    r"""Random logit test, lower is better: how much the attributions of a class and of
    another one, drawn at random, are alike, :math:`s(\phi^{c}(x), \phi^{c'}(x))`.

    Args:
        method: From a class to an attribution, e.g. ``lambda c:
            attrib.saliency(attrib.target(model, c))``. It gets a LongTensor, a class per example.
        classes: How many classes there are.
        similarity: As for `agreement`.
        batch_dims: How many batch dimensions ``x`` has: 0 for one example.
        generator: Source of randomness; without one, a copy of the global generator.

    Returns:
        ``measure(x, index, *args) -> (*batch,)``, in units of the similarity; ``index`` is an
        integer or a LongTensor ``(*batch,)``, the classes that are explained.

    Raises:
        AttribError: If an argument is not what it should be.

    References:
        Sixt, Granz & Landgraf (2020), "random logit", https://arxiv.org/abs/1912.09818

    Example:
        >>> import torch, attrib
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> method = lambda c: attrib.saliency(attrib.target(model, c))
        >>> random_logit(method, classes=3)(torch.randn(5, 4), 0).shape
        torch.Size([5])
    """
    check_callable(
        method,
        "method",
        "pass a function of a class, e.g. lambda c: attrib.saliency(attrib.target(model, c))",
    )
    check_count(classes, "classes", least=2)
    check_callable(similarity, "similarity", "pass e.g. attrib.metrics.spearman")
    check_count(batch_dims, "batch_dims", least=0)
    Stream(generator)

    def measure(x: Tree, index: Any, *args: Any) -> Tensor:
        check_input(x)
        first = next(leaf for leaf in leaves(x) if leaf is not None)
        batch = first.shape[:batch_dims]
        own = _classes(index, batch, first.device)
        step = torch.randint(
            1,
            classes,
            batch,
            generator=Stream(fork(generator)).on(first.device),
            device=first.device,
        )
        both = (own, (own + step) % classes)
        one, other = (featurewise(method(c)(x, *args), batch_dims) for c in both)
        return similarity(one, other)

    return named("random_logit", measure)


def _classes(index: Any, batch: torch.Size, device: torch.device) -> Tensor:
    """The class of every example."""
    if isinstance(index, Tensor):
        whole = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    else:
        whole = hasattr(index, "__index__") and not isinstance(index, bool)
    if not whole:
        raise AttribTypeError(
            f"index: must be an integer or a LongTensor, got {describe(index)}; pass the class, or "
            "a class per example",
            code="target.type",
        )
    if isinstance(index, Tensor) and index.shape not in ((), batch):
        raise AttribValueError(
            f"index: must be one class or one per example, got shape {tuple(index.shape)} for "
            f"{tuple(batch)}",
            code="target.shape",
        )
    return torch.as_tensor(index, device=device).expand(batch)


def _forgetful(
    model: nn.Module,
    owned: dict[str, list[Tensor]],
    randomise: Callable[[Tensor, torch.Generator | None], Tensor],
    stream: Stream,
    cascading: bool,
) -> tuple[Callable[[Tensor], nn.Module], int]:
    """From the number of a layer to the model in which it is random, and the layers before it if
    cascading; and how many numbers are random."""
    others = {
        parameter: (turn, _another(parameter, randomise, stream))
        for turn, parameters in enumerate(owned.values())
        for parameter in parameters
    }

    def at(place: Tensor) -> nn.Module:
        def value(parameter: Tensor) -> Tensor:
            turn, other = others[parameter]
            random = place >= turn if cascading else place == turn
            return torch.where(random, other, parameter)

        return with_parameters(model, {parameter: value(parameter) for parameter in others})

    return at, sum(parameter.numel() for parameter in others)


def _another(
    parameter: Tensor,
    randomise: Callable[[Tensor, torch.Generator | None], Tensor],
    stream: Stream,
) -> Tensor:
    other: Any = randomise(parameter.detach(), stream.on(parameter.device))
    kind = (parameter.shape, parameter.dtype)
    if not isinstance(other, Tensor) or (other.shape, other.dtype) != kind:
        raise AttribValueError(
            f"randomise: must return a tensor like the parameter, got {describe(other)} for "
            f"{describe(parameter)} of {parameter.dtype}",
            code="randomise.shape",
        )
    return other


def _chosen(
    owned: dict[str, list[Tensor]], layers: Sequence[str] | None
) -> dict[str, list[Tensor]]:
    if not owned:
        raise AttribValueError(
            "model: nothing to randomise, got a module without floating-point parameters",
            code="model.parameters",
        )
    names = list(reversed(owned)) if layers is None else check_several(layers, "layers")
    unknown = [name for name in names if name not in owned]
    if unknown or not names:
        raise AttribValueError(
            f"layers: not a module with parameters of its own, got {unknown}; these are "
            f"{', '.join(owned)}",
            code="layers.unknown",
        )
    return {name: owned[name] for name in names}


def _normal(parameter: Tensor, generator: torch.Generator | None) -> Tensor:
    drawn = torch.randn(
        parameter.shape, generator=generator, dtype=parameter.dtype, device=parameter.device
    )
    return drawn * parameter.square().mean().sqrt()
