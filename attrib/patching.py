"""What values of one run of a model, put into another run, do to a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from attrib._batched import Batched, inherit, of_the_same_rows, stacked
from attrib._checks import check_callable, check_values, describe
from attrib._inside import Sites
from attrib._map import ChunkSize, Points, check_chunk_size, map_chunks
from attrib._passed import only_tensor
from attrib._quadrature import Quadrature
from attrib._runs import (
    Course,
    Line,
    check_alike,
    check_corrupted,
    check_line,
    ways_into,
)
from attrib._sites import Site, SiteLike
from attrib._tree import features, leaves, tree_map
from attrib.errors import AttribError, AttribTypeError, AttribValueError
from attrib.gradient import score_of
from attrib.types import Attribute, Score, Tree

__all__ = ["activation_patching", "attribution_patching", "edge_attribution_patching"]


def activation_patching(
    f: Score,
    sites: SiteLike,
    *,
    dims: int | Sequence[int] = (),
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Activation patching: what a site does to the score when it yields in the run on ``x`` what
    it yields in the run on another input,

    .. math:: E_s = f(x \mid h_s := h_s(x')) - f(x).

    With a clean ``x`` and a corrupted :math:`x'` this shows what is necessary (noising); with the
    two exchanged, ``attribute(corrupted, x)``, what is sufficient to restore the clean answer
    (denoising, or causal tracing).

    Args:
        f: Score, such as the difference of two logits.
        sites: A `Site`, a module, its dotted name or the name of a `tap`, or a tree of them, each
            of which is patched alone.
        dims: Dimensions of what a site yields, dimension 0 being the batch, of which every index is
            patched alone: ``1`` for each position of ``(batch, positions, neurons)``, ``(1, 2)``
            for each neuron at each position. By default all of it is patched together. Other
            groups of neurons are hidden by feature ablation of the layer, ``attrib.layer(lambda f:
            feature_ablation(f, groups=...), f, site)(x, corrupted)``, with the opposite sign.
        chunk_size: Indices patched at once.

    Returns:
        ``attribute(x, corrupted, *args)``, a tree like `sites` of tensors ``(*batch, *sizes)``, one
        number per index of `dims`, in units of the score. ``corrupted`` is a tree like ``x``, or a
        number or tensor that broadcasts to it. As far as nothing goes around a site, only what is
        behind it is computed again.

    Raises:
        AttribTypeError: If `dims` are no integers, or a site yields more than one tensor for them.
        AttribValueError: If the two inputs have different shapes, or a site yields such, or `dims`
            are no dimensions of features.
        AttribError: As for `attrib.split`.

    Warns:
        NonFiniteWarning: If a score is NaN or infinite; the effects that rest on it are NaN.

    References:
        Vig et al. (2020), https://arxiv.org/abs/2004.12265

        Meng, Bau, Andonian & Belinkov (2022), https://arxiv.org/abs/2202.05262

        Heimersheim & Nanda (2024), https://arxiv.org/abs/2404.15255

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("h", x.square()).prod(-1))
        >>> x, corrupted = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
        >>> activation_patching(f, "h")(x, corrupted)
        tensor([5.])
        >>> activation_patching(f, "h", dims=1)(x, corrupted)
        tensor([[32., -3.]])
    """
    check_callable(f, "f", "pass a score, e.g. attrib.target(model, 3)")
    chosen = _check_dims(dims)
    chunk_size = check_chunk_size(chunk_size)
    parts, spec = pytree.tree_flatten(sites)
    every, each = Sites(f, parts), [Sites(f, part) for part in parts]

    def method(score: Score) -> Attribute:
        read, before = every.reading(score), score_of(score)

        def attribute(x: Tree, corrupted: Tree, *args: Any) -> Tree:
            corrupted = check_corrupted(corrupted, x)
            clean, other = read(x, *args), read(corrupted, *args)
            unpatched = before(x, *args)

            def patched(site: Sites, h: Tree, new: Tree) -> tuple[Tensor, list[int]]:
                """The score, unpatched and then patched, and the sizes of the dimensions."""
                check_alike(h, new)
                tail = inherit(of_the_same_rows(site.f, score), site.tail)
                if not chosen:
                    return torch.stack([unpatched, tail(new, x, *args)]), []
                points, sizes = _one_by_one(h, new, chosen, unpatched.ndim)
                kernel: Callable[[Tree], Tree] = stacked(tail, x, *args)
                chunks: Any = list(map_chunks(kernel, points, chunk_size=chunk_size, like=h))
                return torch.cat(chunks), sizes

            found = list(map(patched, each, clean, other))
            scores, _ = check_values(torch.cat([scores for scores, _ in found]))
            effects: list[Tensor] = []
            for part, sizes in found:
                own, scores = scores[: len(part)], scores[len(part) :]
                effect = (own[1:] - own[0]).movedim(0, -1)
                effects.append(effect.reshape((*unpatched.shape, *sizes)))
            return spec.unflatten(effects)

        return attribute

    return inherit(every.f, method)


