"""The widget in a real JupyterLab, with a real kernel, and no network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import card, chips, choose, fingerprint, pressed, ready
from playwright.sync_api import expect

pytest.importorskip("jupyterlab")
pytest.importorskip("anywidget")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[2]
CELLS = [
    "import insights_studies\nfrom attrib import insights\n"
    "w = insights.widget(insights_studies.slow)\nw",
    "import time; time.sleep(6)",
    "print(w.result['method'], w.state.get('mode'), w.selection['sample'])",
    "w",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a notebook in a JupyterLab with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    cells = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": text,
        }
        for i, text in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (home / "book.ipynb").write_text(json.dumps(book))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    environment |= {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
    }
    options = [
        f"--ServerApp.port={port}",
        "--ServerApp.token=lab",
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
            _wait(f"{address}/api/status?token=lab")
            yield f"{address}/lab/tree/book.ipynb?token=lab"
        finally:
            server.terminate()
            server.wait(20)


def _wait(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_the_widget_works_in_jupyterlab(watched: Callable[..., Any], lab: str) -> None:
    page = watched(viewport={"width": 1400, "height": 1200}, forgive=("404", "409", "WebSocket"))
    page.set_default_timeout(40_000)
    page.goto(lab)
    cells = page.locator(".jp-Notebook .jp-Cell")
    expect(cells).to_have_count(len(CELLS), timeout=60_000)

    idle = page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    expect(idle).to_be_visible(timeout=60_000)

    def run(i: int) -> None:
        cells.nth(i).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")

    run(0)
    expect(page.locator(".ai .card")).to_have_count(6, timeout=60_000)
    expect(page.locator(".ai .panel .caption b:first-of-type")).to_have_count(6, timeout=60_000)
    views = page.locator(".ai[data-screen]")
    one = card(page, 0)

    # Another target, while another cell is running.
    run(1)
    expect(cells.nth(1).locator(".jp-InputPrompt")).to_contain_text("[*]")
    before = fingerprint(one.locator("canvas"))
    chips(one).nth(1).click()
    expect(chips(one).nth(1)).to_have_attribute("aria-pressed", "true")
    ready(page, 6)
    assert fingerprint(one.locator("canvas")) != before
    expect(cells.nth(1).locator(".jp-InputPrompt")).to_contain_text("[*]")
    expect(cells.nth(1).locator(".jp-InputPrompt")).to_contain_text("[2]", timeout=20_000)

    # Keys of the widget are no keys of the notebook: m would make this cell Markdown.
    one.focus()
    for key in ("o", "s", "j", "k", "m"):
        page.keyboard.press(key)
    expect(page.locator(".ai .look summary")).to_contain_text("blend")
    assert cells.first.evaluate("el => el.classList.contains('jp-CodeCell')")

    # Python sees what is shown.
    run(2)
    output = cells.nth(2).locator(".jp-OutputArea-output")
    expect(output).to_contain_text("integrated_gradients blend 0")

    # Progress, and stopping.
    choose(views.first, "Method", "slow")
    expect(page.locator(".ai progress:visible").first).to_be_visible()
    one.focus()
    page.keyboard.press("Escape")
    expect(page.locator(".panel[aria-busy]")).to_have_count(0)
    expect(one.locator(".caption")).to_contain_text("integrated gradients")
    assert pressed(one).count() == 1
    choose(views.first, "Method", "saliency")
    ready(page, 6)

    # Twice the same widget is one widget.
    run(3)
    expect(views).to_have_count(2, timeout=30_000)
    expect(views.nth(1).locator(".panel .caption b:first-of-type")).to_have_count(6, timeout=30_000)
    expect(views.nth(1).locator(".look summary")).to_contain_text("blend")
    views.nth(1).locator(".card").first.focus()
    page.keyboard.press("o")
    expect(views.nth(0).locator(".look summary")).to_contain_text("heat map")

    # A kernel that is restarted answers no more, and the page says so.
    page.get_by_text("Kernel", exact=True).first.click()
    page.locator('.lm-Menu-item[data-command="kernelmenu:restart"]').click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(idle).to_be_visible(timeout=60_000)
    choose(views.first, "Method", "occlusion")
    expect(views.first.locator(".banner")).to_contain_text("kernel", timeout=20_000)
    page.close()
