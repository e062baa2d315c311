"""From the entries of a form to a call of the library: options, groups, baselines."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib import games, perturb
from attrib.blur import blur_path
from attrib.insights.field import Setting
from attrib.insights.forms import NOT_IN_FORMS
from attrib.insights.plain import distinct, is_list
from attrib.insights.protocol import Failure
from attrib.insights.registry import METHODS, Method, options_of
from attrib.insights.special import COMPOSITES, REDUCERS
from attrib.layers import activation
from attrib.types import Attribute, Score, Tree

__all__ = ["Place", "bound", "ids_of", "joined", "players_of"]


class Place(NamedTuple):
    """Where a method is applied.

    Attributes:
        setting: The features, and the inputs of the sample, without batch dimension.
        x: What the score takes, ``(1, ...)`` for every feature; embeddings in place of ids.
        model: The model, to find its modules by name.
        f: The score.
        args: What it takes further.
    """

    setting: Setting
    x: tuple[Tensor, ...]
    model: Any = None
    f: Any = None
    args: tuple[Any, ...] = ()


def joined(parts: Sequence[Any]) -> Tree:
    """What a score takes: the only input, or a tuple of them."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def bound(method: Method, args: Mapping[str, Any], place: Place) -> Callable[[Score], Attribute]:
    """The method with its options, as a function of a score."""
    options = {
        name: _option(name, parameter, args, place)
        for name, parameter in options_of(method).items()
        if name not in NOT_IN_FORMS
    }
    parameters = list(inspect.signature(method.make).parameters)
    if parameters[0] == "attribute":
        base = options.pop("attribute")
        return lambda f: method.make(base(f), **options)
    if parameters[0] == "method":
        base = options.pop("method")
        return lambda f: method.make(base, f, **options)
    return lambda f: method.make(f, **options)


def _option(name: str, parameter: inspect.Parameter, args: Mapping[str, Any], place: Place) -> Any:
    """What the library takes for one option."""
    make = _MADE.get(name)
    if make is not None:
        return make(args, place, parameter.default)
    if name not in args:
        return parameter.default
    value = args[name]
    if name == "index" and is_list(value):
        return _neuron(value, args, place)
    return tuple(value) if is_list(value) else value


