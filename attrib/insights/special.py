"""The entries of a form for options that are no plain numbers and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from attrib import reducers, rules
from attrib.insights.field import Field, Setting, integer, number, offered
from attrib.insights.registry import BASES, WITH_BASELINE, Method
from attrib.insights.sites import layers_of, sites_of

__all__ = ["COMPOSITES", "REDUCERS", "SPECIAL"]

MANY, FEW = 256, 12  # groups by default: for methods that sample, and that enumerate


REDUCERS = {
    "mean": reducers.mean,
    "total": reducers.total,
    "variance": reducers.variance,
    "second_moment": reducers.second_moment,
    "maximum": reducers.maximum,
    "minimum": reducers.minimum,
    "estimate": reducers.estimate,
}

COMPOSITES: dict[str, Callable[[], Any]] = {
    "epsilon": rules.epsilon,
    "epsilon_plus": rules.epsilon_plus,
    "epsilon_plus_flat": rules.epsilon_plus_flat,
    "epsilon_alpha2_beta1": rules.epsilon_alpha2_beta1,
    "epsilon_alpha2_beta1_flat": rules.epsilon_alpha2_beta1_flat,
    "gamma": rules.gamma,
    "z_plus": rules.z_plus,
    "attn_lrp": rules.attn_lrp,
    "cp_lrp": rules.cp_lrp,
}

Maker = Callable[[str, Setting, Method, Any], list[Field]]


def _chunk_size(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    return [integer(name, None, optional=True)]


def _seed(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    return [integer("seed", 0)]


def _reducer(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    own = next((word for word, reducer in REDUCERS.items() if reducer is default), "mean")
    titles = {"estimate": "mean, with standard errors"}
    return [Field(name, "choice", own, choices=offered(list(REDUCERS), titles))]


def _grouping(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    """One field per feature: what counts as one."""
    found: list[Field] = []
    few = ("shapley_values", "interactions", "owen_values", "banzhaf_values")
    most = MANY if method.name not in few else max(1, FEW // len(setting.features))
    for (feature, kind), leaf in zip(setting.features.items(), setting.leaves, strict=True):
        groupings = kind.groupings()
        if kind.embed is not None:
            groupings.pop("entry", None)
        words = list(groupings)
        fitting = (word for word in words if int(groupings[word](leaf).max()) < most)
        chosen = words[-1] if name == "unions" else next(fitting, words[-1])
        found.append(Field(f"{name}.{feature}", "choice", chosen, choices=offered(words)))
    return found


def _window(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    found: list[Field] = []
    for (feature, kind), leaf in zip(setting.features.items(), setting.leaves, strict=True):
        box = kind.window(leaf)
        value = box if name == "window" else [max(1, length // 2) for length in box]
        shape = " × ".join(map(str, leaf.shape[-len(box) :]))
        hint = f"{len(box)} numbers, for the last dimensions of {shape}"
        found.append(Field(f"{name}.{feature}", "integers", value, min=1, max=1e6, hint=hint))
    return found


def _site(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    optional = default is None
    own = {
        model: None if optional else _usual(function, sites_of(function), name == "sources")
        for model, function in setting.models.items()
    }
    first = next(iter(own.values()), None)
    return [Field(name, "choice", first, by_model=own, sites=True, optional=optional)]


def _usual(model: Any, names: Sequence[str], before: bool) -> str | None:
    """The last convolution, or the last layer but one; or what stands before the convolution."""
    layers = layers_of(model)
    if not layers:
        return names[0] if names else None
    modules = dict(model.named_modules())
    maps = [name for name in layers if isinstance(modules[name], (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    if maps:
        return layers[max(0, layers.index(maps[-1]) - before)]
    return layers[-2 if len(layers) > 1 else -1]


def _base_method(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    # Averaged over baselines are methods that take one.
    words = WITH_BASELINE if method.name == "expected" else BASES
    return [Field(name, "choice", words[0], choices=offered(words))]


def _words_of(*words: str | None, titles: Mapping[Any, str] | None = None) -> Maker:
    def make(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
        return [Field(name, "choice", words[0], choices=offered(words, titles))]

    return make


def _perturb(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    kinds = Field(name, "choice", "gaussian", choices=offered(["gaussian", "uniform"]))
    return [kinds, number("amount", 0.1)]


def _interventional(name: str, setting: Setting, method: Method, default: Any) -> list[Field]:
    return [Field(name, "boolean", False, advanced=True)]


SPECIAL: dict[str, Maker] = {
    "chunk_size": _chunk_size,
    "generator": _seed,
    "reduce": _reducer,
    "groups": _grouping,
    "unions": _grouping,
    "window": _window,
    "strides": _window,
    "site": _site,
    "sites": _site,
    "sources": _site,
    "destinations": _site,
    "along": _site,
    "path": _words_of(None, "blur", titles={None: "straight"}),
    "composite": _words_of(None, *COMPOSITES, titles={None: "default"}),
    "similarity": _words_of(None, "cosine", "euclidean", titles={None: "default"}),
    "reshape": _words_of(None, "tokens", titles={"tokens": "tokens behind the first, as a square"}),
    "attribute": _base_method,
    "method": _base_method,
    "perturb": _perturb,
    "interventional": _interventional,
}
"""What makes the entries of an option, by its name."""
