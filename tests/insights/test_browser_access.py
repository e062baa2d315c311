"""For everybody: hostile text, links, keys, screen readers, colour vision, small screens."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pages import TOKEN, card, chips, choose, fingerprint, painted, pressed, ready, settled
from playwright.sync_api import expect

import insights_studies
from attrib.insights import assets
from attrib.plot import colors

HOSTILE = insights_studies.HOSTILE
INJECTED = "script, img, svg[onload], style"
SCREENS = {
    "browse": "",
    "detail": "view=detail&sample=1",
    "methods": "view=detail&sample=1&tab=methods",
    "values": "view=detail&sample=1&tab=values",
    "curves": "view=detail&sample=1&tab=curves",
    "what if": "view=detail&sample=1&tab=edit",
    "overview": "view=overview",
    "pinned": "view=compare&pins=%5B0%2C1%5D",
    "empty": "text=nothing-has-this",
}


def open_all(page: Any) -> None:
    """Open the boxes of the bar."""
    page.locator(".controls summary").evaluate_all(
        "all => all.forEach(el => (el.parentElement.open = true))"
    )


def test_text_from_outside_is_never_markup(visit: Callable[..., Any]) -> None:
    page = visit("hostile")
    settled(page)
    text = page.locator("body").evaluate("el => el.textContent")
    for hostile in HOSTILE:
        assert hostile.replace("\x00", "") in text.replace("\x00", "").replace("\ufffd", "")
    for screen, link in SCREENS.items():
        page.evaluate("link => { location.hash = link; }", link)
        if link:
            shown = link.partition("view=")[2].partition("&")[0] or "browse"
            expect(page.locator("#attrib")).to_have_attribute("data-screen", shown)
        settled(page)
        assert page.evaluate("typeof window.__xss") == "undefined", screen
        assert page.locator(f"#attrib :is({INJECTED})").count() == 0, screen
        bold = page.locator("#attrib b").evaluate_all("all => all.map(el => el.textContent)")
        assert "bold" not in bold, screen


def test_an_error_message_is_text_too(visit: Callable[..., Any]) -> None:
    page = visit("hostile")
    settled(page)
    page.get_by_label("Method", exact=True).select_option(HOSTILE[1])
    expect(page.locator(".failure").first).to_contain_text(HOSTILE[0])
    settled(page)
    assert page.evaluate("typeof window.__xss") == "undefined"
    assert page.locator(f"#attrib :is({INJECTED})").count() == 0


def test_a_link_opens_what_it_was_copied_from(
    visit: Callable[..., Any], watched: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    page = visit("images", permissions=["clipboard-read", "clipboard-write"])
    ready(page, 6)
    choose(page, "Method", "occlusion")
    ready(page, 6)
    page.locator(".filters summary").click()
    choose(page, "Predictions", "correct")
    page.locator(".look summary").click()
    choose(page, "Image", "heatmap")
    choose(page, "Explain the score of", "label")
    settled(page)
    card(page, 2).locator(".menu summary").click()
    card(page, 2).get_by_role("button", name="Open").click()
    settled(page)
    page.get_by_role("button", name="Copy link").first.click()
    expect(page.locator(".toast")).to_contain_text("clipboard")
    link = page.evaluate("navigator.clipboard.readText()")
    assert TOKEN not in link and TOKEN not in page.url
    picture = fingerprint(page.locator(".card canvas"))

    fresh = watched()
    fresh.goto(link.replace("#", f"#token={TOKEN}&"))
    settled(fresh)
    assert TOKEN not in fresh.url
    expect(fresh.locator("#attrib-tab")).to_contain_text("Sample 2")
    expect(fresh.get_by_label("Method", exact=True)).to_have_value("occlusion")
    expect(fresh.get_by_label("Explain the score of")).to_have_value("label")
    assert fingerprint(fresh.locator(".card canvas")) == picture
    fresh.get_by_role("button", name="All samples").click()
    expect(fresh.locator(".filters summary")).to_contain_text("1 filter")


def test_a_bad_link_is_told_and_ignored(visit: Callable[..., Any]) -> None:
    page = visit("images", "method=nothing&mode=sideways&sample=-3&__proto__=1&limit=3")
    ready(page, 3)
    expect(page.locator(".toast")).to_contain_text("left out")
    for key in ("method", "mode", "sample"):
        expect(page.locator(".toast")).to_contain_text(key)


def test_without_a_token_nothing_is_shown(
    watched: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    for fragment in ("", "#token=" + "f" * 32):
        page = watched(forgive=("403",))
        page.goto(f"http://127.0.0.1:{served('images').port}/{fragment}")
        expect(page.get_by_role("alert")).to_contain_text("token")
        assert "shapes" not in page.content()


def test_what_has_the_focus_is_not_under_the_bar(visit: Callable[..., Any]) -> None:
    page = visit("images")
    ready(page, 6)
    page.set_viewport_size({"width": 1280, "height": 600})
    for key in ("j", "j", "j", "k", "k", "Shift+Tab", "Shift+Tab"):
        page.keyboard.press(key)
        below = """() => document.activeElement.getBoundingClientRect().top
            - document.querySelector(".controls").getBoundingClientRect().bottom"""
        if page.evaluate("() => Boolean(document.activeElement.closest('.card'))"):
            assert page.evaluate(below) >= -1, key


def test_the_keyboard_does_everything(visit: Callable[..., Any]) -> None:
    page = visit("images")
    ready(page, 6)
    keys = page.keyboard
    keys.press("j")
    expect(card(page, 0)).to_be_focused()
    keys.press("j")
    expect(card(page, 1)).to_be_focused()
    keys.press("k")
    expect(card(page, 0)).to_be_focused()
    keys.press("2")
    second = chips(card(page, 0)).nth(1)
    expect(second).to_have_attribute("aria-pressed", "true")
    ready(page, 6)
    view = page.locator(".look summary")
    expect(view).to_contain_text("overlay")
    keys.press("o")
    expect(view).to_contain_text("blend")
    keys.press("s")
    expect(view).to_contain_text("what raises")
    keys.press("p")
    expect(page.get_by_role("button", name="Pinned (1)")).to_be_visible()
    keys.press("]")
    expect(card(page, 6)).to_be_visible()
    keys.press("[")
    expect(card(page, 0)).to_be_visible()
    ready(page, 6)
    keys.press("m")
    expect(page.get_by_label("Method", exact=True)).to_be_focused()
    keys.press("j")  # a letter for the select now
    expect(page.get_by_label("Method", exact=True)).to_be_focused()
    page.locator("#attrib").evaluate("() => document.activeElement.blur()")
    keys.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    keys.press("j")
    keys.press("e")
    expect(page.get_by_role("dialog")).to_contain_text("Export")
    keys.press("Escape")
    expect(card(page, 0)).to_be_focused()
    keys.press("Enter")
    expect(page.locator("#attrib")).to_have_attribute("data-screen", "detail")


def test_arrows_read_pixels_and_plus_zooms(visit: Callable[..., Any]) -> None:
    page = visit("images", "limit=3")
    ready(page, 3)
    one = card(page, 0)
    canvas = one.locator("canvas")
    canvas.focus()
    canvas.press("ArrowDown")
    expect(one.locator(".readout")).to_contain_text("row 12, column 12")
    canvas.press("Shift+ArrowRight")
    expect(one.locator(".readout")).to_contain_text("row 12, column 22")
    for _ in range(3):
        canvas.press("Shift+ArrowDown")
    expect(one.locator(".readout")).to_contain_text("row 23, column 22")
    canvas.press("+")
    expect(canvas).to_have_attribute("style", re.compile(r"scale\(1\.5\)"))
    canvas.press("0")
    expect(canvas).to_have_attribute("style", re.compile(r"scale\(1\)"))


def test_tab_reaches_every_control_and_the_focus_is_seen(visit: Callable[..., Any]) -> None:
    page = visit("images", "limit=3")
    ready(page, 3)
    wanted = page.evaluate(
        "[...document.querySelectorAll('#attrib :is(button, select, input, summary, canvas)')]"
        ".filter(el => el.checkVisibility() && !el.disabled && el.tabIndex >= 0).length"
    )
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(() => { const el = document.activeElement; if (el === document.body) return null;"
            "el.dataset.seen ??= String(Math.random()); const style = getComputedStyle(el);"
            "return [el.dataset.seen, style.outlineStyle, parseFloat(style.outlineWidth)]; })()"
        )
        if found is None:
            break
        reached.add(found[0])
        assert found[1] != "none" and found[2] >= 1
    assert len(reached) >= wanted


@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_no_violation(visit: Callable[..., Any], screen: str) -> None:
    page = visit("modal", f"{SCREENS[screen]}&limit=3")
    settled(page)
    open_all(page)
    check(page, screen)


@pytest.mark.parametrize("key", ["?", "e"])
def test_axe_finds_no_violation_in_dialogs(visit: Callable[..., Any], key: str) -> None:
    page = visit("table", "limit=3")
    settled(page)
    page.keyboard.press(key)
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page, key)


@pytest.mark.parametrize("study", ["text", "table", "series", "broken", "degenerate", "array"])
def test_axe_finds_no_violation_in_other_views(visit: Callable[..., Any], study: str) -> None:
    link = {"broken": "method=broken", "degenerate": "method=spoiled"}.get(study, "")
    page = visit(study, f"{link}&limit=3")
    settled(page)
    check(page, study)


UNDER_THE_POINTER = (
    *(".chip[aria-pressed=true]", ".chip[aria-pressed=false]", ".tabs [aria-current]"),
    *(".tabs button:not([aria-current])", ".controls summary", ".menu summary"),
    *(".card button:not(.chip)", "button.primary", ".top .end button", ".pager button"),
)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_under_the_pointer_is_readable(visit: Callable[..., Any], theme: str) -> None:
    page = visit("table", "limit=1&offset=1&run=demand", color_scheme=theme)
    settled(page)
    card(page, 1).get_by_role("button", name="Run").click()
    ready(page, 1)
    seen = 0
    for selector in UNDER_THE_POINTER:
        part = page.locator(selector).first
        if part.count() and part.is_enabled():
            seen += 1
            part.hover()
            check(page, f"{selector} hovered", (CONTRAST,), part=selector)
            page.mouse.down()
            check(page, f"{selector} held", (CONTRAST,), part=selector)
            page.mouse.move(0, 0)
            page.mouse.up()
    assert seen >= 8


CONTRAST = "color-contrast"


def check(page: Any, where: str, rules: tuple[str, ...] = (), part: str | None = None) -> None:
    """No rule is broken, of all that there are; those about colours in the dark as well."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": tags}
    options = {"runOnly": only, "resultTypes": ["violations"]}
    found = axe.run(page, context=part, options=options)
    told = [
        (
            rule["id"],
            [
                node["html"][:160] + " " + node.get("failureSummary", "")[:200]
                for node in rule["nodes"][:3]
            ],
        )
        for rule in found.response["violations"]
    ]
    assert told == [], where
    if not rules:
        page.emulate_media(color_scheme="dark")
        expect(page.locator("#attrib")).to_have_attribute("data-theme", "dark")
        check(page, f"{where} in the dark", (CONTRAST,))
        page.emulate_media(color_scheme="light")


