"""The web app answers the person at this machine, and nobody else; by raw HTTP."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import torch

import attrib
import insights_studies
from attrib import insights
from attrib.insights import app
from attrib.insights import server as module
from attrib.insights.server import Server
from attrib.insights.shapes import SHAPES
from insights_asking import TOKEN, ask, http, request, serving

KEPT = 0  # a sample that the broken model takes
PACKAGE = Path(insights.__file__).parent


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(insights_studies.images) as running:
        yield running


def test_a_page_with_the_token_is_answered(server: Server) -> None:
    reply = ask(server.port, type="init")
    assert reply.status == 200
    assert reply.messages[-1]["type"] == "config"


def test_it_listens_on_loopback_only(server: Server) -> None:
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    mine = [line.split()[1] for line in listening if line.split()[3] == "0A"]
    addresses = {a.split(":")[0] for a in mine if int(a.split(":")[1], 16) == server.port}
    assert addresses == {"0100007F"}  # 127.0.0.1, in the order of the bytes in memory


def test_the_other_loopback_address_needs_no_warning() -> None:
    try:
        running = insights.serve(insights_studies.table, host="::1", token=TOKEN)
    except ValueError:
        pytest.skip("this machine has no IPv6")
    with running, socket.create_connection(("::1", running.port), timeout=10) as connection:
        assert running.url.startswith(f"http://[::1]:{running.port}/#")
        own = f"[::1]:{running.port}"
        message = request(running.port, body={"type": "init"}, host=own, origin=f"http://{own}")
        connection.sendall(message)
        assert connection.recv(12) == b"HTTP/1.1 200"
        listening = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
        mine = [line[1] for line in listening if line[3] == "0A"]
        address = "0" * 24 + "01000000"
        assert [one for one in mine if int(one[-4:], 16) == running.port] == [
            f"{address}:{running.port:04X}"
        ]


def test_another_address_warns_and_still_wants_the_token() -> None:
    with pytest.warns(RuntimeWarning, match="listens on 0.0.0.0"):
        running = insights.serve(insights_studies.table, host="0.0.0.0", token=TOKEN)
    with running:
        assert ask(running.port, type="init").status == 200
        assert http(running.port, request(running.port, x_attrib_token=None)).status == 403
        evil = request(running.port, "/", method="GET", host="evil.example")
        assert http(running.port, evil).status == 400


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/message"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1:1", "localhost.evil.example", "", None],
)
def test_a_foreign_host_is_refused_before_routing(
    server: Server, host: str | None, path: str
) -> None:
    named = None if host is None else host.format(port=server.port)
    method = "POST" if path.startswith("/api") else "GET"
    assert http(server.port, request(server.port, path, method=method, host=named)).status == 400


def test_two_hosts_are_none(server: Server) -> None:
    own = f"127.0.0.1:{server.port}"
    sent = request(server.port, "/", method="GET").replace(
        b"connection:", f"host: {own}\r\nconnection:".encode()
    )
    assert http(server.port, sent).status == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_names_of_this_machine_are_known(server: Server, host: str) -> None:
    named = f"{host}:{server.port}"
    sent = request(server.port, "/", method="GET", host=named)
    assert http(server.port, sent).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://evil.example",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "file://",
        "https://127.0.0.1:{port}",
        "http://[",
        "http://127.0.0.1:{port}/",
        "https://127.0.0.1:{port}.evil.example",
    ],
)
def test_a_foreign_or_missing_origin_is_refused(server: Server, origin: str | None) -> None:
    given = None if origin is None else origin.format(port=server.port)
    reply = http(server.port, request(server.port, body={"type": "init"}, origin=given))
    assert reply.status == 403
    assert reply.error["kind"] == "origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_browser_that_says_another_site_asks_is_believed(server: Server, site: str) -> None:
    sent = request(server.port, body={"type": "init"}, sec_fetch_site=site)
    assert http(server.port, sent).status == 403
    sent = request(server.port, body={"type": "init"}, sec_fetch_site="same-origin")
    assert http(server.port, sent).status == 200


@pytest.mark.parametrize("token", [None, "", TOKEN[:-1], TOKEN[:-1] + "0", TOKEN.upper(), "é"])
def test_no_token_or_a_wrong_one_is_refused(server: Server, token: str | None) -> None:
    sent = request(server.port, body={"type": "init"}, x_attrib_token=token)
    reply = http(server.port, sent)
    assert reply.status == 403
    assert reply.error["kind"] == "auth"


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(app.hmac, "compare_digest", lambda a, b: seen.append(b) or a == b)
    with serving(insights_studies.table) as running:
        assert ask(running.port, type="init").status == 200
    assert seen == [TOKEN.encode()]


def test_the_token_is_random_long_and_in_the_fragment_only() -> None:
    with (
        insights.serve(insights_studies.table) as one,
        insights.serve(insights_studies.table) as two,
    ):
        assert one.token != two.token
        assert len(bytes.fromhex(one.token)) >= 16
        address, _, fragment = one.url.partition("#")
        assert one.token not in address
        assert fragment == f"token={one.token}"


@pytest.mark.parametrize("token", ["", "short", "0" * 31, "x" * 31 + " ", "x" * 40 + "é"])
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token: too weak"):
        insights.serve(insights_studies.table, token=token)


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_only_json_is_accepted(server: Server, kind: str | None) -> None:
    sent = request(server.port, body={"type": "init"}, content_type=kind)
    assert http(server.port, sent).status == 403


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_messages_are_posted(server: Server, method: str) -> None:
    reply = http(server.port, request(server.port, method=method))
    assert reply.status == 405
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../study.py",
        "/static/%2e%2e/study.py",
        "/static/..%2fstudy.py",
        "/static/..\\study.py",
        "/static/..%5cstudy.py",
        "/static//etc/passwd",
        "/static/app.js%00.css",
        "/static/",
        "/static/index.html",
        "/../../../../etc/passwd",
        "/C:/windows/win.ini",
        "/api/message/",
        "/static/app.js/",
        "/api",
    ],
)
def test_no_other_file_is_served(server: Server, path: str) -> None:
    assert http(server.port, request(server.port, path, method="GET")).status == 404


def test_an_oversized_message_is_refused_while_it_is_read(server: Server) -> None:
    assert http(server.port, request(server.port, body=b" " * 1_000_001)).status == 413
    # Without a length nothing but counting tells.
    chunk = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
    sent = request(server.port, content_length=None, transfer_encoding="chunked")
    assert http(server.port, sent + 11 * chunk + b"0\r\n\r\n").status == 413


@pytest.mark.parametrize("length", ["1000001", "3000000", "9" * 18])
def test_a_message_that_says_it_is_too_long_is_refused_at_once(server: Server, length: str) -> None:
    start = time.monotonic()
    reply = http(server.port, request(server.port, content_length=length))
    assert (reply.status, reply.error["kind"]) == (413, "limit")
    assert reply.headers["connection"] == "close"
    assert time.monotonic() - start < 5


def test_an_endless_message_is_cut_off(server: Server) -> None:
    chunk = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
    sent = request(server.port, content_length=None, transfer_encoding="chunked")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                connection.sendall(chunk)
        # There is an answer before the message ends, or none if we were still talking.
        with contextlib.suppress(ConnectionError):
            assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"v": 1}',
        b'{"v": 2, "id": "1", "type": "init"}',
        b'{"v": 1, "id": "1", "type": "__init__"}',
        b'{"v": 1, "id": "1", "type": "init", "more": 1}',
        b'{"v": 1, "id": "1", "type": ["init"]}',
        b'{"v": 1, "id": 1, "type": "init"}',
        b'{"v": 1, "id": "1", "type": "query", "min_conf": NaN}',
        b'{"v": 1, "id": "1", "type": "query", "limit": 49}',
        b'{"v": 1, "id": "1", "type": "query", "limit": true}',
        b'{"v": 1, "id": "1", "type": "attribute", "sample": -1, "method": "saliency"}',
        b'{"v": 1, "id": "1", "type": "predict", "sample": 0, "edits": {"photo": {"exec": 1}}}',
        b"\xff\xfe",
        b'{"v": 1, "id": "1", "type": "attribute", "sample": 0, "method": "saliency", "args": '
        + b'{"a": ' * 40
        + b"1"
        + b"}" * 41,
        b"[" * 100_000,
    ],
)
def test_what_is_no_message_is_refused(server: Server, body: bytes) -> None:
    reply = http(server.port, request(server.port, body=body))
    assert reply.status == 400
    assert reply.error["kind"] == "protocol"


def test_every_response_carries_the_headers(server: Server) -> None:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    for sent in (
        request(server.port, "/", method="GET"),
        request(server.port, "/static/app.js", method="GET"),
        request(server.port, body={"type": "init"}),
        request(server.port, x_attrib_token=None),
        request(server.port, "/nowhere", method="GET"),
        request(server.port, host="evil.example"),
    ):
        headers = http(server.port, sent).headers
        assert headers["content-security-policy"] == policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers
        assert "server" not in headers
        assert not [name for name in headers if name.startswith("access-control")]


def test_the_page_holds_no_data_and_nothing_inline(server: Server) -> None:
    page = http(server.port, request(server.port, "/", method="GET")).body.decode()
    assert TOKEN not in page
    assert "shapes" not in page
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<style|\son\w+=|\sstyle=", page)
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_the_front_end_asks_nobody_else(server: Server) -> None:
    for path in ("/static/app.js", "/static/host.js", "/static/app.css"):
        reply = http(server.port, request(server.port, path, method="GET"))
        assert reply.status == 200
        found = set(re.findall(r"https?://[\w.]+", reply.body.decode()))
        assert found <= {"http://www.w3.org"}  # the name space of SVG, which nobody fetches


def test_a_websocket_is_not_spoken(server: Server) -> None:
    sent = request(
        server.port,
        "/api/message",
        method="GET",
        connection="Upgrade",
        upgrade="websocket",
        sec_websocket_version="13",
        sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(1000).startswith((b"HTTP/1.1 405", b"HTTP/1.1 400"))


def test_a_websocket_of_another_host_is_none_either(server: Server) -> None:
    sent = request(
        server.port, method="GET", host="evil.example", connection="Upgrade", upgrade="websocket"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_errors_tell_no_path_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with serving(insights_studies.broken) as running, caplog.at_level(logging.ERROR):
        reply = ask(running.port, type="attribute", sample=KEPT, method="broken")
        other = ask(running.port, type="attribute", sample=KEPT, method="hungry")
    error = reply.messages[-1]
    assert error["type"] == "error"
    assert error["kind"] == "model"
    assert error["details"] is None
    for text in (reply.body, other.body):
        assert b"Traceback" not in text
        assert b"/home" not in text
        assert b".py" not in text
    assert "Traceback" in caplog.text  # where the person who runs it can read it


def test_details_are_sent_where_they_were_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with serving(insights_studies.broken, debug=True) as running, caplog.at_level(logging.ERROR):
        error = ask(running.port, type="attribute", sample=KEPT, method="broken").messages[-1]
    assert "Traceback" in error["details"]


def test_nothing_is_run_or_fetched_or_unpickled() -> None:
    """Neither what a client says nor what a file holds: attrib takes objects, and loads no code."""
    anywhere = (
        r"\bpickle\b|torch\.load|joblib|\byaml\b|allow_pickle=True|torch\.hub|jit\.load"
        r"|trust_remote_code=True|weights_only|add_safe_globals"
    )
    answering = r"(?<![\w.])(?:eval|exec|compile|__import__)\(|urlopen|urlretrieve|import requests"
    everywhere, here = re.compile(anywhere), re.compile(rf"{answering}|subprocess|os\.system")
    for path in PACKAGE.parent.rglob("*.py"):
        for line in path.read_text("utf-8").splitlines():
            code = line.partition("#")[0]
            assert not everywhere.search(code), f"{path.name}: {line}"
            assert not (PACKAGE in path.parents and here.search(code)), f"{path.name}: {line}"


def test_markup_is_written_in_two_places_that_escape() -> None:
    """By the builder of elements, and by the one page of a report; elsewhere no text is a tag."""
    tag = re.compile(
        r"</?(?:a|b|body|div|head|html|iframe|img|input|link|meta|p|script|span|style|svg|table)\b"
    )
    for path in PACKAGE.parent.rglob("*.py"):
        if path.name in ("markup.py", "reports.py"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = (
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and id(node) not in prose
        )
        assert [text for text in texts if isinstance(text, str) and tag.search(text)] == []


@pytest.mark.parametrize(
    ("method", "args", "field"),
    [
        ("integrated_gradients", {"steps": 1001}, "steps"),
        ("integrated_gradients", {"steps": 0}, "steps"),
        ("integrated_gradients", {"steps": 1e400}, None),
        ("integrated_gradients", {"steps": "64"}, "steps"),
        ("integrated_gradients", {"steps": True}, "steps"),
        ("integrated_gradients", {"steps": 2.5}, "steps"),
        ("integrated_gradients", {"__class__": 1}, "__class__"),
        ("integrated_gradients", {"quadrature": "__import__('os')"}, "quadrature"),
        ("smooth_grad", {"samples": 10_001}, "samples"),
        ("smooth_grad", {"std": -1}, "std"),
        ("grad_cam", {"site": "__class__"}, "site"),
        ("occlusion", {"window.photo": [0, 1]}, "window.photo"),
        ("occlusion", {"window.photo": []}, "window.photo"),
    ],
)
def test_work_is_bounded(server: Server, method: str, args: object, field: str | None) -> None:
    body = {"type": "attribute", "sample": 0, "method": method, "args": args}
    text = json.dumps({"v": 1, "id": "1", **body}).encode()
    reply = http(server.port, request(server.port, body=text))
    if field is None:  # infinity is no JSON
        assert reply.status == 400
        return
    error = reply.messages[-1]
    assert (error["type"], error["kind"], error["field"]) == ("error", "field", field)


def test_what_is_typed_is_bounded() -> None:
    with serving(insights_studies.text) as running:
        for word, kind in (("film", "prediction"), ("x" * 1001, "error")):
            edits = {"review": {"replace": {"1": word}}}
            told = ask(running.port, type="predict", sample=0, edits=edits).messages[-1]
            assert told["type"] == kind


def test_no_message_brings_a_file_or_names_one_or_an_address() -> None:
    keys = {key for shape in SHAPES.values() for key in shape}
    assert not keys & {"address", "data", "file", "files", "path", "upload", "uri", "url"}


def test_more_passes_than_allowed_are_refused() -> None:
    with serving(insights_studies.images, limits=insights.Limits(passes=99)) as running:
        more = ask(running.port, type="attribute", sample=0, method="integrated_gradients")
        assert more.messages[-1]["kind"] == "limit"
        fewer = {"type": "attribute", "sample": 0, "method": "integrated_gradients"}
        assert ask(running.port, **fewer, args={"steps": 49}).messages[-1]["type"] == "result"


def test_a_computation_ends_after_its_time() -> None:
    with serving(insights_studies.slow, limits=insights.Limits(seconds=0.3)) as running:
        start = time.monotonic()
        error = ask(running.port, type="attribute", sample=0, method="slow").messages[-1]
    assert error["kind"] == "limit"
    assert time.monotonic() - start < 5


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_a_computation_ends_when_it_has_too_much_memory() -> None:
    kept: list[Any] = []

    def hoarding(f: Any, *, steps: int = 8) -> Any:
        def hoard(x: Any, *args: Any) -> Any:
            kept.append(torch.ones(2**24))  # 64 MiB
            return f(x, *args)

        return attrib.integrated_gradients(hoard, steps=steps, chunk_size=1)

    study = replace(insights_studies.images, methods={"hoarding": hoarding})
    try:
        for mebibytes, kind in ((200, "error"), (2000, "result")):
            kept.clear()
            limits = insights.Limits(memory_bytes=mebibytes * 2**20)
            with serving(study, limits=limits) as running:
                body = {"type": "attribute", "sample": 0, "method": "hoarding"}
                told = ask(running.port, **body).messages[-1]
            assert told["type"] == kind, told
            assert kind == "result" or told["kind"] == "limit"
        assert len(kept) >= 8
    finally:
        kept.clear()


def test_a_request_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    monkeypatch.setattr(app, "PATIENCE", 0.3)
    with serving(insights_studies.table) as running:
        head = request(running.port, content_length="100")
        for sent, expected in ((b"GET / HTTP/1.1\r\nhost: x", b""), (head, b"HTTP/1.1 408")):
            with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
                connection.sendall(sent)
                start = time.monotonic()
                assert connection.recv(12) == expected
                assert time.monotonic() - start < 5


def test_the_access_log_does_not_exist() -> None:
    code = f"""
