"""What follows from random numbers alone, kept from one call to the next.

One row after another is often explained from the same state of the global generator, and to draw
the coalitions takes longer than a small network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrib._transforms import concrete, transforming
from attrib.perturb import Stream

__all__ = ["kept", "may_be_kept"]

# Entries: half a megabyte in double precision.
_SMALL = 2**16


def may_be_kept(entries: int, generator: torch.Generator | None, like: Tensor) -> bool:
    """Whether so many entries are few, and another call may start from the same state."""
    return generator is None and entries <= _SMALL and not transforming() and concrete(like)


def kept(make: Callable[..., Any], stream: Stream, like: Tensor, *key: Any) -> Any:
    """``make(stream, like, *key)``, made once for each state of the stream, which is not advanced.

    Args:
        make: A function of nothing else, whose result nobody writes to.
        stream: Random numbers.
        like: A tensor of the device and the dtype.
        *key: What else it depends on.
    """
    start: Any = stream.on(like.device)
    state = start.get_state().numpy().tobytes()
    return _remembered(make, like.dtype, like.device, state, key)


@lru_cache(maxsize=16)
def _remembered(
    make: Callable[..., Any],
    dtype: torch.dtype,
    device: torch.device,
    state: bytes,
    key: tuple[Any, ...],
) -> Any:
    generator = torch.Generator(device)
    generator.set_state(torch.as_tensor(np.array(memoryview(state)), device="cpu"))
    return make(Stream(generator), torch.empty((), dtype=dtype, device=device), *key)
