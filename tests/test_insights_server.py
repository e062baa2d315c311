"""The web app streams what the engine tells, and leaves nothing behind."""

from __future__ import annotations

import builtins
import gzip
import importlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import attrib
import insights_studies
from attrib import insights
from attrib.insights.protocol import frame, pack, read_frames
from insights_asking import TOKEN, array, ask, eventually, http, request, serving, workers

ROOT = Path(__file__).parents[1]


def test_the_numbers_of_the_stream_are_those_of_attrib() -> None:
    study = insights_studies.images
    image, _ = study.data[0]
    f = attrib.target(study.models["cnn"], 2)
    expected = attrib.saliency(f)(image[None])[0].sum(0)
    with serving(study) as server:
        reply = ask(server.port, type="attribute", sample=0, method="saliency", target=2)
    found = array(reply.last, reply.last.header["features"]["photo"]["values"])
    assert abs(found - expected.numpy()).max() <= 2e-5 * float(expected.abs().max())
    assert [m["type"] for m in reply.messages][-1] == "result"
    assert {m["id"] for m in reply.messages} == {"1"}


def test_pixels_travel_as_they_are() -> None:
    study = insights_studies.images
    with serving(study) as server:
        reply = ask(server.port, type="query", limit=2)
    for row in reply.last.header["rows"]:
        pixels = array(reply.last, row["features"]["photo"]["pixels"])
        image = study.data[row["sample"]][0]
        assert (pixels == (image * 255).round().permute(1, 2, 0).byte().numpy()).all()


def test_the_first_view_is_small() -> None:
    with serving(insights_studies.images) as server:
        port = server.port
        sizes: list[int] = []
        parts = ["/", "/static/app.js", "/static/host.js", "/static/app.css"]
        for path in parts:
            plain = http(port, request(port, path, method="GET"))
            small = http(port, request(port, path, method="GET", accept_encoding="br, gzip"))
            assert plain.body
            if path != "/":
                assert gzip.decompress(small.body) == plain.body
            sizes.append(len(small.body))
        assert sum(sizes) < 100_000


def test_going_away_ends_the_job() -> None:
    with serving(insights_studies.slow) as server:
        body = {"type": "attribute", "sample": 0, "method": "slow", "args": {"steps": 1000}}
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(request(server.port, body=body))
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            assert eventually(lambda: server.session.workers.busy)
        assert eventually(lambda: not server.session.workers.busy, 1)
        assert ask(server.port, type="init").messages[-1]["type"] == "config"


def test_a_message_cancels_the_job_of_another_stream() -> None:
    with serving(insights_studies.slow) as server:
        body = {"type": "attribute", "sample": 0, "method": "slow", "id": "job", "client": "me"}
        replies: list[Any] = []

        def wait() -> None:
            replies.append(http(server.port, request(server.port, body=body)))

        thread = threading.Thread(target=wait)
        thread.start()
        assert eventually(lambda: server.session.workers.busy)
        time.sleep(0.3)
        assert ask(server.port, type="cancel", client="me", job="job").messages[-1]["type"] == "ok"
        thread.join(5)
        types = [m["type"] for m in replies[0].messages]
        assert types[-1] == "cancelled"
        assert types[:-1] == ["progress"] * (len(types) - 1)


def test_progress_arrives_while_it_goes_on() -> None:
    with serving(insights_studies.slow) as server:
        args = {"steps": 10, "seconds": 0.05}
        body = {"type": "attribute", "sample": 0, "method": "slow", "args": args}
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(request(server.port, body=body))
            start, times = time.monotonic(), []
            while part := connection.recv(65536):
                times += [time.monotonic() - start] * (b'"progress"' in part)
        assert len(times) > 3
        assert times[-1] - times[0] > 0.2


def test_two_servers_share_nothing() -> None:
    with serving(insights_studies.images) as one, serving(insights_studies.table) as two:
        assert one.port != two.port
        names = [ask(s.port, type="init").messages[-1]["study"]["name"] for s in (one, two)]
        assert names == ["shapes", "ward"]
    with insights.serve(insights_studies.table) as other:
        sent = request(other.port, body={"type": "init"})  # with the token of the others
        assert http(other.port, sent).status == 403