import sys; sys.path[:0] = {[str(PACKAGE.parents[1]), str(Path(__file__).parent)]!r}
import insights_studies
from insights_asking import ask, serving
with serving(insights_studies.table) as server:
    assert ask(server.port, type="init").status == 200
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_proxy_that_was_named_is_let_in_and_no_other() -> None:
    with serving(insights_studies.table, allowed_hosts=["hub.example.org"]) as running:
        port = running.port
        for host, origin, status in (
            ("hub.example.org", "https://hub.example.org", 200),
            (f"127.0.0.1:{port}", "https://hub.example.org", 200),  # the proxy asks by our name
            (f"127.0.0.1:{port}", "https://evil.example.org", 403),
            (f"127.0.0.1:{port}", "ftp://hub.example.org", 403),
            (f"127.0.0.1:{port}", f"https://127.0.0.1:{port}", 403),
            ("evil.example.org", "https://hub.example.org", 400),
        ):
            sent = request(port, body={"type": "init"}, host=host, origin=origin)
            assert http(port, sent).status == status


def test_a_proxy_on_this_machine_is_named_with_its_port() -> None:
    with serving(insights_studies.table, allowed_hosts=["localhost:8443"]) as running:
        for origin, status in (
            ("https://localhost:8443", 200),
            ("https://localhost:8444", 403),
            ("https://localhost", 403),
        ):
            sent = request(running.port, body={"type": "init"}, origin=origin)
            assert http(running.port, sent).status == status


def test_a_page_is_known_by_the_scheme_that_it_came_by() -> None:
    from starlette.testclient import TestClient

    app = insights.asgi(insights_studies.table, token=TOKEN)
    client = TestClient(app, base_url="https://127.0.0.1:8443")
    for origin, status in (("https://127.0.0.1:8443", 200), ("http://127.0.0.1:8443", 403)):
        headers = {"X-Attrib-Token": TOKEN, "Origin": origin}
        message = {"v": 1, "id": "1", "type": "init"}
        assert client.post("/api/message", json=message, headers=headers).status_code == status
    app.session.close()
