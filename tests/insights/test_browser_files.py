"""What leaves the page: pictures, drawings, numbers, reports that work without a network."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import card, chips, explained, fingerprint, pixels, pressed, ready
from playwright.sync_api import expect

import attrib
import insights_studies
from attrib import insights

SVG = "{http://www.w3.org/2000/svg}"


def saved(page: Any, sample: int, form: str) -> bytes:
    """The file that the dialog of a card writes."""
    card(page, sample).locator(".menu summary").click()
    card(page, sample).get_by_role("button", name="Export").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Format").select_option(form)
    if form not in ("png", "svg"):
        expect(dialog.get_by_text("About")).to_be_visible()
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    return Path(download.value.path()).read_bytes()


def test_pictures_hold_what_the_page_shows(visit: Callable[..., Any]) -> None:
    from PIL import Image

    page = visit("images", "mode=heatmap")
    ready(page, 6)
    drawing = ElementTree.fromstring(saved(page, 1, "svg"))
    words = "".join(drawing.itertext())
    assert "Sample 1" in words and "integrated gradients" in words and "raises" in words
    assert drawing.find(f".//{SVG}rect[@data-part='legend']") is not None
    picture = drawing.find(f".//{SVG}image")
    assert picture is not None
    left, top, side = (float(picture.attrib[key]) for key in ("x", "y", "width"))

    png = Image.open(io.BytesIO(saved(page, 1, "png"))).convert("RGB")
    canvas = card(page, 1).locator("canvas")
    shown = np.array(pixels(canvas)).reshape(384, 384, 4)[8::16, 8::16, :3]
    middles = 2 * side / 24 * (np.arange(24) + 0.5)
    rows, columns = (2 * top + middles).astype(int), (2 * left + middles).astype(int)
    found = np.asarray(png)[rows][:, columns]
    assert np.abs(found.astype(int) - shown).max() <= 2
    colours = np.asarray(png).reshape(-1, 3)
    for end in ((20, 84, 156), (163, 74, 0)):  # both ends of the legend are in the picture
        assert (np.abs(colours - np.array(end)).max(-1) <= 6).any()


@pytest.mark.parametrize("study", ["modal", "series", "table", "array"])
def test_every_kind_is_drawn(visit: Callable[..., Any], study: str) -> None:
    page = visit(study, "limit=3")
    ready(page, 3)
    drawing = ElementTree.fromstring(saved(page, 0, "svg"))
    legends = drawing.findall(f".//{SVG}rect[@data-part='legend']")
    assert len(legends) == (2 if study == "modal" else 1)
    assert saved(page, 0, "png")[:8] == b"\x89PNG\r\n\x1a\n"


def test_signs_are_told_without_colours(visit: Callable[..., Any]) -> None:
    page = visit("modal", "limit=3")
    ready(page, 3)
    drawing = ElementTree.fromstring(saved(page, 0, "svg"))
    lines = drawing.findall(f".//{SVG}line")
    raised, lowered = (
        [line.get("stroke-dasharray") for line in lines if line.get("data-part") == way]
        for way in ("raises", "lowers")
    )
    assert len(raised) == page.locator('.card[data-sample="0"] .token.raises').count() > 0
    assert len(lowered) == page.locator('.card[data-sample="0"] .token.lowers').count() > 0
    assert not any(raised)
    assert all(lowered)
    words = "".join(drawing.itertext())
    assert "net +" in words
    assert "99th percentile" in words
    table = visit("table", "limit=3")
    ready(table, 3)
    drawing = ElementTree.fromstring(saved(table, 0, "svg"))
    hatched = [r for r in drawing.findall(f".//{SVG}rect") if r.get("data-part") == "lowers"]
    assert len(hatched) == card(table, 0).locator(".bar.lowers").count() > 0


def test_a_matrix_is_drawn_with_its_names_and_numbers(visit: Callable[..., Any]) -> None:
    page = visit("table", "limit=3&method=interactions")
    ready(page, 3)
    drawing = ElementTree.fromstring(saved(page, 0, "svg"))
    picture = drawing.find(f".//{SVG}image[@data-part='matrix']")
    assert picture is not None
    card(page, 0).get_by_role("button", name="Matrix").click()
    cells = card(page, 0).locator("tbody td").all_inner_texts()
    words = [text.text for text in drawing.findall(f".//{SVG}text")]
    assert len(cells) == 25
    assert set(cells) | {"age", "weight", "pulse", "dose", "sex"} <= set(words)


def test_numbers_are_those_of_attrib(visit: Callable[..., Any]) -> None:
    page = visit("table")
    ready(page, 6)
    told = json.loads(saved(page, 2, "json"))
    arrays = np.load(io.BytesIO(saved(page, 2, "npz")))
    assert len(told["results"]) == 2  # the two most likely classes
    for result in told["results"]:
        expected = explained(
            insights_studies.table, 2, result["target"]["a"], attrib.integrated_gradients
        ).tolist()
        assert np.allclose(result["values"]["patient"], expected, rtol=1e-5)
        assert any(
            arrays[key].size == 5 and np.allclose(arrays[key].ravel(), expected, rtol=1e-5)
            for key in arrays.files
            if np.issubdtype(arrays[key].dtype, np.floating)
        )


def test_a_report_works_without_a_network(
    watched: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit("images")
    ready(page, 6)
    (tmp_path / "report.html").write_bytes(saved(page, 1, "html"))
    live = card(page, 1)
    second = chips(live).nth(1)
    second.click()
    ready(page, 6)
    picture, name = fingerprint(live.locator("canvas")), second.locator("bdi").inner_text()

    asked: list[str] = []
    report = watched(offline=True)
    report.on("request", lambda request: asked.append(request.url))
    report.goto((tmp_path / "report.html").as_uri())
    ready(report, 1)
    expect(report.get_by_text("the settings have changed")).to_have_count(0)
    chips(card(report, 1)).nth(1).click()
    expect(card(report, 1).locator(".caption b").first).to_have_text(name)
    ready(report, 1)
    assert fingerprint(card(report, 1).locator("canvas")) == picture
    chips(card(report, 1)).nth(3).click()
    expect(card(report, 1).locator('.failure[data-kind="absent"]')).to_be_visible()
    expect(pressed(card(report, 1))).to_contain_text(name)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len(report.pdf()) > 20_000


def test_hostile_text_is_text_in_a_report(watched: Callable[..., Any], tmp_path: Path) -> None:
    path = insights.export(insights_studies.hostile, tmp_path / "report.html", samples=[0, 1, 2])
    page = watched(offline=True)
    page.goto(path.as_uri())
    ready(page, 3)
    assert page.evaluate("typeof window.__xss") == "undefined"
    assert (
        page.locator("#attrib script, #attrib img, #attrib svg[onload], #attrib style").count() == 0
    )
    text = page.locator("#attrib").evaluate("el => el.textContent")
    assert all(hostile in text for hostile in insights_studies.HOSTILE[:3])


def test_a_report_of_every_kind_opens(watched: Callable[..., Any], tmp_path: Path) -> None:
    for study in ("modal", "series", "two_models", "regression"):
        path = insights.export(
            getattr(insights_studies, study), tmp_path / f"{study}.html", samples=[0, 1]
        )
        page = watched(offline=True)
        page.goto(path.as_uri())
        ready(page, 4 if study == "two_models" else 2)
        expect(page.locator(".failure")).to_have_count(0)
        page.close()
