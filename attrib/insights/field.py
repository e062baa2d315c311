"""One entry of a form, and what forms depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

from attrib.insights.features import Feature

__all__ = ["BOUNDS", "Field", "Range", "Setting", "integer", "number", "offered"]


class Range(NamedTuple):
    """The bounds of an option: ``steps: Annotated[int, Range(2, 500)] = 50``."""

    least: float
    most: float


class Field(NamedTuple):
    """One entry of a form, as the front end sees it."""

    name: str
    type: Literal["integer", "number", "boolean", "choice", "integers", "text"]
    default: Any
    title: str = ""
    optional: bool = False
    empty: str | None = None
    min: float | None = None
    max: float | None = None
    step: float | None = None
    choices: Sequence[Mapping[str, Any]] | None = None
    by_model: Mapping[str, Any] | None = None  # defaults that depend on the model
    sites: bool = False  # the choices are the modules of the model
    hint: str | None = None
    advanced: bool = False


class Setting(NamedTuple):
    """What forms depend on besides signatures: features, a sample of each, modules by model."""

    features: Mapping[str, Feature]
    leaves: Sequence[Tensor]
    models: Mapping[str, Any]


BOUNDS = {
    "steps": Range(1, 1000),
    "samples": Range(1, 10_000),
    "references": Range(1, 256),
    "chunk_size": Range(1, 100_000),
    "seed": Range(0, 2**31 - 1),
    "order": Range(1, 2),
    "alpha": Range(0, 1e6),
    "amount": Range(0, 1e6),
    "fraction": Range(0.001, 1),
    "max_distance": Range(0, 1),
    "max_sigma": Range(0.01, 1000),
    "probability": Range(0.01, 0.99),
    "residual": Range(0, 1),
    "std": Range(0, 1e6),
    "tol": Range(1e-9, 1e6),
}
"""The bounds of options, wherever they occur."""


def integer(
    name: str, default: int | None, bounds: Range | None = None, optional: bool = False
) -> Field:
    """A whole number."""
    least, most = bounds or BOUNDS.get(name, Range(-(2**31), 2**31))
    return Field(name, "integer", default, min=least, max=most, step=1, optional=optional)


def number(
    name: str, default: float | None, bounds: Range | None = None, optional: bool = False
) -> Field:
    """A number."""
    least, most = bounds or BOUNDS.get(name, Range(-1e9, 1e9))
    return Field(name, "number", default, min=least, max=most, optional=optional)


def offered(values: Sequence[Any], titles: Mapping[Any, str] | None = None) -> list[Any]:
    """What a list offers: values, and what they are called."""
    named = {None: "none", **(titles or {})}
    return [
        {"value": value, "title": named.get(value, str(value).replace("_", " "))}
        for value in values
    ]
