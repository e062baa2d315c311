"""The widget in a real JupyterLab and a real Notebook, with real kernels, and no network."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pages import card, chips, choose, fingerprint, pressed, ready
from playwright.sync_api import expect

from attrib import plot
from attrib.plot import colors

for package in ("jupyterlab", "notebook", "anywidget", "ipykernel"):
    pytest.importorskip(package)

ROOT = Path(__file__).resolve().parents[2]
SHOW, BUSY, ASK, PLOT, AGAIN, SLOW, IDLE = range(7)
CELLS = [
    "import time\nimport insights_studies\nfrom attrib import insights, plot\n"
    "w = insights.widget(insights_studies.slow)\nw",
    # Ends when Python hears of another target, which it cannot if messages wait for the cell.
    "before, end = w.selection, time.time() + 20\n"
    "while w.selection == before and time.time() < end: time.sleep(0.02)\n"
    "print('deaf' if w.selection == before else 'heard')",
    "print(w.result['method'], w.state['mode'], w.selection['sample'])\n"
    "w.state = {**w.state, 'mode': 'contour', 'limit': 3}",
    "plot.image(w.result['features']['photo']['values'].values)",
    "w",
    "w.state = {**w.state, 'method': 'slow', 'args': {'steps': 400}}",
    "end = time.time() + 2\n"
    "while w._session.workers.busy and time.time() < end: time.sleep(0.02)\n"
    "print('busy' if w._session.workers.busy else 'idle')\n"
    "w.state = {**w.state, 'method': 'saliency', 'args': {}}",
]
OLD = [
    "import time\nimport insights_studies\nfrom attrib import insights\n"
    "w = insights.widget(insights_studies.images)\nw",
    "before = w.selection\ntime.sleep(2.5)\nprint('deaf' if w.selection == before else 'heard')",
]
TOKENS, NUMBERS = ["a", "good", "<b>film</b>"], [0.0, 1.0, -0.5]


class Jupyter(NamedTuple):
    """A server of both kinds of notebooks, and its folder."""

    address: str
    folder: Path

    def url(self, shell: str, name: str) -> str:
        # A workspace of its own has no other notebooks open.
        path = {"lab": f"lab/workspaces/{name}/tree", "notebook": "notebooks"}[shell]
        return f"{self.address}/{path}/{name}.ipynb?token=jupyter"


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server with settings of its own."""
    home = tmp_path_factory.mktemp("jupyter")
    for shell in ("lab", "notebook"):
        write(home / f"{shell}.ipynb", [code(text) for text in CELLS])
    write(home / "old.ipynb", [code(text) for text in OLD])
    write(home / "kept.ipynb", kept())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "OMP_NUM_THREADS": "1",
    }
    options = [
        f"--ServerApp.port={port}",
        "--IdentityProvider.token=jupyter",
        f"--ServerApp.root_dir={home}",
        "--ServerApp.allow_root=True",
        "--no-browser",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/api/status?token=jupyter")
            yield Jupyter(address, home)
        finally:
            server.terminate()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:  # it waits for a kernel that has just begun
                server.kill()
                server.wait()


def _wait(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    """A cell, with what it has printed."""
    told = [{"output_type": "display_data", "metadata": {}, "data": data} for data in outputs]
    return {
        "cell_type": "code",
        "metadata": {},
        "source": source,
        "outputs": told,
        "execution_count": None,
    }


def write(path: Path, cells: list[dict[str, Any]]) -> None:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [{"id": f"cell-{i}", **cell} for i, cell in enumerate(cells)]
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(book))


def kept() -> list[dict[str, Any]]:
    """Cells that somebody else has run, one of them with ill will."""
    picture = io.BytesIO()
    plot.image(np.linspace(-1, 1, 64).reshape(8, 8)).savefig(picture, format="png")
    png = base64.b64encode(picture.getvalue()).decode()
    hostile = "<script>window.__xss = 1</script><img src=x onerror='window.__xss = 1'>"
    return [
        code("plot.text(tokens, attr)", plot.text(TOKENS, NUMBERS)._repr_mimebundle_()),
        code("plot.image(attr)", {"image/png": png, "text/plain": "a picture"}),
        code("hostile", {"text/html": hostile}, {"application/javascript": "window.__xss = 1"}),
    ]


def colour(value: float) -> str:
    """What a style sheet calls the colour of a number."""
    red, green, blue = (round(255 * part) for part in colors.paint([value])[0])
    return f"rgb({red}, {green}, {blue})"


# What the servers and pages of Jupyter complain of by themselves.
JUPYTER = ("404", "409", "WebSocket", "reading 'schema'", "filebrowser:open-path")


def ready_cells(page: Any, count: int) -> Any:
    """The cells, once the kernel is there: what is run before is lost."""
    # On a machine that is short of time Jupyter asks what to do, in front of everything.
    asked = page.locator(".jp-Dialog")
    page.add_locator_handler(asked, lambda found: found.locator(".jp-mod-accept").first.click())
    cells = page.locator(".jp-Notebook .jp-Cell")
    expect(cells).to_have_count(count, timeout=60_000)
    idle = page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    expect(idle).to_be_attached(timeout=60_000)
    return cells


def run_cell(page: Any, i: int) -> None:
    cell = page.locator(".jp-Notebook .jp-Cell").nth(i)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    for last in (False, True):  # a page that is still starting loses keys
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        try:
            expect(prompt).not_to_have_text(before, timeout=10_000)
            return
        except AssertionError:
            if last:
                raise


@pytest.mark.parametrize("shell", ["lab", "notebook"])
def test_the_widget_works_in_a_notebook(
    watched: Callable[..., Any], jupyter: Jupyter, shell: str
) -> None:
    page = watched(viewport={"width": 1400, "height": 1200}, forgive=JUPYTER)
    page.set_default_timeout(40_000)
    page.goto(jupyter.url(shell, shell))
    cells = ready_cells(page, len(CELLS))
    views = page.locator(".ai[data-screen]")
    keys = page.keyboard

    def run(i: int) -> None:
        run_cell(page, i)

    def menu(name: str, command: str) -> None:
        page.locator(".lm-MenuBar-item").filter(has_text=re.compile(f"^{name}$")).click()
        page.locator(f'.lm-Menu-item[data-command="{command}"]').click()

    def printed(i: int) -> Any:
        return expect(cells.nth(i).locator(".jp-OutputArea-output").first)

    run(SHOW)
    expect(views.locator(".card")).to_have_count(6, timeout=60_000)
    ready(page, 6)
    one = card(page, 0)

    # Another target, while another cell is running.
    run(BUSY)
    expect(cells.nth(BUSY).locator(".jp-InputPrompt")).to_contain_text("[*]")
    before = fingerprint(one.locator("canvas"))
    chips(one).nth(1).click()
    printed(BUSY).to_contain_text("heard")
    ready(page, 6)
    expect(chips(one).nth(1)).to_have_attribute("aria-pressed", "true")
    assert fingerprint(one.locator("canvas")) != before

    # Keys of the widget are no keys of the notebook: m makes Markdown of a cell, d d deletes it.
    one.focus()
    for key in ("o", "s", "s", "s", "s", "j", "k", "m"):
        keys.press(key)
    expect(views.locator(".look summary")).to_contain_text("blend")
    steps = views.locator('[data-argument="steps"] input')
    steps.focus()
    for key in ("d", "d", "x", "Backspace", "Backspace", "Backspace"):
        keys.press(key)
    expect(cells).to_have_count(len(CELLS))
    assert cells.first.evaluate("el => el.classList.contains('jp-CodeCell')")
    # And those of the notebook are none of the widget: ? would open its help.
    cells.nth(ASK).locator(".jp-InputPrompt").click()
    keys.press("Shift+?")
    expect(views.get_by_role("dialog")).to_have_count(0)

    # Progress, and stopping.
    choose(views.first, "Method", "slow")
    expect(views.locator("progress:visible").first).to_be_visible()
    one.focus()
    keys.press("Escape")
    expect(page.locator(".panel[aria-busy]")).to_have_count(0)
    expect(one.locator(".caption")).to_contain_text("integrated gradients")
    assert pressed(one).count() == 1
    choose(views.first, "Method", "saliency")
    ready(page, 6)
    chips(one).nth(2).click()
    ready(page, 6)

    # Python sees what is shown, and says what shall be.
    run(ASK)
    printed(ASK).to_contain_text("saliency blend 0")
    expect(views.locator(".card")).to_have_count(3)
    expect(views.locator(".look summary")).to_contain_text("contour")
    run(PLOT)
    expect(cells.nth(PLOT).locator("img")).to_have_attribute("src", re.compile("^data:image/png"))

    # Twice the same widget is one widget.
    run(AGAIN)
    expect(views).to_have_count(2)
    ready(page, 6)
    expect(views.nth(1).locator(".look summary")).to_contain_text("contour")
    views.nth(1).locator(".card").first.focus()
    keys.press("o")
    expect(views.nth(0).locator(".look summary")).not_to_contain_text("contour")

    # Nothing is computed any more for what has been deleted.
    run(SLOW)
    expect(views.locator("progress:visible").first).to_be_visible()
    menu("Edit", "editmenu:clear-all")
    expect(views).to_have_count(0)
    run(IDLE)
    printed(IDLE).to_contain_text("idle")
    run(AGAIN)
    ready(page, 3)
    expect(card(page, 0).locator(".caption")).to_contain_text("saliency")

    # A kernel that is restarted answers no more, and the page says so.
    menu("Kernel", "kernelmenu:restart")
    page.remove_locator_handler(page.locator(".jp-Dialog"))  # this question is ours
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(page.locator(".jp-Dialog")).to_have_count(0)
    choose(views.first, "Method", "occlusion")
    expect(views.first.locator(".banner")).to_contain_text("kernel", timeout=30_000)
    page.close()


def test_a_kernel_that_does_one_thing_at_a_time_answers_after_the_cell(
    watched: Callable[..., Any], jupyter: Jupyter
) -> None:
    """As all before ipykernel 7 do, and newer ones where JupyterLab is told to use no subshells."""
    settings = jupyter.folder / "config" / "lab" / "user-settings" / "@jupyterlab"
    kernels = settings / "apputils-extension" / "kernels-settings.jupyterlab-settings"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    kernels.write_text('{"commsOverSubshells": "disabled"}')
    page = watched(viewport={"width": 1400, "height": 1200}, forgive=JUPYTER)
    page.set_default_timeout(40_000)
    page.goto(jupyter.url("lab", "old"))
    cells = ready_cells(page, len(OLD))
    kernels.unlink()
    run_cell(page, 0)
    expect(page.locator(".ai .card")).to_have_count(6, timeout=60_000)
    ready(page, 6)
    one = card(page, 0)
    before = fingerprint(one.locator("canvas"))
    run_cell(page, 1)
    expect(cells.nth(1).locator(".jp-InputPrompt")).to_contain_text("[*]")
    chips(one).nth(1).click()
    expect(cells.nth(1).locator(".jp-InputPrompt")).to_contain_text("[*]")
    expect(cells.nth(1).locator(".jp-OutputArea-output").first).to_contain_text("deaf")
    ready(page, 6)
    expect(chips(one).nth(1)).to_have_attribute("aria-pressed", "true")
    assert fingerprint(one.locator("canvas")) != before
    page.close()


@pytest.mark.parametrize("shell", ["lab", "notebook"])
def test_what_somebody_else_has_run_is_coloured_and_runs_nothing(
    watched: Callable[..., Any], jupyter: Jupyter, shell: str
) -> None:
    page = watched(forgive=JUPYTER)
    page.set_default_timeout(40_000)
    page.goto(jupyter.url(shell, "kept"))
    output = page.locator(".jp-Notebook .jp-OutputArea-output")
    expect(output.locator("img[src^='data:image/png']")).to_be_visible(timeout=60_000)
    for token, value in zip(TOKENS[1:], NUMBERS[1:], strict=True):
        shown = output.locator("span[title]").filter(has_text=token)
        expect(shown).to_have_css("background-color", colour(value))
    expect(page.locator(".jp-Notebook .jp-Cell").nth(2)).to_be_attached()
    assert page.evaluate("typeof window.__xss") == "undefined"
    page.close()


def test_a_notebook_as_a_page_is_read_without_a_network(
    watched: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path / "kept.ipynb", kept()[:2])
    # What its template takes from other servers is for formulas, diagrams and live widgets.
    without = ["--HTMLExporter.mathjax_url=", "--HTMLExporter.require_js_url="]
    command = [sys.executable, "-m", "nbconvert", "--to=html", *without, "kept.ipynb"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    page = watched(offline=True)
    page.goto((tmp_path / "kept.html").as_uri())
    picture = page.locator("img[src^='data:image/png']")
    assert picture.evaluate("el => el.complete && el.naturalWidth") > 100
    for token, value in zip(TOKENS[1:], NUMBERS[1:], strict=True):
        shown = page.locator("span[title]").filter(has_text=token)
        expect(shown).to_have_css("background-color", colour(value))
