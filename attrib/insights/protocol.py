"""Messages between a front end and the engine: their shape, what is refused, how they travel."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from attrib.insights.plain import is_list, is_object
from attrib.insights.shapes import COMMON, SHAPES

__all__ = [
    "JSON_DEPTH",
    "MESSAGE_BYTES",
    "VERSION",
    "Array",
    "Failure",
    "Message",
    "frame",
    "pack",
    "parse",
    "quantised",
    "read_frames",
]

VERSION = 1
MESSAGE_BYTES = 1_000_000
JSON_DEPTH = 32
ITEMS = 1000  # entries of a list or of an object
_LARGEST = 32766
_NAN, _PLUS, _MINUS = -32768, 32767, -32767
_CODES = {"NaN": _NAN, "Infinity": _PLUS, "-Infinity": _MINUS}


class Array(NamedTuple):
    """Numbers that travel as a buffer; with a scale, they are integers times it."""

    values: np.ndarray[Any, Any]
    scale: float | None = None


class Message(NamedTuple):
    """A header, and the buffers that it refers to."""

    header: dict[str, Any]
    buffers: list[bytes]


class Failure(Exception):
    """Something to tell the person at the screen, in words.

    Attributes:
        kind: ``field``, ``value``, ``model``, ``memory``, ``limit``, ``busy``, ``absent``,
            ``protocol`` or ``internal``.
        field: The argument that is to blame, if one is.
        hint: What to do about it.
        code: That of an `attrib.AttribError`.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.field, self.hint, self.code = kind, field, hint, code


def quantised(values: Any) -> Array:
    """Numbers in 16 bits, to 1.6e-5 of the largest; NaN and infinities have codes of their own."""
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    largest = float(np.abs(numbers[finite]).max()) if finite.any() else 0.0
    scale = largest / _LARGEST
    steps = numbers if scale == 0 else numbers / scale
    whole = np.where(finite, np.rint(np.where(finite, steps, 0)), 0).astype(np.int16)
    whole[np.isnan(numbers)] = _CODES["NaN"]
    whole[np.isposinf(numbers)] = _CODES["Infinity"]
    whole[np.isneginf(numbers)] = _CODES["-Infinity"]
    return Array(whole, scale)


def pack(header: Mapping[str, Any]) -> Message:
    """A header as plain JSON, with a buffer for every array in it."""
    buffers: list[bytes] = []

    def plain(value: Any) -> Any:
        if isinstance(value, (Array, np.ndarray)):
            return _reference(value if isinstance(value, Array) else Array(value), buffers)
        if isinstance(value, Mapping):
            items: Any = value.items()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            return {str(key): plain(item) for key, item in items}
        if is_list(value) or isinstance(value, tuple):
            entries: Any = value  # pyright: ignore[reportUnknownVariableType]
            return [plain(item) for item in entries]
        if isinstance(value, np.generic):
            return plain(value.item())
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return value

    found = {"v": VERSION, **plain(header)}
    return Message({**found, "buffers": [len(buffer) for buffer in buffers]}, buffers)


def frame(message: Message) -> bytes:
    """A message as bytes: the length of the header, the header, the buffers, each padded to 4."""
    text = json.dumps(message.header, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    parts = [struct.pack("<I", len(text)), text]
    for buffer in message.buffers:
        parts += [buffer, b"\0" * (-len(buffer) % 4)]
    return b"".join(parts)


def read_frames(data: bytes) -> list[Message]:
    """The messages in a stream of frames."""
    messages: list[Message] = []
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        header = json.loads(data[at + 4 : at + 4 + length])
        at += 4 + length
        buffers: list[bytes] = []
        for size in header["buffers"]:
            buffers.append(data[at : at + size])
            at += size + -size % 4
        messages.append(Message(header, buffers))
    return messages


def parse(data: bytes | str | Mapping[str, Any]) -> dict[str, Any]:
    """A message of a client, complete with defaults.

    Raises:
        Failure: Of the kind ``protocol``, for a message that is too long or too deep, is no JSON,
            or does not have the shape of one of the messages.
    """
    if isinstance(data, (bytes, str)):
        if len(data) > MESSAGE_BYTES:
            raise _malformed("a message is longer than 1 MB")
        try:
            given = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise _malformed("the message is not JSON") from error
    else:
        given = dict(data)
    if not is_object(given):
        raise _malformed("a message is an object")
    message = given
    _check_depth(message, JSON_DEPTH)
    if message.get("v") != VERSION:
        raise _malformed(f"this server speaks version {VERSION} of the protocol")
    kind = message.get("type")
    shape = SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise _malformed("unknown type of message")
    shape = {**COMMON, **shape}
    unknown = sorted(set(message) - set(shape) - {"v", "type"})
    if unknown:
        raise _malformed(f"unknown keys: {', '.join(map(repr, unknown[:5]))[:200]}")
    found: dict[str, Any] = {"type": kind}
    for key, (check, *default) in shape.items():
        if key not in message and not default:
            raise _malformed(f"{key!r} is missing")
        value = message[key] if key in message else default[0]
        if not check(value):
            raise _malformed(f"{key!r} is not what it should be", key)
        found[key] = value
    return found


def _reference(array: Array, buffers: list[bytes]) -> dict[str, Any]:
    values = array.values
    if values.dtype not in (np.uint8, np.int16, np.int32, np.float32):
        values = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
    found: dict[str, Any] = {
        "buffer": len(buffers),
        "dtype": str(values.dtype),
        "shape": list(values.shape),
    }
    letter = {"uint8": "u1", "int16": "<i2", "int32": "<i4", "float32": "<f4"}[str(values.dtype)]
    buffers.append(np.ascontiguousarray(values, dtype=letter).tobytes())
    return found if array.scale is None else {**found, "scale": array.scale}


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise _malformed("the message is nested too deeply")
    entries = list(value.values()) if is_object(value) else value if is_list(value) else []
    if len(entries) > ITEMS:
        raise _malformed(f"more than {ITEMS} entries in a list")
    for entry in entries:
        _check_depth(entry, left - 1)


def _malformed(message: str, field: str | None = None) -> Failure:
    return Failure("protocol", f"malformed message: {message}", field=field)