def test_close_frees_the_port_and_the_threads() -> None:
    before = len(workers())
    server = insights.serve(insights_studies.slow, token=TOKEN)
    body = {"type": "attribute", "sample": 0, "method": "slow", "args": {"steps": 1000}}
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(request(server.port, body=body))
    assert eventually(lambda: server.session.workers.busy)
    start = time.monotonic()
    server.close()
    connection.close()
    assert time.monotonic() - start < 5
    assert len(workers()) == before
    with serving(insights_studies.table, port=server.port) as again:  # a restart, at its place
        assert ask(again.port, type="init").status == 200


def test_a_port_that_is_taken_is_named() -> None:
    with (
        serving(insights_studies.table) as server,
        pytest.raises(ValueError, match=f"port: cannot listen on 127.0.0.1:{server.port}"),
    ):
        insights.serve(insights_studies.table, port=server.port)


def test_a_process_with_a_server_ends_by_itself() -> None:
    code = f"""
import sys; sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]!r}
import insights_studies
from attrib import insights
server = insights.serve(insights_studies.table)
print(server.url)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=True
    )
    assert ended.stdout.startswith(b"http://127.0.0.1:")
    assert ended.stderr == b""


def test_the_application_can_be_mounted_below_a_prefix() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    app = insights.asgi(insights_studies.table, token=TOKEN, allowed_hosts=["testserver"])
    client = TestClient(Starlette(routes=[Mount("/proxy/8080", app=app)]))
    page = client.get("/proxy/8080/")
    assert page.status_code == 200
    assert client.get("/proxy/8080/static/app.js").status_code == 200
    headers = {"X-Attrib-Token": TOKEN, "Origin": "http://testserver"}
    message = {"v": 1, "id": "1", "type": "init"}
    reply = client.post("/proxy/8080/api/message", json=message, headers=headers)
    assert read_frames(reply.content)[-1].header["study"]["name"] == "ward"
    wrong = {**headers, "X-Attrib-Token": "no"}
    assert client.post("/proxy/8080/api/message", json=message, headers=wrong).status_code == 403
    app.session.close()
    # All addresses in the page are relative, so that any prefix will do.
    assert 'href="/' not in page.text
    assert 'src="/' not in page.text


def test_results_of_long_use_do_not_pile_up() -> None:
    limits = insights.Limits(cache_bytes=100_000)
    with serving(insights_studies.images, limits=limits) as server:
        for number in range(60):
            body = {"sample": number % 14, "method": "saliency", "target": number % 4}
            assert ask(server.port, type="attribute", **body).messages[-1]["type"] == "result"
            assert server.session.bytes <= 100_000


@pytest.mark.parametrize(
    ("module", "extra", "missing"),
    [
        ("app", "insights", "starlette"),
        ("server", "insights", "uvicorn"),
        ("notebook", "notebook", "anywidget"),
    ],
)
def test_a_missing_extra_is_named(
    module: str, extra: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    name = f"attrib.insights.{module}"
    kept = sys.modules.pop(name, None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    try:
        with pytest.raises(ImportError, match=rf"pip install 'attrib\[{extra}\]'"):
            importlib.import_module(name)
    finally:
        sys.modules.pop(name, None)
        if kept is not None:
            sys.modules[name] = kept


def test_attrib_and_insights_import_neither_server_nor_widget() -> None:
    code = "import json, sys, attrib, attrib.insights; print(json.dumps([*sys.modules]))"
    environment = {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    loaded = {name.partition(".")[0] for name in json.loads(ended.stdout)}
    assert not loaded & {"starlette", "uvicorn", "anywidget", "traitlets", "matplotlib"}


def test_the_widget_speaks_the_same_protocol() -> None:
    pytest.importorskip("anywidget")
    before = workers()
    widget = insights.widget(insights_studies.images)
    sent: list[Any] = []
    widget.send = lambda header, buffers: sent.append((header, buffers))
    widget._handle_custom_msg(
        {"v": 1, "id": "1", "type": "attribute", "sample": 0, "method": "saliency"}, []
    )
    assert eventually(lambda: sent and sent[-1][0]["type"] == "result")
    header, buffers = sent[-1]
    assert header == read_frames(frame(pack(widget.result)))[0].header
    assert [len(buffer) for buffer in buffers] == header["buffers"]
    widget._handle_custom_msg("nonsense", [])
    assert eventually(lambda: sent[-1][0].get("kind") == "protocol")
    widget.close()
    assert workers() == before
