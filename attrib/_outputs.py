"""Calling a model, finding its output tensor, and selecting one number per example from it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from attrib._taps import tapping
from attrib._transforms import compiling, concrete, numbers
from attrib._tree import leaves, tree_map
from attrib.errors import AttribTypeError, AttribValueError
from attrib.types import Tree

__all__ = [
    "Caller",
    "Index",
    "Output",
    "check_index",
    "check_integer",
    "check_mode",
    "in_some_layout",
    "insists_on_layout",
    "moody_modules",
    "read_output",
    "select",
    "wants_channels_last",
    "with_channels_last",
]

Index: TypeAlias = int | tuple[int, ...] | Tensor | Callable[[Any], Tensor] | None
Output: TypeAlias = str | int | Callable[[Any], Tensor] | None

_Result = TypeVar("_Result")


class Caller:
    """Calls a model on a tree: a tensor as it is, a sequence by position, a dict by keyword.

    Two-dimensional convolutions are up to twice as fast on CPUs (measured) with the channels last
    in memory, so a module that has some gets its images in that layout. A model that insists on
    another one, by ``view``, is called once more and from then on without it: here, or by whoever
    is told what passes taps and must forget the first call.

    Args:
        model: The model.
        call: What is called in its place; a single call may name something else.
    """

    def __init__(self, model: Callable[..., Any], call: Callable[..., Any] | None = None) -> None:
        self._model = call or model
        self._channels_last = isinstance(model, nn.Module) and wants_channels_last(model)

    def __call__(
        self, x: Tree, args: tuple[Any, ...], instead: Callable[..., Any] | None = None
    ) -> Any:
        model = instead or self._model
        if not (self._channels_last and any(_is_image(leaf) for leaf in leaves(x))):
            return _call(model, x, args)
        try:
            return _call(model, tree_map(with_channels_last, x), args)
        except RuntimeError as error:
            if not insists_on_layout(error):
                raise
            self._channels_last = False
            if tapping():
                raise
            return _call(model, x, args)


def _call(model: Callable[..., Any], x: Tree, args: tuple[Any, ...]) -> Any:
    if isinstance(x, dict):
        return model(*args, **x)
    if isinstance(x, (tuple, list)):
        return model(*x, *args)
    return model(x, *args)


def in_some_layout(run: Callable[[], _Result], models: int = 1) -> _Result:
    """Call something that is told what passes taps, once more for each model whose images were not
    laid out as it insists."""
    for _ in range(max(1, models)):
        try:
            return run()
        except RuntimeError as error:
            if tapping() or not insists_on_layout(error):
                raise
    return run()


def wants_channels_last(model: nn.Module) -> bool:
    """Whether a model has two-dimensional convolutions."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def insists_on_layout(error: Exception) -> bool:
    """Whether a model was not pleased with the memory layout of its images."""
    return "view size is not compatible" in str(error)


def _is_image(leaf: Any) -> bool:
    return (
        isinstance(leaf, Tensor) and leaf.ndim == 4 and leaf.is_floating_point() and concrete(leaf)
    )


def with_channels_last(leaf: Tensor) -> Tensor:
    """An image with its channels last in memory; anything else as it is."""
    return leaf.contiguous(memory_format=torch.channels_last) if _is_image(leaf) else leaf


def read_output(result: Any, output: Output) -> Tensor:
    """The tensor of outputs in whatever the model returned."""
    found: Any = _only_tensor(result)
    if callable(output):
        found = output(result)
    elif isinstance(output, str):
        named = _named(result)
        if output not in named:
            raise AttribValueError(
                f"output: the model's result has no {output!r}, got {_listing(result)}",
                code="output.unknown",
            )
        found = named[output]
    elif output is not None:
        values = _values(result)
        if not -len(values) <= output < len(values):
            raise AttribValueError(
                f"output: position {output} is out of range, got {_listing(result)}",
                code="output.unknown",
            )
        found = values[output]
    if not isinstance(found, Tensor):
        raise AttribTypeError(
            f"model: its output must be a tensor, got {_listing(found)}; say where it is with "
            "output=, a key, a position or a function",
            code="model.output",
        )
    if not found.is_floating_point():
        raise AttribTypeError(
            f"model: its output must be real numbers, got {found.dtype}; explain a logit or a "
            "probability instead of a decision",
            code="model.output_dtype",
        )
    return found


