"""Evaluations that rely on the rows of a batch to be along the first dimension of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from attrib.errors import AttribError

__all__ = ["UntoldRowsError", "check_rows", "if_rows_are_told"]

_Result = TypeVar("_Result")


class UntoldRowsError(Exception):
    """Somewhere in the model nothing tells where the rows of the batch are."""


def check_rows(tensor: Tensor, rows: int) -> None:
    """A row for each of the first dimension, and nothing else: where time or heads share it with
    the rows, nothing tells which comes first."""
    if tensor.ndim == 0 or tensor.shape[0] != rows:
        raise UntoldRowsError


def if_rows_are_told(compute: Callable[[], _Result]) -> _Result | None:
    """What it computes; ``None`` if its model has no rows, or does not take so many.

    A refusal of attrib is one in any case, and so is a lack of memory. Other errors may be due to
    the number of rows; if they are not, they come again when the model is evaluated in full.
    """
    try:
        return compute()
    except (AttribError, torch.OutOfMemoryError):
        raise
    except (
        UntoldRowsError,
        IndexError,
        RuntimeError,
        ValueError,
        TypeError,
        AssertionError,
    ):
        return None
