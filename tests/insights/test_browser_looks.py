"""The page looks as it did: small pictures of it, compared with a generous tolerance.

The pictures are in ``looks/``, each an eighth of the page in width and height, so that they hold
where things are and which colour they have, and not how letters are drawn. Where a change is meant,
look at the page, and write them anew: ``ATTRIB_LOOKS=write pytest tests/insights -k looks``. They
were taken in DejaVu Sans, which `make test` installs with the browser.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import settled
from PIL import Image

FOLDER = Path(__file__).parent / "looks"
SMALLER = 8
DIFFERENT = 32  # of 255, in any of the three colours of a square of 8 by 8 pixels
TOLERATED = 0.015  # of the squares may be different

LOOKS = {
    "light": ("modal", "limit=3", {"width": 1280, "height": 800}),
    "dark": ("modal", "limit=3", {"width": 1280, "height": 800}),
    "narrow": ("modal", "limit=3", {"width": 700, "height": 900}),
    "phone": ("modal", "limit=3", {"width": 320, "height": 1280}),
    "enlarged": ("modal", "limit=3", {"width": 640, "height": 720}),  # 1280 pixels at 200 %
    "table": ("table", "limit=3", {"width": 1280, "height": 800}),
    "series": ("series", "limit=3", {"width": 1280, "height": 800}),
    "overview": ("images", "view=overview", {"width": 1280, "height": 800}),
    "methods": ("images", "view=detail&sample=1&tab=methods", {"width": 1280, "height": 800}),
}
HIDE = "all => all.forEach((el) => { el.style.visibility = 'hidden'; })"


@pytest.mark.parametrize("name", LOOKS)
def test_the_page_looks_as_it_did(visit: Callable[..., Any], name: str) -> None:
    study, link, size = LOOKS[name]
    scale = 2 if name == "enlarged" else 1
    theme = "dark" if name == "dark" else "light"
    page = visit(study, link, viewport=size, device_scale_factor=scale, color_scheme=theme)
    page.locator("#attrib").evaluate("el => { el.style.fontFamily = 'DejaVu Sans'; }")
    settled(page)
    found = small(page, SMALLER * scale)
    path = FOLDER / f"{name}.png"
    if os.environ.get("ATTRIB_LOOKS") == "write":
        FOLDER.mkdir(exist_ok=True)
        Image.fromarray(found).quantize(256).save(path, optimize=True)
    kept = np.asarray(Image.open(path).convert("RGB"))
    assert kept.shape == found.shape
    assert different(found, kept) <= TOLERATED
    # And it would be noticed if any of what is told apart by colour were not there.
    page.locator("canvas, .bars, .confusion").evaluate_all(HIDE)
    assert different(small(page, SMALLER * scale), kept) > TOLERATED


def small(page: Any, smaller: int) -> np.ndarray[Any, Any]:
    """The page with squares of pixels in place of pixels."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    size = (picture.width // smaller, picture.height // smaller)
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def different(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """The share of squares that are."""
    return float((np.abs(one.astype(int) - other).max(-1) > DIFFERENT).mean())
