"""What a page shows is what attrib says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pages import (
    card,
    chips,
    choose,
    close,
    explained,
    fingerprint,
    painted,
    point_at,
    pressed,
    ready,
    values_of,
)
from playwright.sync_api import expect

import attrib
import insights_studies


def test_first_view_is_small_and_complete(
    watched: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    page = watched()
    sizes: dict[str, int] = {}

    def weigh(request: Any) -> None:
        if "/static/" in request.url:
            sizes[request.url] = request.sizes()["responseBodySize"]

    page.on("requestfinished", weigh)
    page.goto(served("images").url)
    ready(page, 6)
    expect(page).to_have_title(insights_studies.images.name)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.locator(".card")).to_have_count(6)
    assert len(sizes) == 3
    assert sum(sizes.values()) < 100_000


def test_pixels_read_what_attrib_computes(visit: Callable[..., Any]) -> None:
    page = visit("images")
    ready(page, 6)
    study = insights_studies.images
    one = card(page, 2)
    target = int(pressed(one).get_attribute("data-class"))
    expected = explained(study, 2, target, attrib.integrated_gradients).sum(0)
    canvas = one.locator(".image canvas")
    found, wanted = [], []
    for row, column in ((0, 0), (5, 7), (12, 12), (23, 1), (23, 23)):
        point_at(canvas, row, column, 24, 24)
        readout = one.locator(".readout")
        expect(readout).to_contain_text(f"row {row}, column {column}:")
        found += values_of(readout)
        wanted.append(expected[row, column].item())
    # Sixteen bits for the range of all pixels.
    largest = expected.abs().max().item()
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 1e-3 * largest


def test_scale_of_the_legend_is_the_percentile_of_the_sizes(visit: Callable[..., Any]) -> None:
    page = visit("images")
    ready(page, 6)
    one = card(page, 1)
    target = int(pressed(one).get_attribute("data-class"))
    sizes = explained(insights_studies.images, 1, target, attrib.integrated_gradients).sum(0).abs()
    shown = float(one.locator("[data-limit]").get_attribute("data-limit"))
    within = (sizes <= shown * (1 + 1e-5)).float().mean().item()
    assert 0.985 <= within <= 0.995


def test_tokens_show_the_gradient_of_their_embeddings(visit: Callable[..., Any]) -> None:
    page = visit("text", "method=saliency&merge=none")
    ready(page, 6)
    study = insights_studies.text
    one = card(page, 3)
    (ids, mask), _ = study.data[3]
    target = int(pressed(one).get_attribute("data-class"))
    model = study.models["reader"]

    def score(embedded: torch.Tensor) -> torch.Tensor:
        found, weights = model.encoder(embedded), mask[None, :, None]
        return model.head((found * weights).sum(1) / weights.sum(1))[0, target]

    gradient = torch.func.grad(score)(model.embedding(ids)[None])[0]
    close(values_of(one.locator(".token")), gradient.sum(-1).tolist(), 1e-3)


def test_bars_show_what_attrib_computes(visit: Callable[..., Any]) -> None:
    page = visit("table")
    ready(page, 6)
    one = card(page, 4)
    target = int(pressed(one).get_attribute("data-class"))
    expected = explained(insights_studies.table, 4, target, attrib.integrated_gradients).tolist()
    shown = values_of(one.locator(".bars .figure"))
    close(shown, sorted(expected, key=abs, reverse=True), 1e-3)


def test_series_read_what_attrib_computes(visit: Callable[..., Any]) -> None:
    page = visit("series")
    ready(page, 6)
    one = card(page, 1)
    target = int(pressed(one).get_attribute("data-class"))
    expected = explained(insights_studies.series, 1, target, attrib.integrated_gradients)
    canvas = one.locator(".series canvas").nth(1)
    canvas.focus()
    canvas.press("ArrowRight")
    for _ in range(3):
        canvas.press("Shift+ArrowLeft")
    readout = one.locator(".readout")
    expect(readout).to_contain_text("lead II at 1.5 s")
    close(values_of(readout), [expected[1, 30].item()], 1e-3)


def test_arrays_show_their_largest_entries(visit: Callable[..., Any]) -> None:
    page = visit("array")
    ready(page, 4)
    one = card(page, 0)
    target = int(pressed(one).get_attribute("data-class"))
    expected = explained(insights_studies.array, 0, target, attrib.integrated_gradients)
    largest = sorted(expected.flatten().tolist(), key=abs, reverse=True)[:8]
    close(values_of(one.locator(".bars .figure")), largest, 1e-3)


def test_pressing_a_target_explains_it_and_leaves_other_cards_alone(
    visit: Callable[..., Any],
) -> None:
    page = visit("images")
    ready(page, 6)
    one, other = card(page, 0), card(page, 1)
    before = fingerprint(one.locator("canvas"))
    beside = fingerprint(other.locator("canvas"))
    chip = chips(one).nth(2)
    target = int(chip.get_attribute("data-class"))
    chip.click()
    expect(one.locator(".caption b").first).to_have_text(insights_studies.SHAPES[target])
    ready(page, 6)
    assert fingerprint(one.locator("canvas")) != before
    assert fingerprint(other.locator("canvas")) == beside
    expect(pressed(one)).to_have_count(1)
    expect(pressed(one)).to_have_attribute("data-class", str(target))
    expected = explained(insights_studies.images, 0, target, attrib.integrated_gradients).sum(0)
    point_at(one.locator("canvas"), 11, 9, 24, 24)
    close(values_of(one.locator(".readout")), [expected[11, 9].item()], 1e-2)


def test_after_twenty_quick_presses_the_last_one_is_shown(visit: Callable[..., Any]) -> None:
    page = visit("images", "limit=3&method=integrated_gradients&args=%7B%22steps%22%3A200%7D")
    ready(page, 3)
    one = card(page, 0)
    for i in range(20):
        chips(one).nth(i % 4).click(no_wait_after=True)
    ready(page, 3)
    last = chips(one).nth(3)
    expect(last).to_have_attribute("aria-pressed", "true")
    target = int(last.get_attribute("data-class"))
    expect(one.locator(".caption b").first).to_have_text(insights_studies.SHAPES[target])
    expected = explained(
        insights_studies.images, 0, target, lambda f: attrib.integrated_gradients(f, steps=200)
    ).sum(0)
    point_at(one.locator("canvas"), 8, 8, 24, 24)
    largest = expected.abs().max().item()
    assert abs(values_of(one.locator(".readout"))[0] - expected[8, 8].item()) < 1e-3 * largest


def test_every_model_has_its_own_target_and_they_can_disagree(visit: Callable[..., Any]) -> None:
    page = visit("two_models")
    ready(page, 12)
    study = insights_studies.two_models
    images = torch.stack([image for image, _ in study.data])
    choices = {name: model(images).argmax(-1) for name, model in study.models.items()}
    for sample in range(6):
        for name, chosen in choices.items():
            panel = card(page, sample).locator(f'.panel[data-model="{name}"]')
            expect(pressed(panel)).to_have_attribute("data-class", str(chosen[sample].item()))
    page.locator(".filters summary").click()
    choose(page, "Predictions", "disagree")
    apart = int((choices["cnn"] != choices["other"]).sum())
    expect(page.locator(".pager [role=status]")).to_contain_text(f"of {apart} (of {len(images)}")


def test_shares_of_the_inputs_sum_to_one(visit: Callable[..., Any]) -> None:
    page = visit("modal")
    ready(page, 6)
    below = 0
    for sample in range(6):
        chips(card(page, sample)).last.click()  # what is unlikely is argued against
    ready(page, 6)
    for sample in range(6):
        shares = card(page, sample).locator(".shares")
        numbers = values_of(shares.locator(".figure"))
        assert abs(sum(abs(number) for number in numbers) - 1) < 1e-3
        for number, bar, track in zip(
            numbers, shares.locator(".bar").all(), shares.locator(".track").all(), strict=True
        ):
            left, middle = bar.bounding_box()["x"], track.bounding_box()
            zero = middle["x"] + middle["width"] / 2
            if number < -0.02:
                below += 1
                assert left < zero - 1
            elif number > 0.02:
                assert left > zero - 2
    assert below > 0


@pytest.mark.parametrize(
    ("study", "count"),
    [
        ("unlabelled", 6),
        ("regression", 6),
        ("binary", 6),
        ("grey", 6),
        ("thousand", 6),
        ("long_text", 2),
        ("long_series", 4),
        ("array", 4),
    ],
)
def test_all_kinds_of_studies_fit_the_page(
    visit: Callable[..., Any], study: str, count: int
) -> None:
    page = visit(study)
    ready(page, count)
    expect(page.locator(".failure")).to_have_count(0)
    for width in (1280, 320):
        page.set_viewport_size({"width": width, "height": 800})
        painted(page)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width


def test_long_texts_fold_what_does_not_matter(visit: Callable[..., Any]) -> None:
    page = visit("long_text", "merge=none")
    ready(page, 2)
    one = card(page, 0)
    shown = one.locator(".token").count()
    folds = one.locator(".fold")
    hidden = sum(int(re.findall(r"\d+", text)[0]) for text in folds.all_inner_texts())
    assert shown + hidden == 4000
    if folds.count():
        first = int(re.findall(r"\d+", folds.first.inner_text())[0])
        folds.first.click()
        expect(one.locator(".token")).to_have_count(shown + first)


def test_numbers_that_are_none_are_hatched_and_counted(visit: Callable[..., Any]) -> None:
    page = visit("degenerate", "method=spoiled&mode=heatmap")
    ready(page, 6)
    one = card(page, 0)
    expect(one.locator(".notice").first).to_be_visible()
    expect(one).to_contain_text(re.compile("NaN", re.IGNORECASE))
    colours = set()
    canvas = one.locator("canvas")
    data = canvas.evaluate("el => [...el.getContext('2d').getImageData(0, 0, 8, 8).data]")
    for i in range(0, len(data), 4):
        colours.add(tuple(data[i : i + 3]))
    assert any(max(colour) - min(colour) < 3 and colour[0] > 150 for colour in colours)
    assert any(max(colour) < 120 for colour in colours)  # the strokes of the hatching


def test_zero_attributions_are_neutral_and_said(visit: Callable[..., Any]) -> None:
    page = visit("degenerate", "method=zero&mode=heatmap")
    ready(page, 6)
    one = card(page, 0)
    expect(one.locator(".notice")).to_contain_text(re.compile("all .*(0|zero)", re.IGNORECASE))
    middle = one.locator("canvas").evaluate(
        "el => [...el.getContext('2d').getImageData(50, 50, 1, 1).data]"
    )
    assert middle == [247, 247, 247, 255]


def test_what_turns_the_writing_is_seen_and_turns_nothing(visit: Callable[..., Any]) -> None:
    page = visit("hostile", "limit=3&method=saliency")
    ready(page, 3)
    marks = page.locator(".token .control")
    told = marks.evaluate_all(
        "all => all.map(el => [el.textContent, getComputedStyle(el, '::before').content,"
        " getComputedStyle(el).unicodeBidi])"
    )
    assert ["\u202e", '"\ufffd"', "isolate"] in told
    assert ["\x00", '"\u2400"', "isolate"] in told
    token = card(page, 0).locator(".token", has_text="gnp.exe")
    ends = token.evaluate(
        "el => { const text = el.lastChild; const range = document.createRange();"
        "return [0, 6].map(i => { range.setStart(text, i); range.setEnd(text, i + 1);"
        "return range.getBoundingClientRect().left; }); }"
    )
    assert ends[0] < ends[1]  # from left to right, as it was written


def test_curves_settle_and_fit(visit: Callable[..., Any]) -> None:
    page = visit("table", "view=detail&sample=1&tab=curves")
    section = page.get_by_role("region", name="Convergence")
    expect(section.locator("svg")).to_have_count(2)  # the distance, and the completeness gap
    expect(section).to_contain_text("distance from the result with 50 steps")
    for chart in page.locator("svg.chart").all():
        inside = chart.evaluate(
            "el => [...el.querySelectorAll('text')].every(text => {"
            "const [a, b] = [text.getBoundingClientRect(), el.getBoundingClientRect()];"
            "return a.left >= b.left && a.right <= b.right + 1; })"
        )
        assert inside
    section.get_by_text("As a table").click()
    rows = section.locator("tbody tr")
    expect(rows).to_have_count(6)
    expect(rows.last).to_contain_text("50")


def test_long_names_of_classes_fit_an_overview_and_a_chip(visit: Callable[..., Any]) -> None:
    page = visit("thousand", "view=overview", viewport={"width": 320, "height": 700})
    expect(page.locator(".confusion")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    heads = page.locator(".confusion thead th").evaluate_all("all => all.map(e => e.clientWidth)")
    assert min(heads) >= 60  # a few letters in a line
    page.get_by_role("button", name="Browse").click()
    ready(page, 6)
    chip = chips(card(page, 0)).first.locator("bdi")
    assert chip.evaluate("el => getComputedStyle(el).webkitLineClamp") == "2"  # then an ellipsis


def test_an_overview_without_labels_is_not_empty(visit: Callable[..., Any]) -> None:
    page = visit("bare_regression", "view=overview")
    expect(page.get_by_role("region", name="Predictions")).to_be_visible()


def test_a_scale_that_is_exceeded_says_by_how_many(visit: Callable[..., Any]) -> None:
    page = visit("images", "limit=3&method=saliency&scale=0.01")
    ready(page, 3)
    legend = card(page, 0).locator(".legend")
    target = int(pressed(card(page, 0)).get_attribute("data-class"))
    sizes = explained(insights_studies.images, 0, target, attrib.saliency).sum(0).abs()
    beyond = (sizes > 0.01).float().mean().item()
    expect(legend).to_contain_text(f"{100 * beyond:.0f} % beyond")
    expect(legend).to_contain_text("in the method's own unit")


def test_constant_attributions_are_full_colour(visit: Callable[..., Any]) -> None:
    page = visit("degenerate", "method=one&mode=heatmap")
    ready(page, 6)
    middle = (
        card(page, 0)
        .locator("canvas")
        .evaluate("el => [...el.getContext('2d').getImageData(50, 50, 1, 1).data]")
    )
    assert middle == [163, 74, 0, 255]
