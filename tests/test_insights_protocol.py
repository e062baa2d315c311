"""Messages travel unchanged, and what is no message is refused."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from attrib.insights.protocol import Array, Failure, frame, pack, parse, quantised, read_frames
from attrib.insights.shapes import SHAPES

DTYPES = ("uint8", "int16", "int32", "float32")
FLOATS = st.floats(-1e30, 1e30, allow_subnormal=False)


@given(
    st.lists(
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=5))
        ),
        max_size=4,
    ),
    st.text(),
)
def test_frames_hold_what_was_put_in(values: list[Any], text: str) -> None:
    message = pack({"type": "result", "text": text, "values": values})
    data = frame(message)
    assert len(data) % 4 == 0
    again, second = read_frames(data + data)
    assert again == second == message
    assert again.header["text"] == text
    for value, reference in zip(values, again.header["values"], strict=True):
        buffer = again.buffers[reference["buffer"]]
        assert reference["shape"] == list(value.shape)
        assert np.frombuffer(buffer, reference["dtype"]).tobytes() == value.tobytes()


def test_a_frame_is_what_the_specification_says() -> None:
    data = frame(pack({"type": "x", "a": np.array([1, 2, 3], np.uint8)}))
    (length,) = struct.unpack("<I", data[:4])
    assert length % 4 == 0
    header = json.loads(data[4 : 4 + length])
    assert header["buffers"] == [3]
    assert header["a"] == {"buffer": 0, "dtype": "uint8", "shape": [3]}
    assert data[4 + length :] == b"\1\2\3\0"


@given(arrays.arrays(np.float64, arrays.array_shapes(max_dims=2, max_side=6), elements=FLOATS))
def test_sixteen_bits_are_right_to_the_largest_by_30000(values: Any) -> None:
    found = quantised(values)
    largest = np.abs(values).max()
    assert np.abs(found.values * (found.scale or 0) - values).max() <= 1.6e-5 * largest


def test_what_is_not_finite_has_codes_of_its_own() -> None:
    found = quantised([math.nan, math.inf, -math.inf, -2.0, 2.0, 0.0])
    assert found.values.tolist() == [-32768, 32767, -32767, -32766, 32766, 0]
    assert quantised([math.nan, math.inf]).scale == 0
    assert quantised(np.zeros(3)).values.tolist() == [0, 0, 0]


def test_numbers_that_json_lacks_are_words() -> None:
    header = pack({"a": [math.nan, math.inf, -math.inf, np.float32(1.5)], "b": (1, None)}).header
    assert header["a"] == ["NaN", "Infinity", "-Infinity", 1.5]
    assert header["b"] == [1, None]
    assert frame(pack({"scaled": Array(np.zeros(2, np.int16), 0.5)}))


@pytest.mark.parametrize("kind", SHAPES)
def test_every_message_is_complete_with_defaults(kind: str) -> None:
    needed = {
        "sample": 0,
        "method": "saliency",
        "feature": "photo",
        "format": "json",
        "samples": [0],
        "methods": [],
    }
    shape = SHAPES[kind]
    given_keys = {key: needed[key] for key, entry in shape.items() if len(entry) == 1}
    found = parse({"v": 1, "id": "1", "type": kind, **given_keys})
    assert set(found) == {"type", "id", "client", *shape}
    for key in given_keys:
        message = {"v": 1, "id": "1", "type": kind, **given_keys}
        del message[key]
        with pytest.raises(Failure, match=f"'{key}' is missing"):
            parse(message)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(SHAPES)),
    st.dictionaries(
        st.sampled_from(
            [
                "sample",
                "method",
                "target",
                "args",
                "edits",
                "limit",
                "region",
                "table",
                "targets",
                "job",
            ]
        ),
        JSON,
        max_size=3,
    ),
)
def test_any_json_is_a_message_or_a_failure(kind: str, changed: dict[str, Any]) -> None:
    message = {"v": 1, "id": "1", "type": kind, "sample": 0, "method": "saliency", **changed}
    for data in (message, json.dumps(message)):
        try:
            parse(data)
        except Failure as failure:
            assert failure.kind == "protocol"


def test_long_deep_and_wide_messages_are_refused() -> None:
    message = {"v": 1, "id": "1", "type": "attribute", "sample": 0, "method": "saliency"}
    nested: Any = 1
    for _ in range(32):
        nested = [nested]
    for changed in ({"args": {"a": nested}}, {"args": {"a": [0] * 1001}}, {"id": "x" * 65}):
        with pytest.raises(Failure):
            parse({**message, **changed})
    with pytest.raises(Failure, match="1 MB"):
        parse(json.dumps({**message, "args": {"a": "x" * 1_000_000}}))
    with pytest.raises(Failure, match="version"):
        parse({**message, "v": 2})