def _only_tensor(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result
    named = _named(result)
    if "logits" in named:
        return named["logits"]
    tensors = [value for value in _values(result) if isinstance(value, Tensor)]
    return tensors[0] if len(tensors) == 1 else result


def _values(result: Any) -> list[Any]:
    named = _named(result)
    if named:
        return list(named.values())
    parts: Any = result
    return list(parts) if isinstance(result, (tuple, list)) else []


def _named(result: Any) -> dict[str, Any]:
    """The parts of a dict, a dataclass, a Hugging Face ``ModelOutput`` or a named tuple."""
    parts: Any = result
    if isinstance(result, Mapping):
        return dict(parts)
    if is_dataclass(result) and not isinstance(result, type):
        return {field.name: getattr(result, field.name) for field in fields(result)}
    as_dict: Any = getattr(result, "_asdict", None)
    return as_dict() if isinstance(result, tuple) and as_dict is not None else {}


def _listing(result: Any) -> str:
    named = _named(result)
    kind = str(type(result).__name__)
    if named:
        return f"{kind} with {', '.join(named)}"
    values = _values(result)
    return f"{kind} of {len(values)}" if values else kind


def check_index(index: Any) -> Any:
    path: Any = index
    if isinstance(index, tuple):
        return tuple(check_integer(i, "index") for i in path)
    if index is None or callable(index):
        return index
    if not isinstance(index, Tensor):
        return check_integer(index, "index")
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise AttribTypeError(
            f"index: must hold integers, got {index.dtype}; pass index.long()", code="target.type"
        )
    if index.ndim > 1:
        raise AttribValueError(
            f"index: must have one entry per example, got shape {tuple(index.shape)}; pass shape "
            "(batch,)",
            code="target.shape",
        )
    return index.reshape(()).long() if index.numel() == 1 else index.long()


def check_integer(value: Any, name: str) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    code = "target.type" if name == "index" else f"{name}.type"
    raise AttribTypeError(
        f"{name}: must be an integer, got {type(value).__name__}; pass a whole number, a tuple of "
        "them for dense outputs, or a LongTensor with one entry per example",
        code=code,
    )


def select(out: Tensor, index: Any, x: Tree) -> Tensor:
    """One number per example out of a model's output."""
    if isinstance(index, int) and out.ndim == 2:
        # By far the most frequent case, without the walk over x.
        _check_range(index, out.shape[1])
        return out.select(1, index)
    shape = tuple(out.shape)
    batch = next(
        (leaf.shape[0] for leaf in leaves(x) if isinstance(leaf, Tensor) and leaf.ndim > 0), None
    )
    if index is None:
        single = out.ndim == 2 or (out.ndim == 1 and shape[0] != batch)
        if single and shape[-1] == 1:
            return out.squeeze(-1)
        if out.ndim > 1 or single:
            raise AttribValueError(
                f"index: missing, got an output of shape {shape}; the model gives more than one "
                f"number per example: say which with an index in [{-shape[-1]}, {shape[-1] - 1}]",
                code="target.missing",
            )
        return out
    if isinstance(index, Tensor) and index.ndim == 1:
        if out.ndim != 2 or out.shape[0] != index.shape[0]:
            raise AttribValueError(
                f"index: one entry per example needs an output of shape ({index.shape[0]}, "
                f"classes), got {shape}; pass as many entries as there are examples",
                code="target.shape",
            )
        _check_range(index, shape[1])
        return out.gather(1, _from_start(index.to(out.device), shape[1])[:, None])[:, 0]
    several: Any = index
    path: tuple[Any, ...] = several if isinstance(index, tuple) else (index,)
    vectors = all(leaf.ndim < 2 for leaf in leaves(x) if isinstance(leaf, Tensor))
    if out.ndim - len(path) not in (0, 1) or (
        out.ndim == len(path) and shape[:1] == (batch,) and not vectors
    ):
        wanted = (
            "None"
            if out.ndim == 1
            else f"a tuple of {out.ndim - 1} integers"
            if out.ndim > 2
            else "an integer"
        )
        raise AttribValueError(
            f"index: does not leave one number per example, got {_in_words(index)} for an output "
            f"of shape {shape}; expected {wanted}",
            code="target.shape",
        )
    dim = out.ndim - len(path)
    for position in path:
        _check_range(position, out.shape[dim])
        out = _take(out, position, dim)
    return out


def _take(out: Tensor, position: int | Tensor, dim: int) -> Tensor:
    if isinstance(position, int):
        return out.select(dim, position)
    # Not out[..., position], which asks the tensor for its number and fails under vmap.
    return out.index_select(
        dim, _from_start(position.to(out.device), out.shape[dim]).reshape(1)
    ).squeeze(dim)


def _from_start(position: Tensor, size: int) -> Tensor:
    return torch.where(position < 0, position + size, position)


def _in_words(index: Any) -> str:
    return f"a tensor of shape {tuple(index.shape)}" if isinstance(index, Tensor) else repr(index)


def _check_range(position: int | Tensor, size: int) -> None:
    if isinstance(position, Tensor):
        seen = numbers(position)
        if seen is None or seen.numel() == 0:
            return
        low, high = (int(end) for end in seen.aminmax())
    else:
        low = high = position
    if low < -size or high >= size:
        raise AttribValueError(
            f"index: {low if low < -size else high} is out of range for a model with {size} "
            f"outputs; must be in [{-size}, {size - 1}]",
            code="target.range",
        )


def moody_modules(model: Callable[..., Any]) -> list[tuple[str, nn.Module]]:
    """The modules of a model that may mix examples or be random, by name."""
    if not isinstance(model, nn.Module):
        return []
    named: Any = model.named_modules
    return [(name or "itself", found) for name, found in named() if _mixes(found) or _drops(found)]


def check_mode(modules: list[tuple[str, nn.Module]], stochastic: bool) -> None:
    """Refuse modules that make examples interact, or the score random: mostly in train mode."""
    for name, module in modules:
        if compiling():
            continue
        if _mixes(module) and getattr(module, "running_mean", None) is None:
            raise AttribValueError(
                f"model: module {name!r} has no statistics of its own, got {type(module).__name__} "
                "that takes those of the batch, also in evaluation, so examples interact; give it "
                "running statistics (track_running_stats=True), or another kind of norm",
                code="model.statistics",
            )
        if not module.training:
            continue
        if _mixes(module):
            cause, remedy = "examples interact and its statistics would change", ""
        elif not stochastic:
            cause = "the score is random"
            remedy = ", or pass stochastic=True to explain a random draw"
        else:
            continue
        raise AttribValueError(
            f"model: module {name!r} is in train mode, got {type(module).__name__}, "
            f"so {cause}; call model.eval(), or .eval() on this module alone{remedy}",
            code="model.training",
        )


def _mixes(module: nn.Module) -> bool:
    batch_norm: Any = nn.modules.batchnorm
    if isinstance(module, batch_norm._BatchNorm):
        return True
    return isinstance(module, batch_norm._NormBase) and bool(module.track_running_stats)


def _drops(module: nn.Module) -> bool:
    dropout: Any = nn.modules.dropout
    if isinstance(module, dropout._DropoutNd):
        return getattr(module, "p", 0) > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.dropout > 0
    return isinstance(module, nn.RReLU)
