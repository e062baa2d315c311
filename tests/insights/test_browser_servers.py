"""Servers next to each other, servers that go away, pages of others, proxies."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pages import TOKEN, card, choose, ready
from playwright.sync_api import expect

import insights_studies
from attrib import insights

OTHER = "fedcba9876543210" * 2


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A small server of somebody else, at its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pages(texts: dict[str, str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts.get(self.path.split("?")[0], "")
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None: ...

    return Handler


def test_two_servers_know_nothing_of_each_other(watched: Callable[..., Any]) -> None:
    before = set(threading.enumerate())
    one = insights.serve(insights_studies.images, token=TOKEN)
    two = insights.serve(insights_studies.table, token=OTHER)
    with one, two:
        first = watched()
        second = first.context.new_page()
        first.goto(one.url)
        second.goto(two.url)
        ready(first, 6)
        ready(second, 6)
        expect(first.locator(".brand")).to_contain_text("shapes")
        expect(second.locator(".brand")).to_contain_text("ward")
        choose(first, "Method", "saliency")
        ready(first, 6)
        expect(second.get_by_label("Method", exact=True)).to_have_value("integrated_gradients")
        second.reload()
        ready(second, 6)
        first.close()
        second.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # those of the event loop end after it
    assert set(threading.enumerate()) <= before
    for server in (one, two):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", server.port))


def test_a_program_that_ends_is_not_held_back() -> None:
    program = (
        "import torch\nfrom attrib import insights\n"
        "study = insights.Study(models=torch.nn.Linear(2, 3), data=[(torch.ones(2), 0)],"
        " features={'row': insights.tabular(['a', 'b'])})\n"
        "print(insights.serve(study).url)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert re.match(r"http://127\.0\.0\.1:\d+/#token=\w{32,}", done.stdout)


def test_a_server_that_comes_back_is_found_again(watched: Callable[..., Any]) -> None:
    server = insights.serve(insights_studies.images, token=TOKEN)
    page = watched(forgive=("Failed to load resource",))
    page.goto(server.url)
    ready(page, 6)
    server.close()
    choose(page, "Method", "saliency")
    banner = page.locator(".banner")
    expect(banner).to_contain_text("cannot be reached")
    expect(card(page, 0).locator("canvas")).to_be_visible()  # what was there is still there
    with insights.serve(insights_studies.images, token=TOKEN, port=server.port):
        banner.get_by_role("button", name="Try again").click()
        expect(banner).to_have_count(0)
        ready(page, 6)
        expect(card(page, 0).locator(".caption")).to_contain_text("saliency")
    with insights.serve(insights_studies.images, token=OTHER, port=server.port):
        choose(page, "Method", "occlusion")
        expect(page.locator(".banner")).to_contain_text("token")


def test_details_are_shown_where_they_were_asked_for(watched: Callable[..., Any]) -> None:
    with insights.serve(insights_studies.broken, token=TOKEN, debug=True) as server:
        page = watched()
        page.goto(f"{server.url}&method=broken&limit=1&offset=1")
        failure = page.locator('.failure[data-kind="model"]').first
        expect(failure).to_contain_text("this method is broken")
        failure.locator("summary").click()
        expect(failure.locator("pre")).to_contain_text("Traceback")
        page.close()


def test_pages_of_others_have_no_effect(
    watched: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    server = served("images")
    handled: list[Any] = []
    handle = server.session.handle
    address = f"http://127.0.0.1:{server.port}"
    attack = f"""<!doctype html><title>attack</title>
    <form id=form action="{address}/api/message" method=post target=frame enctype="text/plain">
      <input name='{{"v":1,"id":"x","client":"x","type":"init","a":"' value='"}}'></form>
    <iframe name=frame></iframe><iframe id=page src="{address}/"></iframe>
    <script>
      const body = '{{"v":1,"id":"x","client":"x","type":"init"}}';
      window.outcomes = [];
      const record = (name) =>
        [(r) => outcomes.push(name + r.type + r.status), () => outcomes.push(name + "refused")];
      const post = (options) =>
        fetch("{address}/api/message", {{method: "POST", body, ...options}});
      const json = {{"Content-Type": "application/json", "X-Attrib-Token": "{TOKEN}"}};
      const tries = [
        post({{headers: json}}).then(...record("json ")),
        post({{headers: {{"Content-Type": "text/plain"}}}}).then(...record("plain ")),
        post({{mode: "no-cors"}}).then(...record("no-cors ")),
        fetch("{address}/").then(...record("page ")),
      ];
      Promise.all(tries)
        .then(() => document.getElementById("form").submit())
        .then(() => document.title = "done");
    </script>"""
    server.session.handle = lambda *given: (handled.append(given), handle(*given))[1]
    try:
        with listening(pages({"/": attack})) as port:
            page = watched(
                forgive=("CORS", "Failed to load", "frame-ancestors", "Framing", "ERR_", "Refused")
            )
            page.goto(f"http://localhost:{port}/")
            expect(page).to_have_title("done")
            page.frame_locator("[name=frame]").locator("body").wait_for(state="attached")
            outcomes = page.evaluate("outcomes")
            assert {each for each in outcomes if "no-cors" not in each} == {
                "json refused",
                "plain refused",
                "page refused",
            }
            assert page.frame_locator("#page").locator("#attrib").count() == 0
            page.close()
    finally:
        server.session.handle = handle
    assert handled == []


def test_a_link_on_another_page_opens_the_app(
    watched: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    with listening(pages({"/": f'<a href="{served("images").url}">open</a>'})) as port:
        page = watched(forgive=("favicon", "404"))
        page.goto(f"http://localhost:{port}/")
        page.get_by_text("open").click()
        ready(page, 6)
        assert TOKEN not in page.url
        page.reload()
        ready(page, 6)
        page.close()


def test_the_app_works_behind_a_prefix(watched: Callable[..., Any]) -> None:
    target: list[int] = []

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            if not self.path.startswith("/proxy/8080/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            onward = http.client.HTTPConnection("127.0.0.1", target[0])
            onward.request(self.command, self.path[len("/proxy/8080") :], body, dict(self.headers))
            reply = onward.getresponse()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while part := reply.read1(65536):
                self.wfile.write(part)
            self.close_connection = True
            onward.close()

        do_GET = do_POST = forward

        def log_message(self, *_: Any) -> None: ...

    with listening(Proxy) as port:
        host = f"127.0.0.1:{port}"
        server = insights.serve(insights_studies.images, token=TOKEN, allowed_hosts=[host])
        with server:
            target.append(server.port)
            page = watched()
            page.goto(f"http://{host}/proxy/8080/#token={TOKEN}")
            ready(page, 6)
            page.close()


@pytest.mark.parametrize(
    "path", ["static/../server.py", "static/%2e%2e/server.py", "static/src/app.js"]
)
def test_there_is_nothing_else_to_fetch(served: Callable[[str], Any], path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served("images").port)
    connection.request("GET", f"/{path}")
    assert connection.getresponse().status == 404
    connection.close()
