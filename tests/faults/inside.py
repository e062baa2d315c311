"""How maps and patches of a problem are made: at the site of the options, or at all of x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib
from attrib._batched import inherit
from attrib._taps import mark
from attrib._tree import differentiable
from attrib.patching import activation_patching
from laws import sites

Make = Callable[..., Any]
"""A method of a score and a site."""

Run = Callable[..., Any]
"""``run(f, x, lead, args, options)``, the answer; `lead` comes before the further arguments."""


def channel(method: Make) -> Run:
    """A map of x as the only channel of a layer, in the structure of x."""

    def run(f: Any, x: Any, lead: list[Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        site = options.pop("site", None)
        if site is not None:
            return method(f, site, **{"reshape": _one_channel, **options})(x, *lead, *args)
        found = sites.of_one_channel(method)(f, **options)(x, *lead, *args)
        return found if type(found) is type(x) else put_back(found, x)

    return run


def _one_channel(h: Tensor) -> Tensor:
    return h.unsqueeze(1)


def put_back(found: Tensor, x: Any) -> Any:
    """The map of the only tensor of a tree, in the tree: it passes a site as that tensor."""
    return pytree.tree_map(lambda leaf: found if isinstance(leaf, Tensor) else None, x)


def principal(f: Any, x: Any, lead: list[Any], args: tuple[Any, ...], options: Any) -> Any:
    """Eigen-CAM of a layer of two channels that are made of x and the score."""
    site = options.pop("site", None)
    if site is not None:
        return attrib.eigen_cam(f, site, **{"reshape": _one_channel, **options})(x, *args)
    found = sites.of_two_channels(attrib.eigen_cam)(f, **options)(x, *args)
    return found if type(found) is type(x) else put_back(found, x)


def each_leaf(method: Make) -> Run:
    """A method of one tensor, at every leaf of x that has numbers to explain."""

    def run(f: Any, x: Any, lead: list[Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        site = options.pop("site", None)
        if site is not None:
            return method(f, site, **options)(x, *args)
        places = [n for n, leaf in enumerate(pytree.tree_leaves(x)) if differentiable(leaf)]
        if not places:
            return method(inherit(f, _marking), "x", **options)(x, *args)

        def tapping(f: Any) -> Any:
            def tapped(x: Any, *args: Any) -> Any:
                own, spec = pytree.tree_flatten(x)
                for place in places:
                    own[place] = attrib.tap(f"x{place}", own[place])
                return f(spec.unflatten(own), *args)

            return tapped

        names = [f"x{place}" for place in places]
        found = method(inherit(f, tapping), names, **options)(x, *args)
        _, spec = pytree.tree_flatten(x)
        answers = dict(zip(places, found, strict=True))
        return spec.unflatten([answers.get(place) for place in range(spec.num_leaves)])

    return run


def _marking(f: Any) -> Any:
    return lambda x, *args: f(mark("x", x), *args)


def ablated(f: Any, site: Any, **options: Any) -> Any:
    """Ablation-CAM of what has one channel."""
    return attrib.ablation_cam(f, site, **{"reshape": _one_channel, **options})


def effects(f: Any, site: Any, **options: Any) -> Any:
    """Patches from a run in which everything is a quarter, one entry of a vector at a time."""
    attribute = activation_patching(f, site, dims=1, **options)
    return lambda x, *args: attribute(x, quarter(x), *args)


def guided(f: Any, x: Any, lead: list[Any], args: tuple[Any, ...], options: Any) -> Any:
    """Guided Grad-CAM, of every leaf in the light of its own map."""
    site = options.pop("site", None)
    if site is not None:
        options = {"reshape": _one_channel, **options}
        return attrib.guided_grad_cam(f, site, **options)(x, *args)
    found = sites.of_one_channel(attrib.guided_grad_cam)(f, **options)(x, *args)
    leaves, spec = pytree.tree_flatten(x)
    if pytree.tree_structure(found) == spec:
        return found  # in the light of the only map
    several = iter(spec.flatten_up_to(found))
    own = [None if part is None else pytree.tree_leaves(part)[n] for n, part in enumerate(several)]
    assert len(own) == len(leaves)
    return spec.unflatten(own)


def all_features(method: Callable[..., Any], *, patched: bool = False) -> Run:
    """A method of all features in one row, see `laws.sites.of_all_features`."""

    def run(f: Any, x: Any, lead: list[Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        # Options are looked at before the score, and what is no row is for attrib to refuse.
        plain = method(lambda change: f, 1, **options)
        data = [quarter(x)] if patched else []
        if not _is_row(x):
            return plain(x, *data, *args)
        return sites.of_all_features(method, takes=len(data))(f, **options)(x, *data, *args)

    return run


def quarter(x: Any) -> Any:
    """The same input with a quarter everywhere, but for integers."""

    def other(leaf: Any) -> Any:
        dense = differentiable(leaf) and leaf.layout == torch.strided
        return torch.full_like(leaf, 0.25) if dense else leaf

    return pytree.tree_map(other, x)


def _is_row(x: Any) -> bool:
    leaves = [leaf for leaf in pytree.tree_leaves(x) if leaf is not None]
    dense = [isinstance(leaf, Tensor) and leaf.layout == torch.strided for leaf in leaves]
    return all(dense) and any(map(differentiable, leaves)) and not any(map(_is_complex, leaves))


def _is_complex(leaf: Tensor) -> bool:
    return leaf.is_complex()
