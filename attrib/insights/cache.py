"""Results that were computed already, as many as fit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

__all__ = ["Cache"]


class Sized(Protocol):
    """What knows how much memory it takes."""

    @property
    def bytes(self) -> int: ...


_Value = TypeVar("_Value", bound=Sized)


class Cache(Generic[_Value]):
    """A mapping that forgets what was not used for longest, once it holds too many bytes.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> _Value | None:
        """A value, now the one used last."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: _Value) -> None:
        """Keep a value, unless it is larger than everything that may be kept."""
        with self._lock:
            old = self._values.pop(key, None)
            self._held -= 0 if old is None else old.bytes
            if value.bytes > self._limit:
                return
            self._values[key] = value
            self._held += value.bytes
            while self._held > self._limit:
                _, forgotten = self._values.popitem(last=False)
                self._held -= forgotten.bytes

    @property
    def bytes(self) -> int:
        """What is held."""
        return self._held

    def __len__(self) -> int:
        return len(self._values)
