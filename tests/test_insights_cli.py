"""`python -m attrib.insights` serves or writes what is named, and says in a line what it cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from attrib.insights import __main__ as command
from attrib.insights import demo
from insights_asking import TOKEN, http, request

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    "OMP_NUM_THREADS": "1",
}


# What runs in the background ignores the keyboard, and so does all that it starts.
HEEDING = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('attrib.insights', run_name='__main__', alter_sys=True)"
)


def test_a_study_is_served_until_the_keyboard_says_stop() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HEEDING, "insights_studies:table", "--token", TOKEN],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            address = rf"insights_studies:table: http://127.0.0.1:(\d+)/#token={TOKEN}\n"
            found = re.fullmatch(address, line)
            assert found is not None
            port = int(found[1])
            reply = http(port, request(port, body={"type": "init"}))
            assert reply.messages[-1]["study"]["name"] == "ward"
            assert running.stdout.readline() == "Open an address in the browser; Ctrl+C ends.\n"
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=20)
        finally:
            running.kill()
    assert running.returncode == 0
    assert errors == ""


def test_a_report_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.html"
    assert command.main(["insights_studies:table", "--export", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["no_such_module:study"], "No module named"),
        (["insights_studies:HOSTILE"], "is no insights.Study"),
        (["insights_studies:nothing"], "nothing"),
        (["insights_studies:table", "--token", "short"], "token: too weak"),
        (["insights_studies:table", "--port", "-1"], "port: too small"),
        (["insights_studies:table", "--export", "report.pdf"], "path: unknown"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 1
    errors = capsys.readouterr().err
    assert match in errors
    assert errors.count("\n") == 1


def test_without_the_examples_the_ready_studies_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "_EXAMPLES", tmp_path)
    assert command.main([]) == 1
    told = capsys.readouterr()
    assert "checkout of the repository" in told.err
    assert told.err.count("\n") == 1


def test_files_that_cannot_be_had_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for package in ("sklearn", "PIL", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.setenv("ATTRIB_ASSETS", str(tmp_path))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert command.main([]) == 1
    told: Any = capsys.readouterr()
    assert "could not download" in told.err
    assert told.err.count("\n") == 1


def test_the_table_that_comes_along_is_understood() -> None:
    pytest.importorskip("sklearn")
    from attrib.insights.session import Session

    session = Session(demo.tumours())
    found = session.ask({"v": 1, "id": "1", "type": "overview"})
    assert found["accuracy"] > 0.93  # always the more frequent answer: 0.63
    session.close()
