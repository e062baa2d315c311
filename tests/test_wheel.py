"""The wheel is whole: what it installs draws, serves, exports and makes widgets by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

for needed in ("anywidget", "hatchling", "matplotlib", "starlette", "uvicorn"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parents[1]
SMOKE = """
import sys, urllib.request
import torch, attrib
from attrib import insights, plot
assert attrib.__file__.startswith(sys.argv[1]), attrib.__file__

plot.image(torch.randn(3, 8, 8), torch.rand(3, 8, 8)).savefig(sys.argv[1] + "/plot.png")

study = insights.Study(
    models=lambda x: x[:, :2],
    data=[(torch.rand(4), 0)] * 2,
    features={"row": insights.tabular(list("abcd"))},
)
with insights.serve(study, port=0, open_browser=False) as server:
    home = server.url.partition("#")[0]
    for name in ("", "static/app.css", "static/host.js"):
        assert urllib.request.urlopen(home + name).status == 200
assert len(str(insights.widget(study)._esm)) > 10_000
insights.export(study, sys.argv[1] + "/report.html")
"""


def test_the_wheel_is_whole_and_works_without_its_sources(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    built = subprocess.run([*build, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert not built.returncode, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        there = set(archive.namelist())

    package = (path for path in (ROOT / "attrib").rglob("*") if path.is_file())
    files = {path.relative_to(ROOT).as_posix() for path in package if path.suffix != ".pyc"}
    assert "attrib/py.typed" in files and files <= there
    (metadata,) = (tmp_path / "site").glob("*.dist-info/METADATA")
    extras = ("plot", "insights", "notebook", "progress")
    assert all(f"Provides-Extra: {extra}\n" in metadata.read_text("utf-8") for extra in extras)

    site = str(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": site}
    command = [sys.executable, "-c", SMOKE, site]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    assert (tmp_path / "site" / "plot.png").stat().st_size > 1000
    assert "<script" in (tmp_path / "site" / "report.html").read_text("utf-8")
