"""From what a caller has, a tensor anywhere or an array, to numbers that can be drawn."""

# The stubs of NumPy and matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib.errors import AttribTypeError, AttribValueError, PlotWarning
from attrib.plot.colors import Array
from attrib.types import Estimate

__all__ = [
    "check_names",
    "check_same",
    "finite",
    "notify",
    "numbers",
    "one_row",
    "shape",
    "total",
    "value_of",
]

_PACKAGE = str(Path(__file__).parent)


def numbers(value: Any, name: str) -> Array:
    """A float64 array of a tensor on any device and of any real dtype, an array or a sequence."""
    value = value_of(value)
    if isinstance(value, Tensor):
        return _of_tensor(value, name)
    if isinstance(value, (list, tuple)) and any(
        isinstance(part, (Tensor, Estimate)) for part in value
    ):
        value = [numbers(part, name) for part in value]
    try:
        array = np.ma.filled(np.ma.asarray(value, np.float64), np.nan)
    except (TypeError, ValueError) as error:
        raise AttribTypeError(
            f"{name}: must be real numbers, got {type(value).__name__}; pass one tensor or array",
            code=f"{name}.type",
        ) from error
    return np.asarray(array, np.float64)


def value_of(attr: Any) -> Any:
    """An attribution without its uncertainty."""
    return attr.value if isinstance(attr, Estimate) else attr


def check_same(value: Array, other: Array, name: str, named: str, hint: str) -> None:
    """Two arrays that belong together are of one shape."""
    if value.shape != other.shape:
        raise AttribValueError(
            f"{name}: does not fit {named}, got shape {shape(value)} for {named} of shape "
            f"{shape(other)}; {hint}",
            code=f"{name}.shape",
        )


def check_names(names: Sequence[object] | None, count: int, name: str, kind: str) -> list[str]:
    """One name for each of them; their numbers where there are none."""
    if names is None:
        return [f"{kind} {place}" for place in range(count)]
    if isinstance(names, str) or len(names) != count:
        raise AttribValueError(
            f"{name}: must be as many as there are numbers, got {len(names)} for {count}; pass "
            "one for each",
            code=f"{name}.length",
        )
    return [str(each) for each in names]


def finite(values: Array) -> Array:
    """The numbers, zero in place of what is NaN or infinite."""
    return np.where(np.isfinite(values), values, 0.0)


def total(values: Array, axis: int) -> Array:
    """Sums along an axis: NaN, as it has to be, where infinities of both signs meet."""
    with np.errstate(invalid="ignore"):
        return np.asarray(values.sum(axis), np.float64)


def one_row(value: Any, name: str) -> Array:
    """Numbers of one example: one dimension, others of size one aside."""
    array = numbers(value, name)
    row = array.reshape(-1) if array.size in array.shape or array.ndim == 0 else array
    if row.ndim != 1:
        raise AttribValueError(
            f"{name}: must be the numbers of one example, got shape {shape(array)}; pass one row, "
            f"such as {name}[0], or a mean over rows",
            code=f"{name}.shape",
        )
    return row


def shape(array: Array) -> tuple[int, ...]:
    """Its shape, as messages write it."""
    return tuple(map(int, array.shape))


def notify(message: str) -> None:
    """Warn the caller of attrib.plot, however deep we are."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, PlotWarning, stacklevel=level + 1)


def _of_tensor(value: Tensor, name: str) -> Array:
    if value.is_complex():
        raise AttribTypeError(
            f"{name}: must be real numbers, got {value.dtype}; pass its real part or its size",
            code=f"{name}.type",
        )
    value = value.detach()
    if value.is_quantized:
        value = value.dequantize()
    if value.layout != torch.strided:
        value = value.to_dense()
    return np.asarray(value.to("cpu", torch.float64).resolve_neg().numpy())
