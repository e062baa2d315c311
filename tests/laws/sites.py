"""Methods inside a model as methods of its input, of which the laws speak.

The site is the input itself, or a layer that is made of the input in front of the score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib
from attrib._batched import Batched, inherit
from attrib._taps import mark
from attrib._tree import copied, differentiable, features
from attrib.attention import attention_rollout, gradient_rollout
from attrib.patching import (
    activation_patching,
    attribution_patching,
    edge_attribution_patching,
)
from attrib.types import Attribute, Score, Tree

Factory = Callable[..., Attribute]


def at_input(method: Factory, **fixed: Any) -> Factory:
    """A method at a site that all of x passes, so that it attributes to what x is made of."""

    def marking(f: Score) -> Score:
        return lambda x, *args: f(mark("x", x), *args)

    return lambda f, **options: method(inherit(f, marking), "x", **{**fixed, **options})


def of_layer(method: Factory, **fixed: Any) -> Factory:
    """A method on all that is behind the input."""

    def factory(f: Score, site: str, **options: Any) -> Attribute:
        return attrib.layer(lambda tail: method(tail, **options), f, site)

    return at_input(factory, **fixed)


def patching(f: Score, site: str, **options: Any) -> Attribute:
    """From a run on the baseline, zero if there is none."""

    def optional(attribute: Attribute) -> Attribute:
        return lambda x, baseline=0, *args: attribute(x, baseline, *args)

    return inherit(attribution_patching(f, site, **options), optional)


def through_the_score(f: Score, **options: Any) -> Attribute:
    """Through the only neuron of the last layer, which here is a quarter of the score."""

    def marking(f: Score) -> Score:
        return lambda x, *args: 4 * attrib.tap("last", f(x, *args) / 4)

    return attrib.neuron_conductance(inherit(f, marking), "last", None, **options)


# --- class activation maps ------------------------------------------------------------------------


def of_one_channel(method: Factory, *, positive: bool = False) -> Factory:
    """A map of the input as the only channel of a layer, which has as many entries.

    Args:
        method: From a score and a site.
        positive: The layer is the exponential of the input, of which the score takes the logarithm.
    """

    def factory(f: Score, **options: Any) -> Attribute:
        batch: list[int] = []

        def marking(f: Score) -> Score:
            def marked(x: Tree, *args: Any) -> Tensor:
                h = mark("x", _floating(torch.exp, x) if positive else x)
                score = f(_floating(torch.log, h) if positive else h, *args)
                batch[:] = [_dims(score)]
                return score

            return marked

        return method(inherit(f, marking), "x", reshape=lambda h: h.unsqueeze(batch[0]), **options)

    return factory


def of_two_channels(method: Factory) -> Factory:
    """A map of a layer behind the score, that of the input and of its sine times the score."""

    def factory(f: Score, **options: Any) -> Attribute:
        def marking(f: Score) -> Score:
            def marked(x: Tree, *args: Any) -> Tensor:
                score = f(copied(x), *copied(args))

                def channels(leaf: Tensor) -> Tensor:
                    share = score.reshape(*score.shape, *(1 for _ in leaf.shape[score.ndim :]))
                    return torch.stack([leaf, share * leaf.sin()], score.ndim)

                mark("x", _floating(channels, x))
                return score

            return marked

        return method(inherit(f, marking), "x", **options)

    return factory


def of_each_leaf(method: Factory) -> Factory:
    """A method of one tensor, at each leaf of the input for itself."""

    def factory(f: Score, **options: Any) -> Attribute:
        def attribute(x: Tree, *data: Any) -> Tree:
            parts, spec = pytree.tree_flatten(x)
            names = [f"x{place}" for place, part in enumerate(parts) if differentiable(part)]
            batch: list[int] = []

            def marking(f: Score) -> Score:
                def marked(x: Tree, *args: Any) -> Tensor:
                    tapped = [
                        attrib.tap(f"x{place}", part) if differentiable(part) else part
                        for place, part in enumerate(pytree.tree_leaves(x))
                    ]
                    score = f(spec.unflatten(tapped), *args)
                    batch[:] = [_dims(score)]
                    return score

                return marked

            found = iter(method(inherit(f, marking), names, batch, parts, **options)(x, *data))
            return spec.unflatten([next(found) if differentiable(p) else None for p in parts])

        return attribute

    return factory


def ablated(
    f: Score, names: list[str], batch: list[int], parts: list[Tensor], **options: Any
) -> Attribute:
    """Ablation-CAM of leaves with one channel."""
    return attrib.ablation_cam(f, names, reshape=lambda h: h.unsqueeze(batch[0]), **options)


def guided(
    f: Score, names: list[str], batch: list[int], parts: list[Tensor], **options: Any
) -> Attribute:
    """Guided Grad-CAM of leaves with one channel, each in the light of its own map."""
    method = attrib.guided_grad_cam(f, names, reshape=lambda h: h.unsqueeze(batch[0]), **options)

    def attribute(x: Tree, *args: Any) -> list[Tensor]:
        floating = [place for place, part in enumerate(parts) if differentiable(part)]
        found = map(pytree.tree_leaves, method(x, *args))
        return [own[place] for place, own in zip(floating, found, strict=True)]

    return attribute


def effects(
    f: Score, names: list[str], batch: list[int], parts: list[Tensor], **options: Any
) -> Attribute:
    """What every entry of every leaf does to the score, patched alone."""

    def attribute(x: Tree, baseline: Any = 0, *args: Any) -> list[Tensor]:
        dims = f(copied(x), *copied(args)).ndim
        floating = [part for part in parts if differentiable(part)]
        found: list[Tensor] = []
        for name, part in zip(names, floating, strict=True):
            places = tuple(range(dims, part.ndim))
            found.append(activation_patching(f, name, dims=places, **options)(x, baseline, *args))
        return found

    return attribute


def _dims(score: Any) -> int:
    """Of the batch; what is no tensor is for attrib to refuse."""
    return score.ndim if isinstance(score, Tensor) else 0


def _floating(function: Callable[[Tensor], Tensor], x: Tree) -> Tree:
    return pytree.tree_map(lambda leaf: function(leaf) if differentiable(leaf) else leaf, x)


# --- all features in a row ------------------------------------------------------------------------

Change = Callable[[Tensor, Tensor], Tensor]
"""``change(rows, score)``, what stands in the place of rows ``(*batch, features)``."""


def of_all_features(method: Callable[..., Attribute], *, takes: int = 0) -> Factory:
    """A method of what is made of all features in one row, of which each gets a number.

    Args:
        method: ``method(with_change, count)``, where ``with_change(change)`` is the score of
            changed rows, and `count` is how many features there are.
        takes: How much the method is called with between x and the arguments of the score.
    """

    def factory(f: Score, **options: Any) -> Attribute:
        def attribute(x: Tree, *data: Any) -> Tree:
            parts, spec = pytree.tree_flatten(x)
            floating = [place for place, part in enumerate(parts) if differentiable(part)]

            def with_change(change: Change) -> Score:
                def changing(f: Score) -> Score:
                    def changed(x: Tree, *args: Any) -> Tensor:
                        own, score = list(pytree.tree_leaves(x)), f(copied(x), *copied(args))
                        rows = torch.cat([features(own[p], score.ndim) for p in floating], -1)
                        new = _split(change(rows, score), [own[p] for p in floating], score.ndim)
                        return f(spec.unflatten(_put(own, floating, new)), *args)

                    return changed

                return inherit(f, changing)

            dims, leaves = (
                f(copied(x), *copied(data[takes:])).ndim,
                [parts[place] for place in floating],
            )
            count = sum(leaf.shape[dims:].numel() for leaf in leaves)
            found = method(with_change, count, **options)(x, *data)
            nothing: list[Any] = [None] * len(parts)
            return spec.unflatten(_put(nothing, floating, _split(found, leaves, dims)))

        return attribute

    return factory


def rollout(with_change: Callable[[Change], Score], count: int, **options: Any) -> Attribute:
    """What all features take from each of them, as far as their attention is as the score says."""

    def attending(rows: Tensor, score: Tensor) -> Tensor:
        return _attended(rows, score.tanh()[..., None, None, None])

    own = torch.eye(count, device="cpu")
    f = with_change(attending)
    rolled = attention_rollout(f, **{"head_fusion": _only(own), **options})

    def attribute(x: Tree, *args: Any) -> Tensor:
        # A function is called as a model is, with the parts of a tree.
        whole = isinstance(f, Batched) or isinstance(x, Tensor)
        return rolled(x if whole else [x], *args).mean(-2)

    return attribute


def weighted_rollout(
    with_change: Callable[[Change], Score], count: int, **options: Any
) -> Attribute:
    """The same by the gradients of the score, without what a feature is to itself."""

    def attending(rows: Tensor, score: Tensor) -> Tensor:
        return _attended(rows, torch.ones_like(score)[..., None, None, None])

    own = torch.eye(count, device="cpu")
    rolled = gradient_rollout(with_change(attending), **{"head_fusion": _only(0 * own), **options})
    return lambda x, *args: rolled(x, *args).masked_fill(own.bool(), 0).mean(-2)


def edges(with_change: Callable[[Change], Score], count: int, **options: Any) -> Attribute:
    """Every feature is a source of its own, and their sum the only destination."""

    def summed(rows: Tensor, score: Tensor) -> Tensor:
        alone = torch.eye(count, dtype=rows.dtype, device=rows.device)
        parts = [attrib.tap(f"feature {n}", rows * alone[n]) for n in range(count)]
        return attrib.tap("sum", torch.stack(parts).sum(0))

    names = [f"feature {n}" for n in range(count)]
    method = edge_attribution_patching(with_change(summed), names, "sum", **options)
    return lambda x, baseline=0, *args: method(x, baseline, *args)[..., 0]


def _attended(rows: Tensor, temperature: Tensor) -> Tensor:
    tokens = rows.unsqueeze(-2).unsqueeze(-1)
    weights = (temperature * tokens @ tokens.mT).softmax(-1)
    return rows + (weights @ tokens).squeeze(-1).squeeze(-2)


def _only(neutral: Tensor) -> Callable[[Tensor], Tensor]:
    """The attention among all features, without any that the network has itself."""

    def fused(weights: Tensor) -> Tensor:
        if weights.shape[-1] == len(neutral):
            return weights.squeeze(-3)
        shape = *weights.shape[:-2], *neutral.shape
        return neutral.to(weights.dtype).expand(shape)

    return fused


def _split(rows: Tensor, like: list[Tensor], dims: int) -> list[Tensor]:
    parts = rows.split([leaf.shape[dims:].numel() for leaf in like], -1)
    # Copies: a model may write to what it is given.
    return [part.clone().reshape(leaf.shape) for part, leaf in zip(parts, like, strict=True)]


def _put(parts: list[Any], places: list[int], new: list[Tensor]) -> list[Any]:
    for place, part in zip(places, new, strict=True):
        parts[place] = part
    return parts