def _chunk_size(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    return default if args["chunk_size"] is None else args["chunk_size"]


def _generator(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    return torch.Generator(place.x[0].device).manual_seed(args["seed"])


def _reduce(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    return REDUCERS[args["reduce"]]


def _path(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    return default if args["path"] is None else blur_path(50.0)


def _composite(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    return default if args["composite"] is None else COMPOSITES[args["composite"]]()


def _similarity(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    distance: Any = args["similarity"]
    return default if distance is None else games.exponential_kernel(distance=distance)


def _reshape(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    return default if args["reshape"] is None else _square


def _square(h: Tensor) -> Tensor:
    """Tokens ``(batch, tokens, channels)`` as a square of feature maps, without those before it."""
    side = math.isqrt(h.shape[1])
    tokens = h[:, h.shape[1] - side * side :]
    return tokens.transpose(1, 2).reshape(h.shape[0], h.shape[2], side, side)


def _neuron(index: list[int], args: Mapping[str, Any], place: Place) -> Any:
    """A neuron by its place in every dimension, or by its number among all."""
    if len(index) > 1:
        return tuple(index)
    site = _site("site")(args, place, None)
    h = activation(place.f, site)(joined(place.x), *place.args)
    count = h[0].numel()
    if not 0 <= index[0] < count:
        raise Failure("field", f"index: the layer has {count} neurons", field="index")
    return tuple(int(part) for part in torch.unravel_index(torch.tensor(index[0]), h.shape[1:]))


def _site(name: str) -> Callable[..., Any]:
    def made(args: Mapping[str, Any], place: Place, default: Any) -> Any:
        # The module itself: a score of embeddings does not know the names.
        found = args[name]
        return default if found is None else dict(place.model.named_modules())[found]

    return made


def _base(name: str) -> Callable[..., Any]:
    def made(args: Mapping[str, Any], place: Place, default: Any) -> Any:
        return METHODS[args[name]].make

    return made


def _perturbation(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    kind = {"gaussian": perturb.gaussian, "uniform": perturb.uniform}[args["perturb"]]
    return kind(args["amount"])


def _groups(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    return joined(ids_of("groups", args, place))


def _unions(args: Mapping[str, Any], place: Place, default: Any) -> Any:
    """The union of every feature: that of its first entry."""
    fine, coarse = (
        torch.cat([ids.expand(leaf.shape).flatten() for ids, leaf in _pairs(name, args, place)])
        for name in ("groups", "unions")
    )
    kept = fine >= 0
    order, inverse, _ = distinct(fine[kept])
    found = torch.zeros(len(order), dtype=torch.long, device=fine.device)
    return found.scatter(0, inverse, coarse[kept])


def _pairs(name: str, args: Mapping[str, Any], place: Place) -> Any:
    return zip(ids_of(name, args, place), place.x, strict=True)


def ids_of(name: str, args: Mapping[str, Any], place: Place) -> list[Tensor]:
    """Which entries of each input are one feature; ids that no two inputs share."""
    found: list[Tensor] = []
    offset = 0
    for (feature, kind), leaf, x in zip(
        place.setting.features.items(), place.setting.leaves, place.x, strict=True
    ):
        ids = kind.groupings()[args[f"{name}.{feature}"]](leaf).to(x.device)
        # An embedding has further dimensions, which belong to the token.
        ids = ids.reshape(*ids.shape, *(1,) * (x.ndim - 1 - leaf.ndim))
        found.append(torch.where(ids < 0, ids, ids + offset))
        offset = max(offset, int(found[-1].max()) + 1)
    return found


def _windows(name: str) -> Callable[..., Any]:
    def made(args: Mapping[str, Any], place: Place, default: Any) -> Any:
        boxes = [
            # Of an embedding, the window spans all numbers.
            (*args[f"{name}.{feature}"], *x.shape[1 + leaf.ndim :])
            for feature, leaf, x in zip(
                place.setting.features, place.setting.leaves, place.x, strict=True
            )
        ]
        return joined(boxes)

    return made


_MADE: dict[str, Callable[[Mapping[str, Any], Place, Any], Any]] = {
    "along": _site("along"),
    "attribute": _base("attribute"),
    "chunk_size": _chunk_size,
    "composite": _composite,
    "destinations": _site("destinations"),
    "generator": _generator,
    "groups": _groups,
    "method": _base("method"),
    "path": _path,
    "perturb": _perturbation,
    "reduce": _reduce,
    "reshape": _reshape,
    "similarity": _similarity,
    "site": _site("site"),
    "sites": _site("sites"),
    "sources": _site("sources"),
    "strides": _windows("strides"),
    "unions": _unions,
    "window": _windows("window"),
}


def players_of(args: Mapping[str, Any], place: Place) -> int:
    """How many features there are to hide."""
    names = list(place.setting.features)
    if f"groups.{names[0]}" in args:
        return sum(len(distinct(ids[ids >= 0])[0]) for ids in ids_of("groups", args, place))
    if f"window.{names[0]}" in args:
        return sum(_boxes(args, *pair) for pair in zip(names, place.setting.leaves, strict=True))
    return sum(leaf.numel() for leaf in place.setting.leaves)


def _boxes(args: Mapping[str, Any], feature: str, leaf: Tensor) -> int:
    window, strides = args[f"window.{feature}"], args[f"strides.{feature}"]
    if len(window) > leaf.ndim or len(strides) != len(window):
        return 1  # the library says what is wrong
    lengths = leaf.shape[leaf.ndim - len(window) :]
    places = [
        max(1, -(-(length - size) // stride) + 1)
        for length, size, stride in zip(lengths, window, strides, strict=True)
    ]
    return math.prod(places)