def attribution_patching(
    f: Score,
    sites: SiteLike,
    *,
    steps: int = 1,
    quadrature: Quadrature = "left",
    along: SiteLike | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Attribution patching: `activation_patching` of every entry of every site, estimated to first
    order from two forward passes and one backward pass,

    .. math:: \hat E_j = (h_j(x') - h_j(x))\, \frac{\partial f}{\partial h_j}(x).

    With more steps the derivative is averaged along the line from ``x`` to :math:`x'` (EAP-IG):
    where a softmax or a saturated unit hides the effect at ``x``, it shows further on.

    Args:
        f: Score.
        sites: A `Site`, a module, its dotted name or the name of a `tap`, or a tree of them; one
            backward pass serves all of them.
        steps: Points on the line, each of which costs one backward pass.
        quadrature: As for `attrib.integrated_gradients`. ``"left"`` takes the points
            :math:`k / \mathrm{steps}` from 0, of which the first is ``x``, as the paper does.
        along: Where the line is drawn: a site before all others, such as the embeddings of token
            ids, which have no points in between. By default it is ``x`` itself, whose integers stay
            what they are in the run on ``x``.
        chunk_size: Points of the line evaluated at once.

    Returns:
        ``attribute(x, corrupted, *args)``, a tree like what the sites yield, in units of the score.
        Sum it over neurons or positions for their joint effect.

    Raises:
        AttribTypeError: If there are steps between token ids.
        AttribError: As for `activation_patching` and `attrib.activation_and_gradient`.

    References:
        Nanda (2023), https://www.neelnanda.io/mechanistic-interpretability/attribution-patching

        Hanna, Pezzelle & Belinkov (2024), for steps, https://arxiv.org/abs/2403.17806

    Example:
        >>> import torch, attrib
        >>> f = attrib.batched(lambda x: attrib.tap("h", x.square()).prod(-1))
        >>> x, corrupted = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
        >>> attribution_patching(f, "h")(x, corrupted)
        tensor([[32., -3.]])
    """
    rule = check_line(f, steps, quadrature)
    chunk_size = check_chunk_size(chunk_size)
    parts, spec = pytree.tree_flatten(sites)
    ways = ways_into(f, parts, along, ordered=False)

    def method(score: Score) -> Attribute:
        line = Line(ways, score, rule, chunk_size)

        def attribute(x: Tree, corrupted: Tree, *args: Any) -> Tree:
            clean, other, slope = line.ends_and_slope(x, corrupted, args)
            effects = [
                tree_map(lambda g, a, b: g * (b - a), *part)
                for part in zip(slope, clean, other, strict=True)
            ]
            return spec.unflatten(effects)

        return attribute

    return inherit(ways.score, method)


def edge_attribution_patching(
    f: Score,
    sources: SiteLike,
    destinations: SiteLike,
    *,
    steps: int = 1,
    quadrature: Quadrature = "left",
    along: SiteLike | None = None,
    chunk_size: ChunkSize = "auto",
) -> Attribute:
    r"""Edge attribution patching: what every connection between two parts of a residual network
    does to the score when it alone carries the value of another run, to first order,

    .. math:: \hat E_{uv} = \sum_j (u_j(x') - u_j(x))\, \frac{\partial f}{\partial v_j}(x),

    where a source :math:`u` is a summand of what a destination :math:`v` reads. All edges take two
    forward passes and one backward pass.

    Args:
        f: Score.
        sources: Sites that write to the stream, such as the embeddings, attentions and MLPs; a site
            or a tree of them.
        destinations: Sites that read from it. Of a module, or its name, it is the input; a `Site`
            says for itself, such as ``Site("transformer.h.0", of="input", leaf=0)`` where a module
            takes masks or positions beside the stream.
        steps: As for `attribution_patching`; more than one is EAP-IG.
        quadrature: As for `attribution_patching`.
        along: As for `attribution_patching`.
        chunk_size: As for `attribution_patching`.

    Returns:
        ``attribute(x, corrupted, *args)``, ``(*batch, sources, destinations)``, summed over
        positions and features, in the order of the two trees. An edge that leads backward, from a
        source that is computed after the destination, is NaN. Whether a source is really a summand
        of what a destination reads is not looked at.

    Raises:
        AttribTypeError: If a site yields more than one tensor.
        AttribValueError: If sources and destinations yield tensors of different shapes.
        AttribError: As for `attribution_patching`.

    References:
        Syed, Rager & Conmy (2023), https://arxiv.org/abs/2310.10348

        Hanna, Pezzelle & Belinkov (2024), https://arxiv.org/abs/2403.17806

    Example:
        >>> import torch, attrib
        >>> def model(x):
        ...     double = attrib.tap("double", 2 * x)
        ...     return attrib.tap("read", x + double).prod(-1)
        >>> f = attrib.batched(model)
        >>> x, corrupted = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 3.0]])
        >>> edge_attribution_patching(f, "double", "read")(x, corrupted)
        tensor([[[6.]]])
    """
    rule = check_line(f, steps, quadrature)
    chunk_size = check_chunk_size(chunk_size)
    writing, reading = pytree.tree_leaves(sources), pytree.tree_leaves(destinations)
    inputs = _inputs(f, reading)
    ways = ways_into(f, [*writing, *inputs], along, ordered=True)
    split = len(writing)

    def method(score: Score) -> Attribute:
        def attribute(x: Tree, corrupted: Tree, *args: Any) -> Tensor:
            course = Course(ways.labels)
            line = Line(ways, inherit(score, course.noted), rule, chunk_size, split)
            try:
                clean, other, slope = line.ends_and_slope(x, corrupted, args)
                read_from = list(map(only_tensor, slope[split:]))
            except AttribError as error:
                _refuse_inputs(error, reading, inputs)
                raise
            ends = zip(clean[:split], other[:split], strict=True)
            changes = [only_tensor(b) - only_tensor(a) for a, b in ends]
            vectors = [features(end, course.dims) for end in _alike(changes + read_from)]
            written, read = torch.stack(vectors[:split], -2), torch.stack(vectors[split:], -1)
            forward = torch.tensor(course.after(split), device=read.device)
            return (written @ read).masked_fill(~forward, torch.nan)

        return attribute

    return inherit(ways.score, method)


def _inputs(f: Score, parts: list[Any]) -> list[Any]:
    """Modules and their names stand for what goes into them."""
    models: tuple[Any, ...] = f.models if isinstance(f, Batched) else ()

    def is_module(part: Any) -> bool:
        named = [dict(model.named_modules(remove_duplicate=False)) for model in models]
        return isinstance(part, nn.Module) or any(part in names for names in named)

    return [Site(part, of="input") if is_module(part) else part for part in parts]


def _refuse_inputs(error: AttribError, parts: list[Any], inputs: list[Any]) -> None:
    """Say how the stream is told from what else goes into a module, if that may be the cause."""
    if error.code in ("site.batch", "site.several") and parts != inputs:
        raise type(error)(
            f'{error}; for a destination, Site("name", of="input", leaf=0) is the first argument '
            "of a module",
            code=error.code,
        ) from None


def _one_by_one(
    h: Tree, other: Tree, dims: tuple[int, ...], batch_dims: int
) -> tuple[Points, list[int]]:
    """What a site yields, unpatched, then patched at one index of some dimensions at a time, and
    their sizes.

    Among the rest: in a batch of another size the last bits of a score may differ, and what has no
    effect would not get exactly zero.
    """
    clean = only_tensor(h)
    places = tuple(dim + clean.ndim if dim < 0 else dim for dim in dims)
    inside = all(batch_dims <= place < clean.ndim for place in places)
    if not inside or len(set(places)) < len(places):
        raise AttribValueError(
            f"dims: must be different dimensions behind the batch, got {dims} for a site that "
            f"yields shape {tuple(clean.shape)}; those of its examples start at {batch_dims}",
            code="dims.range",
        )
    sizes = [clean.shape[place] for place in places]
    count = math.prod(sizes)
    # Which point an entry is patched at.
    number = torch.arange(count, device=clean.device)
    number = number.reshape(*sizes, *(1 for _ in range(clean.ndim - len(places))))
    number = number.movedim(tuple(range(len(places))), places)

    def take(start: int, stop: int) -> Tree:
        point = torch.arange(start - 1, stop - 1, device=clean.device)
        here = number == point.reshape(-1, *(1 for _ in clean.shape))
        return tree_map(lambda a, b: torch.where(here, b, a), h, other)

    return Points(count + 1, take), sizes


def _check_dims(dims: Any) -> tuple[int, ...]:
    chosen = leaves(dims)
    if not all(type(dim) is int for dim in chosen):
        raise AttribTypeError(
            f"dims: must be an integer or a tuple of integers, got {describe(dims)}",
            code="dims.type",
        )
    return tuple(chosen)


def _alike(tensors: list[Tensor]) -> list[Tensor]:
    """The ends of edges, which can be multiplied with each other."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise AttribValueError(
            "destinations: must yield tensors of one shape with the sources, that of the residual "
            f"stream, got {' and '.join(map(str, sorted(shapes)))}",
            code="edges.shape",
        )
    return tensors
