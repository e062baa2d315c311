"""Choosing, filtering, turning pages, waiting, stopping, failing."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pages import (
    TOKEN,
    card,
    chips,
    choose,
    fingerprint,
    point_at,
    pressed,
    ready,
    values_of,
)
from playwright.sync_api import expect

import insights_studies
from attrib import insights
from insights_asking import eventually

METHODS = {
    "images": ("photo", "image"),
    "text": ("review", "text"),
    "table": ("patient", "tabular"),
    "series": ("ecg", "timeseries"),
}


@pytest.mark.parametrize("study", METHODS)
def test_every_method_that_is_offered_runs(visit: Callable[..., Any], study: str) -> None:
    """With the arguments that it has by default, from the page, on one sample."""
    page = visit(study, "view=detail&sample=1&tab=explain")
    ready(page, 1)
    method = page.get_by_label("Method", exact=True)
    names = method.locator("option:enabled").evaluate_all("all => all.map(el => el.value)")
    assert len(names) > 20
    refused = []
    for name in names:
        method.select_option(name)
        caption = page.locator(".caption")
        title = method.locator(f'option[value="{name}"]').inner_text()
        failure = page.locator(".failure, .error:visible").first
        expect(caption.filter(has_text=f"· {title}").or_(failure).first).to_be_visible(
            timeout=60_000
        )
        expect(page.locator(".panel[aria-busy]")).to_have_count(0, timeout=60_000)
        if failure.is_visible():
            refused.append((name, failure.inner_text()))
    assert refused == []


def test_more_steps_close_the_completeness_gap(visit: Callable[..., Any]) -> None:
    page = visit(
        "images", "quadrature=left&args=%7B%22steps%22%3A4%2C%22quadrature%22%3A%22left%22%7D"
    )
    ready(page, 6)
    one = card(page, 0)

    def gap() -> float:
        found = re.search(r"completeness gap (\S+)", one.locator(".caption").inner_text())
        assert found
        return abs(float(found.group(1).replace("−", "-")))

    wide, before = gap(), fingerprint(one.locator("canvas"))
    steps = page.locator('[data-argument="steps"] input')
    steps.fill("200")
    steps.press("Enter")
    expect(one.locator(".caption")).to_contain_text("steps 200")
    ready(page, 6)
    assert gap() < wide / 5
    assert fingerprint(one.locator("canvas")) != before


def test_a_wrong_argument_is_told_at_its_field_and_goes_nowhere(visit: Callable[..., Any]) -> None:
    page = visit("images")
    ready(page, 6)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    steps = page.locator('[data-argument="steps"]')
    for typed in ("many", "2.5", "-3", ""):
        steps.locator("input").fill(typed)
        steps.locator("input").press("Enter")
        expect(steps.locator(".error")).to_be_visible()
        expect(steps.locator("input")).to_have_attribute("aria-invalid", "true")
    assert asked == []
    steps.locator("input").fill("8")
    steps.locator("input").press("Enter")
    expect(steps.locator(".error")).to_be_hidden()
    expect(card(page, 0).locator(".caption")).to_contain_text("steps 8")


def test_filters_count_what_python_counts(visit: Callable[..., Any]) -> None:
    study = insights_studies.two_models
    images = torch.stack([image for image, _ in study.data])
    labels = torch.tensor([label for _, label in study.data])
    outputs = {name: model(images) for name, model in study.models.items()}
    first = outputs["cnn"].softmax(-1)
    sure, chosen = first.max(-1)
    page = visit("two_models", "model=cnn")
    ready(page, 6)
    page.locator(".filters summary").click()
    status = page.locator(".pager [role=status]")

    def counted(expected: torch.Tensor) -> None:
        count = int(expected.sum())
        text = re.compile(rf"of {count}( |$)" if count else "no sample")
        expect(status).to_have_text(text)

    for kind, expected in (
        ("correct", chosen == labels),
        ("incorrect", chosen != labels),
        ("disagree", chosen != outputs["other"].argmax(-1)),
        ("all", labels >= 0),
    ):
        choose(page, "Predictions", kind)
        counted(expected)
    for control, against in (("classes", chosen), ("label", labels)):
        box = page.locator(f'[data-control="{control}"]')
        box.locator("input").fill(insights_studies.SHAPES[1])
        box.locator("input").press("Enter")
        counted(against == 1)
        box.locator("input").fill(insights_studies.SHAPES[2])
        box.locator("input").press("Enter")
        counted((against == 1) | (against == 2))
        for _ in range(2):
            box.locator("button").first.click()
        counted(labels >= 0)
    middle = sure.median().item()
    low = page.locator('[data-control="min_conf"] input')
    low.fill(f"{middle:.4f}")
    low.press("Enter")
    counted(sure >= round(middle, 4))


def test_text_is_searched(visit: Callable[..., Any]) -> None:
    study = insights_studies.text
    page = visit("text")
    ready(page, 6)
    page.keyboard.press("/")
    search = page.get_by_label("Search text")
    expect(search).to_be_focused()
    search.fill("dull")
    search.press("Enter")
    count = sum(8 in ids.tolist() for (ids, _), _ in study.data)
    assert 0 < count < len(study.data)
    expect(page.locator(".pager [role=status]")).to_contain_text(f"of {count} (of")


def test_an_empty_result_says_so_and_is_cleared(visit: Callable[..., Any]) -> None:
    page = visit("images", "text=no-such-word")
    expect(page.get_by_text("None of the 14 samples")).to_be_visible()
    page.locator(".empty").get_by_role("button", name="Clear filters").click()
    ready(page, 6)
    expect(page.locator(".pager [role=status]")).to_have_text("1–6 of 14")


def test_a_page_that_comes_back_is_the_same_and_not_computed_again(
    visit: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    calls = 0
    study = insights_studies.images
    model = study.models["cnn"]

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    page = visit("images", "args=%7B%22steps%22%3A23%7D")
    ready(page, 6)
    before = [fingerprint(canvas) for canvas in page.locator(".card canvas").all()]
    page.get_by_role("button", name="Next").click()
    expect(card(page, 6)).to_be_visible()
    ready(page, 6)
    handle = model.register_forward_hook(count)
    try:
        page.get_by_role("button", name="Previous").click()
        expect(card(page, 0)).to_be_visible()
        ready(page, 6)
    finally:
        handle.remove()
    assert [fingerprint(canvas) for canvas in page.locator(".card canvas").all()] == before
    assert calls == 0


def test_progress_grows_and_cancelling_keeps_what_is_shown(
    visit: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    page = visit("slow", "limit=3&method=saliency")
    ready(page, 3)
    one = card(page, 0)
    shown, class_before = (
        fingerprint(one.locator("canvas")),
        pressed(one).get_attribute("data-class"),
    )
    choose(page, "Method", "slow")
    bar = one.locator("progress")
    expect(bar).to_be_visible()
    expect(bar).to_have_attribute("value", re.compile(r"0\.[1-9]"))
    seen = [float(bar.get_attribute("value") or 0)]
    for _ in range(5):
        page.evaluate("() => new Promise(requestAnimationFrame)")
        seen.append(float(bar.get_attribute("value") or 0))
    assert seen == sorted(seen)
    chips(one).nth(2).click()
    expect(bar).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".panel[aria-busy]")).to_have_count(0)
    assert fingerprint(one.locator("canvas")) == shown
    assert pressed(one).get_attribute("data-class") == class_before
    expect(one.locator(".caption")).to_contain_text("saliency")
    idle(served("slow"))


def test_closing_the_page_ends_its_jobs(
    visit: Callable[..., Any], served: Callable[[str], Any]
) -> None:
    page = visit("slow", "method=slow&args=%7B%22steps%22%3A400%7D")
    expect(page.locator("progress").first).to_be_visible()
    page.close()
    idle(served("slow"))
    again = visit("slow", "method=saliency")
    ready(again, 6)


def idle(server: Any) -> None:
    """Nothing is computed any more, a second later at most."""
    assert eventually(lambda: not server.session.workers.busy, 1.0)
    before = time.process_time()
    threading.Event().wait(0.2)
    assert time.process_time() - before < 0.1


def test_a_model_that_raises_spoils_its_own_cards_only(visit: Callable[..., Any]) -> None:
    page = visit("broken", "method=saliency&limit=24")
    expect(page.locator(".card")).to_have_count(14)
    expect(page.locator(".panel[aria-busy]")).to_have_count(0, timeout=30_000)
    failures = page.locator(".card .failure, .card .badge.warn")
    good = page.locator(".caption b:first-of-type")
    assert failures.count() > 0
    assert good.count() > 0
    expect(page.get_by_text("does not like this image").first).to_be_visible()
    assert "Traceback" not in page.content()


def test_a_broken_method_is_told_on_the_card(visit: Callable[..., Any]) -> None:
    page = visit("broken", "method=broken")
    failure = page.locator('.failure[data-kind="model"]')
    expect(failure.filter(has_text="this method is broken").first).to_be_visible()
    assert "Traceback" not in page.content()
    choose(page, "Method", "saliency")
    expect(page.locator(".caption b:first-of-type").first).to_be_visible()


def test_no_memory_comes_with_a_hint(visit: Callable[..., Any]) -> None:
    page = visit("broken", "method=hungry")
    failure = page.locator('.failure[data-kind="memory"]').first
    expect(failure).to_contain_text("Out of memory")
    expect(failure).to_contain_text(re.compile("chunk|smaller|memory"))


def test_what_the_server_refuses_is_told_at_the_field(visit: Callable[..., Any]) -> None:
    page = visit("images", "method=occlusion")
    expect(page.locator(".panel[aria-busy]")).to_have_count(0, timeout=30_000)
    fields = page.locator('[data-argument^="window"] input')
    page.locator(".controls details").first.evaluate("el => (el.open = true)")
    fields.first.fill("3 99 99")
    fields.first.press("Enter")
    told = page.locator('[data-argument^="window"] .error:visible, .failure')
    expect(told.first).to_be_visible()


def test_scale_of_the_page_is_shared(visit: Callable[..., Any]) -> None:
    page = visit("images", "scale=page")
    ready(page, 6)
    limits = page.locator("[data-limit]").evaluate_all("all => all.map(el => el.dataset.limit)")
    assert len(set(limits)) == 1
    page.locator(".look summary").click()
    choose(page, "Colour scale", "sample")
    expect(page.locator(".legend").first).to_contain_text("99th percentile")
    own = page.locator("[data-limit]").evaluate_all("all => all.map(el => el.dataset.limit)")
    assert len(set(own)) == 6
    assert math.isclose(max(map(float, own)), float(limits[0]), rel_tol=1e-6)


def test_pinned_samples_are_on_one_scale(visit: Callable[..., Any]) -> None:
    page = visit("images")
    ready(page, 6)
    for sample in (0, 2):
        card(page, sample).get_by_role("button", name="Pin").click()
    page.get_by_role("button", name="Pinned (2)").click()
    ready(page, 2)
    limits = page.locator("[data-limit]").evaluate_all("all => all.map(el => el.dataset.limit)")
    assert len(limits) == 2 and len(set(limits)) == 1
    card(page, 2).get_by_role("button", name="Pin").click()
    ready(page, 1)


def test_a_cell_of_the_confusion_matrix_opens_its_samples(visit: Callable[..., Any]) -> None:
    study = insights_studies.images
    images = torch.stack([image for image, _ in study.data])
    chosen = study.models["cnn"](images).argmax(-1)
    labels = torch.tensor([label for _, label in study.data])
    page = visit("images", "view=overview")
    table = page.locator(".confusion")
    expect(table).to_be_visible()
    for label in range(4):
        for predicted in range(4):
            count = int(((labels == label) & (chosen == predicted)).sum())
            names = insights_studies.SHAPES
            words = f"label {names[label]}, predicted {names[predicted]}"
            expect(table.get_by_role("button", name=words)).to_have_text(str(count))
    wrong = page.locator(".confusion").get_by_role("button", name=re.compile("^1 sample:")).first
    wrong.click()
    expect(page.locator(".pager [role=status]")).to_contain_text("of 1 (of 14")


def test_what_if_moves_the_prediction(visit: Callable[..., Any]) -> None:
    page = visit("table", "view=detail&sample=3&tab=edit")
    study = insights_studies.table
    row = study.data[3][0].clone()
    expect(page.get_by_label("age (years)")).to_be_visible()
    before = values_of(page.locator(".bars .figure"))
    assert before == [0, 0]
    page.get_by_label("age (years)").fill("3")
    page.get_by_label("age (years)").press("Enter")
    row[0] = 3.0
    model = study.models["model"]
    old, new = (model(each[None]).softmax(-1)[0] for each in (study.data[3][0], row))
    expect(page.locator(".bars .figure").first).not_to_have_attribute("data-value", "0")
    moved = sorted(values_of(page.locator(".bars .figure")))
    assert all(abs(a - b) < 1e-3 for a, b in zip(moved, sorted((new - old).tolist()), strict=True))
    page.get_by_role("button", name="Explain the edited sample").click()
    ready(page, 3)  # before, after, and what changed
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".panel")).to_have_count(0)  # which was of another edit
    expect(page.locator(".section .bars .figure").first).to_have_attribute("data-value", "0")


def test_an_edited_sample_is_explained_as_what_it_is_now(visit: Callable[..., Any]) -> None:
    study = insights_studies.images
    changed = study.data[2][0].clone()
    changed[:, :18, :20] = 0
    model = study.models["cnn"]
    chances = model(changed[None]).softmax(-1)[0]
    now, shapes = int(chances.argmax()), insights_studies.SHAPES
    page = visit("images", "view=detail&sample=2&tab=edit&method=saliency")
    for place, value in enumerate(("0", "0", "18", "20")):
        page.locator(".numbers input").nth(place).fill(value)
    page.get_by_role("button", name="Erase").click()
    expect(page.get_by_text("Predicted:")).to_contain_text(f"{shapes[now]} {chances[now]:.0%}"[:-1])
    page.get_by_role("button", name="Explain the edited sample").click()
    ready(page, 3)
    for panel in page.locator(".panel").all():
        expect(panel.locator(".caption b").first).to_have_text(shapes[now])
    edited = page.locator(".panel").nth(1)
    first = chips(edited).first
    expect(first).to_have_attribute("data-class", str(now))
    expect(first).to_have_attribute("aria-pressed", "true")
    canvas = page.locator(".panel").nth(2).locator("canvas")
    before, after = (
        torch.autograd.functional.jacobian(lambda x: model(x)[0, now], image[None])[0].sum(0)
        for image in (study.data[2][0], changed)
    )
    point_at(canvas, 20, 4, 24, 24)
    shown = values_of(page.locator(".panel").nth(2).locator(".readout"))
    largest = (after - before).abs().max().item()
    assert abs(shown[0] - (after - before)[20, 4].item()) < 1e-3 * largest
    last = chips(page.locator(".panel").first).last
    other = shapes[int(last.get_attribute("data-class"))]
    assert other != shapes[now]
    last.click()
    ready(page, 3)
    expect(page.locator(".panel").nth(2).locator(".caption b").first).to_have_text(other)


def test_a_pressed_target_goes_with_the_sample(
    visit: Callable[..., Any], watched: Callable[..., Any]
) -> None:
    page = visit("images", "method=saliency", permissions=["clipboard-read", "clipboard-write"])
    ready(page, 6)
    chip = chips(card(page, 2)).nth(2)
    name = insights_studies.SHAPES[int(chip.get_attribute("data-class"))]
    chip.click()
    caption = page.locator(".caption b").first
    expect(card(page, 2).locator(".caption b").first).to_have_text(name)
    menu = card(page, 2).locator(".menu summary")
    menu.click()
    card(page, 2).get_by_role("button", name="Copy link").click()
    expect(page.locator(".toast")).to_contain_text("clipboard")
    link = page.evaluate("navigator.clipboard.readText()")
    menu.click()
    card(page, 2).get_by_role("button", name="Open").click()
    ready(page, 1)
    expect(caption).to_have_text(name)
    page.get_by_role("tab", name="Values").click()
    expect(caption).to_have_text(name)
    fresh = watched()
    fresh.goto(link.replace("#", f"#token={TOKEN}&"))
    ready(fresh, 1)
    expect(fresh.locator(".caption b").first).to_have_text(name)
    choose(fresh, "Explain the score of", "label")  # for all, again
    expect(fresh.locator(".caption b").first).to_have_text(insights_studies.SHAPES[2])


def test_what_a_link_asks_for_in_vain_is_told(visit: Callable[..., Any]) -> None:
    link = "limit=3&target=99&classes=%5B77%5D&targets=%7B%220%2Fcnn%22%3A88%7D&sample=500"
    page = visit("images", f"{link}&args=%7B%22nothing%22%3A1%7D")
    ready(page, 3)
    for key in ("target", "classes", "targets", "sample", "args"):
        expect(page.locator(".toast")).to_contain_text(key)


def test_what_costs_much_waits_to_be_asked_for(watched: Callable[..., Any]) -> None:
    page = watched()
    limits = insights.Limits(auto_passes=1000)
    with insights.serve(insights_studies.images, token=TOKEN, limits=limits) as server:
        page.goto(f"{server.url}&limit=3")
        ready(page, 3)
        choose(page, "Method", "kernel_shap")
        expect(page.get_by_text("the settings have changed")).to_have_count(3)
        expect(page.locator(".help-line")).to_contain_text("About 1024 passes")
        samples = page.locator('[data-argument="samples"] input')
        samples.fill("200")
        samples.press("Enter")
        expect(page.locator(".help-line")).to_contain_text("About 200 passes")
        expect(page.locator(".caption").first).to_contain_text("integrated gradients")


def test_on_demand_nothing_runs_before_it_is_asked_for(visit: Callable[..., Any]) -> None:
    page = visit("images", "run=demand&limit=3")
    expect(page.get_by_text("Not explained yet.")).to_have_count(3)
    card(page, 1).get_by_role("button", name="Run").click()
    ready(page, 1)
    choose(page, "Method", "saliency")
    expect(card(page, 1)).to_contain_text("the settings have changed")
    expect(card(page, 1).locator(".caption")).to_contain_text("integrated gradients")
    page.locator(".controls").get_by_role("button", name="Run").click()
    ready(page, 3)
    for caption in page.locator(".caption").all():
        expect(caption).to_contain_text("saliency")
    expect(page.get_by_text("the settings have changed")).to_have_count(0)


def test_methods_of_the_user_get_a_form(visit: Callable[..., Any]) -> None:
    page = visit("broken", "method=broken")
    expect(page.locator('[data-argument="strength"] input')).to_have_value(re.compile("^1"))
    assert "broken" not in insights.methods()
