"""Words for what the browser tests look at."""

from __future__ import annotations

import math
from typing import Any

from playwright.sync_api import Locator, Page, expect

import attrib

TOKEN = "0123456789abcdef" * 2
"""What the servers of the tests want to hear."""


def ready(page: Page, panels: int) -> None:
    """Wait until so many attributions are shown, and no job is running."""
    expect(page.locator(".panel .caption b:first-of-type")).to_have_count(panels)
    expect(page.locator(".panel[aria-busy]")).to_have_count(0)


def settled(page: Page) -> None:
    """Nothing is computed and nothing is loading any more."""
    expect(page.locator("[aria-busy]")).to_have_count(0, timeout=30_000)
    expect(page.locator(".skeleton")).to_have_count(0, timeout=30_000)
    expect(page.locator(".progress:visible")).to_have_count(0, timeout=30_000)


def painted(page: Page) -> None:
    """Wait until what has changed is laid out and drawn."""
    page.evaluate("() => new Promise((go) => requestAnimationFrame(() => setTimeout(go)))")


def card(page: Page, sample: int) -> Locator:
    return page.locator(f'.card[data-sample="{sample}"]')


def chips(card: Locator) -> Locator:
    return card.locator(".chip")


def pressed(card: Locator) -> Locator:
    return card.locator('.chip[aria-pressed="true"]')


def choose(page: Page, label: str, value: str) -> None:
    page.get_by_label(label, exact=True).select_option(value)


def pixels(canvas: Locator) -> list[int]:
    """The colours of a canvas, four numbers to a pixel."""
    return canvas.evaluate(
        "el => [...el.getContext('2d').getImageData(0, 0, el.width, el.height).data]"
    )


def fingerprint(canvas: Locator) -> str:
    """What tells two pictures apart."""
    return canvas.evaluate("el => el.toDataURL()")


def point_at(canvas: Locator, row: int, column: int, height: int, width: int) -> None:
    """Move the pointer over the middle of a pixel of the data."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    at = {
        "x": (column + 0.5) / width * box["width"],
        "y": (row + 0.5) / height * box["height"],
    }
    canvas.hover(position=at)


def values_of(elements: Locator) -> list[float]:
    """The exact numbers behind what is displayed."""
    return [float(text) for text in elements.evaluate_all("all => all.map(el => el.dataset.value)")]


def explained(study: Any, sample: int, target: int, method: Any, model: str | None = None) -> Any:
    """What attrib says when it is called directly: the leaves of the attribution, no batch."""
    inputs, _ = study.data[sample]
    leaves = [part[None] for part in (inputs if isinstance(inputs, tuple) else (inputs,))]
    function = study.models[model] if model else next(iter(study.models.values()))
    x, *rest = leaves
    return method(attrib.target(function, target))(x, *rest)[0]


def close(found: list[float], expected: list[float], tolerance: float) -> None:
    """Equal, as far as the resolution of what is shown goes."""
    assert len(found) == len(expected)
    largest = max((abs(number) for number in expected if math.isfinite(number)), default=1.0)
    for one, other in zip(found, expected, strict=True):
        assert abs(one - other) <= tolerance * largest, (one, other)
