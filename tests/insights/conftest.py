"""A real browser in front of real servers, cut off from every network but this machine.

A page that asks for a foreign address, raises, or writes an error to its console fails its test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import pytest

# The extras of the web app and the developer's tools; without them there is nothing to collect.
NEEDED = ("playwright", "starlette", "uvicorn")
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["*.py"]

CHROMIUM = os.environ.get("ATTRIB_CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
FLAGS = [
    "--no-sandbox",  # root, as in containers, has no other way
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
HERE = ("127.0.0.1", "localhost")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI must not skip: install chromium")
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def served() -> Iterator[Callable[[str], Any]]:
    """The server of a study of `insights_studies`, started once."""
    from pages import TOKEN

    import insights_studies
    from attrib import insights

    servers: dict[str, Any] = {}

    def served(name: str) -> Any:
        if name not in servers:
            study = getattr(insights_studies, name)
            servers[name] = insights.serve(study, token=TOKEN)
        return servers[name]

    yield served
    for server in servers.values():
        server.close()


@pytest.fixture
def watched(browser: Any) -> Iterator[Callable[..., Any]]:
    """New pages that are watched; what went wrong on any of them fails the test at its end."""
    troubles: list[str] = []
    contexts: list[Any] = []

    def watched(*, forgive: tuple[str, ...] = (), offline: bool = False, **options: Any) -> Any:
        """A page in a context of its own; errors that contain a word of `forgive` pass."""
        options = {"viewport": {"width": 1280, "height": 900}, "locale": "en-US", **options}
        context = browser.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)

        def only_here(route: Any) -> None:
            address = urlsplit(route.request.url)
            if address.scheme in ("data", "blob", "file") or address.hostname in HERE:
                route.continue_()
            else:
                troubles.append(f"asked for {route.request.url}")
                route.abort()

        def on_error(where: str, text: str) -> None:
            if not any(word in text for word in forgive):
                troubles.append(f"{where}: {text}")

        def on_console(message: Any) -> None:
            if message.type == "error":
                on_error("console", message.text)

        def on_page(page: Any) -> None:
            page.on("pageerror", lambda error: on_error("page error", str(error)))
            page.on("console", on_console)

        context.on("page", on_page)
        context.route("**/*", only_here)
        context.set_offline(offline)
        return context.new_page()

    yield watched
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def visit(watched: Callable[..., Any], served: Callable[[str], Any]) -> Callable[..., Any]:
    """Open the page of a study, at what a link says: `visit("images", method="saliency")`."""

    from pages import TOKEN

    def visit(study: str, link: str = "", **options: Any) -> Any:
        page = watched(**options)
        address = f"http://127.0.0.1:{served(study).port}/#token={TOKEN}"
        page.goto(f"{address}&{link}" if link else address)
        return page

    return visit
