"""The contract with anywidget: one module, no relative import, `model` and `el` and a `signal`."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import card, chips, fingerprint, pressed, ready
from playwright.sync_api import expect

import insights_studies
from attrib.insights import assets
from attrib.insights.protocol import pack
from attrib.insights.session import Session

HOST = """async (source) => {
  const blob = new Blob([source], { type: "text/javascript" });
  const { default: widget } = await import(URL.createObjectURL(blob));
  const heard = { "msg:custom": [], "change:state": [] };
  const state = { state: {}, selection: {} };
  window.sent = [];
  window.model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => {},
    on: (event, listen) => (heard[event] ??= []).push(listen),
    off: (event, listen) => { heard[event] = heard[event].filter((one) => one !== listen); },
    send: async (message) => {
      sent.push(message.type);
      for (const [header, buffers] of await ask(JSON.stringify(message))) {
        const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const views = buffers.map((text) => new DataView(bytes(text).buffer));
        for (const listen of heard["msg:custom"]) listen(header, views);
      }
    },
  };
  window.push = (value) => {
    state.state = value;
    heard["change:state"].forEach((listen) => listen());
  };
  window.listeners = () => heard["msg:custom"].length;
  window.end = new AbortController();
  const el = document.getElementById("cell");
  await widget.render({ model, el, signal: end.signal });
}"""


def test_the_widget_works_in_a_host_of_the_contract(watched: Callable[..., Any]) -> None:
    session = Session(insights_studies.images)

    def ask(text: str) -> list[Any]:
        """Everything that is answered to one message."""
        told: list[Any] = []
        done = threading.Event()

        def emit(message: dict[str, Any]) -> None:
            packed = pack(message)
            told.append(
                [packed.header, [base64.b64encode(bytes(b)).decode() for b in packed.buffers]]
            )
            if message["type"] not in ("progress", "partial"):
                done.set()

        session.handle(json.loads(text), emit)
        assert done.wait(20)
        return told

    page = watched()
    page.expose_function("ask", ask)
    page.set_content(
        "<!doctype html><html lang=en><title>notebook</title><body>"
        "<div id=outside tabindex=0>cell</div><div id=cell></div>"
    )
    page.add_style_tag(content=assets.text("app.css"))
    outside: list[str] = []
    page.expose_function("heard", lambda key: outside.append(key))
    page.evaluate("() => { document.addEventListener('keydown', (event) => heard(event.key)); }")
    page.evaluate(HOST, assets.bundle())
    ready(page, 6)
    expect(page.locator("main")).to_have_count(0)  # the notebook has its own

    one = card(page, 0)
    before = fingerprint(one.locator("canvas"))
    chips(one).nth(1).click()
    ready(page, 6)
    assert fingerprint(one.locator("canvas")) != before
    target = int(pressed(one).get_attribute("data-class"))
    selection = page.evaluate("model.get('selection')")
    assert selection["sample"] == 0 and selection["target"]["a"] == target

    # Keys of the notebook are left alone, and those of the widget do not reach it.
    page.locator("#outside").focus()
    page.keyboard.press("o")
    expect(page.locator(".look summary")).to_contain_text("overlay")
    assert outside == ["o"]
    one.focus()
    page.keyboard.press("o")
    expect(page.locator(".look summary")).to_contain_text("blend")
    assert outside == ["o"]
    assert page.evaluate("model.get('state').mode") == "blend"

    page.evaluate("push({ v: 1, mode: 'heatmap', limit: 3 })")
    ready(page, 3)
    expect(page.locator(".look summary")).to_contain_text("heat map")

    page.evaluate("end.abort()")
    assert page.evaluate("sent.at(-1)") == "cancel"
    assert page.evaluate("listeners()") == 0
    session.close()


def test_every_word_has_its_place_in_the_table() -> None:
    folder = Path(assets.__file__).parent / "static" / "src"
    table = set(re.findall(r"^  (\w+):", (folder / "strings.js").read_text("utf-8"), re.MULTILINE))
    sources = [path.read_text("utf-8") for path in folder.glob("*.js")]
    used = {word for source in sources for word in re.findall(r"\bT\.(\w+)", source)}
    assert used <= table
    assert table - used <= {"min_conf", "max_conf"}  # found by the name of their filter


def test_the_module_imports_nothing() -> None:
    source = assets.bundle()
    assert "\nimport " not in source
    lines = [line for line in source.splitlines() if line.startswith("export ")]
    assert lines[-1].startswith("export default {") and len(lines) == 2
    assert not any(
        word in source for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(")
    )
    for address in ("http://", "https://"):
        assert source.replace("http://www.w3.org/2000/svg", "").count(address) == 0
