"""Talking to a server of `attrib.insights` as nothing but bytes on a socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from attrib import insights
from attrib.insights.protocol import Message, read_frames
from attrib.insights.server import Server
from attrib.insights.study import Study

TOKEN = "0123456789abcdef0123456789abcdef"


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [message.header for message in read_frames(self.body)]

    @property
    def last(self) -> Message:
        return read_frames(self.body)[-1]

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


def http(port: int, request: bytes, timeout: float = 30) -> Reply:
    """Send bytes, read until the server closes, and take the reply apart."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        parts: list[bytes] = []
        while part := connection.recv(65536):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    return Reply(int(first.split()[1]) if first else 0, headers, body)


def request(
    port: int,
    path: str = "/api/message",
    body: bytes | Mapping[str, Any] = b"",
    *,
    method: str = "POST",
    **changed: str | None,
) -> bytes:
    """The bytes of a request that the page would make; headers may be changed or left out."""
    data = body if isinstance(body, bytes) else json.dumps({"v": 1, "id": "1", **body}).encode()
    headers: dict[str, str | None] = {
        "host": f"127.0.0.1:{port}",
        "origin": f"http://127.0.0.1:{port}",
        "content-type": "application/json",
        "x-attrib-token": TOKEN,
        "connection": "close",
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    if method != "GET":
        headers.setdefault("content-length", str(len(data)))
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + data


def ask(port: int, **message: Any) -> Reply:
    """The reply to a message of the page."""
    return http(port, request(port, body=message))


@contextmanager
def serving(study: Study, **options: Any) -> Iterator[Server]:
    """A server with a known token, gone afterwards."""
    with insights.serve(study, **{"token": TOKEN, **options}) as server:
        yield server


def array(message: Message, reference: Mapping[str, Any]) -> Any:
    """The numbers that a header refers to."""
    buffer = message.buffers[reference["buffer"]]
    found = np.frombuffer(buffer, reference["dtype"]).reshape(reference["shape"])
    return found * reference["scale"] if "scale" in reference else found


def workers() -> list[str]:
    """The threads of attrib.insights that run."""
    return [one.name for one in threading.enumerate() if one.name.startswith("attrib-insights")]


def eventually(condition: Any, seconds: float = 5.0) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def _unchunked(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        found, data = found + data[:length], data[length + 2 :]
    return found
