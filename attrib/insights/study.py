"""What is to be explained: models, data, and how each input is shown. A pure description."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attrib._checks import check_callable, check_count, describe
from attrib.errors import AttribTypeError, AttribValueError
from attrib.insights.features import Feature

__all__ = ["Sample", "Study", "device_of", "inputs_of", "sample_of"]

LISTED = 10_000  # samples that are taken from an iterable without a length


class Sample(NamedTuple):
    """One example, without batch dimension.

    Attributes:
        leaves: The input of each feature.
        args: What the model takes further, such as an attention mask.
        label: A class, a number, or nothing.
    """

    leaves: tuple[Tensor, ...]
    args: tuple[Any, ...]
    label: int | float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """Models and data to look into, see `attrib.insights.serve`.

    Args:
        models: A model, or several by name: functions of a batch of inputs, ``model(*inputs)``,
            one input per feature and then whatever else a sample holds. Modules are expected in
            eval mode.
        data: A sequence of ``(inputs, label)``, read when it is needed; of an iterable without a
            length the first 10,000. Inputs are a tensor or a tuple of tensors without batch
            dimension, labels a class, a number or ``None``.
        features: How each input is shown, by name, in the order of the inputs: `image`, `text`,
            `tabular`, `timeseries`, `array`.
        classes: Names of the classes; two of them for a model with a single logit, which speaks for
            the second. ``None`` for models that predict a number, or for classes without names.
        methods: ``None`` for all that fit; names of some; or functions by name, ``{"mine": fn}``,
            called as ``fn(f, ...)(x, ...)`` like those of attrib, with a form made from their
            signature. ``{**insights.methods(), "mine": fn}`` has both.
        baselines: For some features, what stands for absence: a number, a tensor or a function of
            the input, or several by name, ``{"photo": {"black": 0.0, "blurred": blur}}``.
        score: From outputs to what is shown as a probability. ``None``: softmax, or a sigmoid for a
            single logit.
        output: Where a model that returns a structure keeps its output, as for `attrib.target`.
        n_top: How many classes are offered for each sample.
        name: The title of the page.
        names: Names of the samples, such as file names.

    Raises:
        AttribTypeError: If a model is not a function, or the data are no samples.
        AttribValueError: If features and inputs do not fit, or names are wrong.

    Example:
        >>> import torch
        >>> from attrib import insights
        >>> study = insights.Study(
        ...     models=torch.nn.Linear(2, 3),
        ...     data=[(torch.tensor([1.0, 2.0]), 0)],
        ...     features={"row": insights.tabular(["width", "height"])},
        ... )
        >>> list(study.models), len(study.data)
        (['model'], 1)
    """

    models: Any
    data: Any
    features: Mapping[str, Feature]
    classes: Sequence[str] | None = None
    methods: Mapping[str, Any] | Iterable[str] | None = None
    baselines: Mapping[str, Any] = field(default_factory=dict[str, Any])
    score: Callable[[Tensor], Tensor] | None = None
    output: Any = None
    n_top: int = 5
    name: str = "attrib insights"
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        given: Any = self.models
        models: dict[str, Any] = {**given} if isinstance(given, Mapping) else {"model": given}
        if not models:
            raise AttribValueError("models: must name at least one, got none", code="models.empty")
        for name, model in models.items():
            check_callable(model, f"models[{name!r}]", "pass a module or a function")
        check_count(self.n_top, "n_top")
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "data", _sequence(self.data))
        object.__setattr__(self, "features", dict(self.features))
        _check_features(self.features, self.baselines)
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if self.score is not None:
            check_callable(self.score, "score", "pass e.g. lambda output: output.softmax(-1)")
        if len(self.data):
            sample_of(self, 0)


def sample_of(study: Study, index: int) -> Sample:
    """One example of the data.

    Raises:
        AttribTypeError: If it is not made of tensors.
        AttribValueError: If it does not fit the features.
    """
    item: Any = study.data[index]
    labelled, parts = inputs_of(item)
    label: Any = item[1] if labelled else None
    count = len(study.features)
    if len(parts) < count:
        raise AttribValueError(
            f"data: sample {index} must have an input for each of {count} features, got "
            f"{describe(tuple(parts))}; give (inputs, label), with a tuple of inputs",
            code="data.inputs",
        )
    leaves = [_tensor(part, index) for part in parts[:count]]
    for leaf, (name, feature) in zip(leaves, study.features.items(), strict=True):
        feature.check(leaf, name)
    return Sample(tuple(leaves), tuple(parts[count:]), _label(label, index))


def inputs_of(item: Any) -> tuple[bool, list[Any]]:
    """Whether an entry of the data has a label, and the inputs in it."""
    labelled = isinstance(item, (tuple, list)) and len(item) == 2  # pyright: ignore[reportUnknownArgumentType]
    inputs: Any = item[0] if labelled else item  # pyright: ignore[reportUnknownVariableType]
    return labelled, [*inputs] if isinstance(inputs, tuple) else [inputs]  # pyright: ignore[reportUnknownVariableType]


def device_of(model: Any) -> torch.device | None:
    """Where a module has its parameters."""
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return None


def _sequence(data: Any) -> Any:
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return data
    if not isinstance(data, Iterable):
        raise AttribTypeError(
            f"data: must be a sequence of (inputs, label), got {type(data).__name__}",
            code="data.type",
        )
    return list(islice(data, LISTED))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _check_features(features: Mapping[str, Any], baselines: Mapping[str, Any]) -> None:
    strangers = set(baselines) - set(features)
    if not features or strangers:
        raise AttribValueError(
            "features: must name every input, and every baseline must belong to one, got "
            f"{len(features)} features and baselines of {sorted(strangers)}",
            code="features.names",
        )
    for name, feature in features.items():
        if not hasattr(feature, "view"):
            raise AttribTypeError(
                f"features[{name!r}]: must be a feature, got {type(feature).__name__}; use "
                "insights.image(), text(), tabular(), timeseries() or array()",
                code="features.type",
            )


def _tensor(value: Any, index: int) -> Tensor:
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AttribTypeError(
            f"data: inputs of sample {index} must be tensors, got {type(value).__name__}",
            code="data.type",
        ) from error
    if found.is_complex():
        raise AttribTypeError(
            f"data: inputs of sample {index} must be real, got {found.dtype}", code="data.dtype"
        )
    # Numbers of Python and numpy are in double precision, which few models are.
    plain = not isinstance(value, Tensor) and found.dtype == torch.float64
    return found.to(torch.get_default_dtype()) if plain else found.detach()


def _label(label: Any, index: int) -> int | float | None:
    if isinstance(label, Tensor) and label.numel() == 1:
        label = label.item()
    if label is None or isinstance(label, (int, float)):
        return label
    found: Any = getattr(label, "item", lambda: None)()
    if isinstance(found, (int, float)):
        return found
    raise AttribTypeError(
        f"data: the label of sample {index} must be a class, a number or None, got "
        f"{type(label).__name__}",
        code="data.label",
    )