# Machado, Oliveira and Fernandes (2009), severity 1, https://doi.org/10.1109/TVCG.2009.113
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritan": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def test_what_raises_and_what_lowers_is_told_apart(visit: Callable[..., Any]) -> None:
    """In the pixels of the legend, at a quarter of the scale, CIELAB differs by 40."""
    page = visit("images", "limit=3")
    ready(page, 3)
    ramp = page.locator(".ramp").first
    ramp.scroll_into_view_if_needed()
    raised, lowered = (colour_at(ramp, (1 + part) / 2) for part in (0.25, -0.25))
    for sight, matrix in DEFICIENCIES.items():
        assert np.linalg.norm(lab(matrix, raised) - lab(matrix, lowered)) >= 40, sight


def colour_at(ramp: Any, place: float) -> np.ndarray[Any, Any]:
    """The colour on the screen."""
    import io

    from PIL import Image

    picture = Image.open(io.BytesIO(ramp.screenshot())).convert("RGB")
    x = min(picture.width - 1, round(place * (picture.width - 1)))
    return np.array(picture.getpixel((x, picture.height // 2))) / 255


def lab(matrix: Any, colour: Any) -> Any:
    """CIELAB, D65, of a colour as seen."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    seen = np.clip(matrix @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    x, y, z = to_xyz @ seen / np.array([0.95047, 1.0, 1.08883])
    f = [t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_words_on_colours_are_readable(visit: Callable[..., Any]) -> None:
    page = visit("text", "merge=none")
    ready(page, 6)
    pairs = page.locator(".token").evaluate_all(
        "all => all.map(el => [getComputedStyle(el).color, getComputedStyle(el).backgroundColor])"
    )
    assert len(pairs) > 30
    for ink, paper in pairs:
        first, second = (
            np.array([int(n) for n in re.findall(r"\d+", each)[:3]]) / 255 for each in (ink, paper)
        )
        assert colors.contrast(first, second) >= 4.5


def test_both_languages_have_the_same_colours() -> None:
    source = assets.bundle()
    for name, stops in colors.PALETTES.items():
        found = re.search(rf"PALETTES = \{{.*?\b{name}: \[(.*?)\]", source, re.DOTALL)
        assert found and tuple(re.findall(r"#\w{6}", found.group(1))) == tuple(stops)
    for name, stops in colors.MAGNITUDES.items():
        found = re.search(rf"MAGNITUDES = \{{.*?\b{name}: \[(.*?)\]", source, re.DOTALL)
        assert found and tuple(re.findall(r"#\w{6}", found.group(1))) == tuple(stops)
    assert f'MISSING = "{colors.MISSING}"' in source


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_sticks_out(visit: Callable[..., Any], screen: str) -> None:
    """Narrow as a phone, and as wide as 1280 pixels are at 200 %: no scrolling sideways."""
    page = visit("modal", SCREENS[screen])
    settled(page)
    open_all(page)
    for width, height in ((1280, 800), (640, 360), (320, 640)):
        page.set_viewport_size({"width": width, "height": height})
        painted(page)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
        small = page.locator("#attrib :is(button, select, summary):visible").evaluate_all(
            "all => all.filter(el => { const box = el.getBoundingClientRect();"
            "return el.isConnected && (box.width < 23.5 || box.height < 23.5); })"
            ".map(el => el.outerHTML.slice(0, 120))"
        )
        assert small == [], width


def test_dark_and_light_follow_the_system(visit: Callable[..., Any]) -> None:
    grounds = []
    for theme in ("light", "dark"):
        page = visit("images", "limit=3", color_scheme=theme)
        ready(page, 3)
        grounds.append(
            page.locator("#attrib").evaluate("el => getComputedStyle(el).backgroundColor")
        )
        assert pressed(card(page, 0)).count() == 1
    light, dark = (sum(int(n) for n in re.findall(r"\d+", each)) for each in grounds)
    assert light > 650 and dark < 150
