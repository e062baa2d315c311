"""What the engine answers is what attrib says, and nothing runs that nobody waits for."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attrib
import insights_studies
from attrib import games, insights
from attrib.insights.cache import Cache
from attrib.insights.registry import METHODS
from attrib.insights.session import Session
from insights_asking import eventually, workers
from insights_studies import STUDIES

RTOL = 1e-3


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with_study = Session(insights_studies.images)
    yield with_study
    with_study.close()


def asked(session: Session, kind: str, **message: Any) -> dict[str, Any]:
    return session.ask({"v": 1, "id": "1", "type": kind, **message})


def shown(session: Session, **message: Any) -> dict[str, Any]:
    """A result, which must be one."""
    found = asked(session, "attribute", **{"sample": 0, "method": "saliency", **message})
    assert found["type"] == "result", found
    return found


def numbers(value: Any) -> Any:
    return value.values * value.scale if getattr(value, "scale", None) is not None else value


def close(found: Any, expected: Tensor) -> None:
    values = expected.detach().numpy()
    scale = np.abs(values).max()
    np.testing.assert_allclose(numbers(found), values, rtol=RTOL, atol=RTOL * scale)


# Numbers.


def test_an_image_is_shown_what_attrib_says(session: Session) -> None:
    study = insights_studies.images
    image, _ = study.data[3]
    for target in (0, 2):
        f = attrib.target(study.models["cnn"], target)
        expected = attrib.integrated_gradients(f, steps=20)(image[None], 0.0)[0]
        found = shown(
            session, sample=3, method="integrated_gradients", target=target, args={"steps": 20}
        )
        close(found["features"]["photo"]["values"], expected.sum(0))
        assert found["sum"] == pytest.approx(float(expected.sum()), rel=RTOL)
        assert found["score"] == pytest.approx(float(f(image[None])), rel=1e-5)
        gap = attrib.metrics.completeness(f)(expected[None], image[None], 0.0)
        assert found["gap"] == pytest.approx(float(gap), abs=1e-4)


def test_more_steps_shrink_the_gap(session: Session) -> None:
    gaps = [
        abs(shown(session, method="integrated_gradients", args={"steps": steps})["gap"])
        for steps in (2, 8, 64)
    ]
    assert gaps[0] > gaps[1] > gaps[2]


def test_tokens_get_what_their_embeddings_get() -> None:
    study = insights_studies.text
    model = study.models["reader"]
    (ids, mask), _ = study.data[0]
    f = attrib.target(model, 1)
    expected = attrib.layer(attrib.integrated_gradients, f, "embedding")(
        ids[None], torch.full_like(ids, 0)[None], mask[None]
    )
    session = Session(study)
    found = shown(session, method="integrated_gradients", target=1)
    close(found["features"]["review"]["values"], expected[0].sum(-1))
    # Hiding tokens needs no derivatives, and no embedding.
    hidden = attrib.feature_ablation(f)(ids[None], torch.full_like(ids, 3)[None], mask[None])
    found = shown(session, method="feature_ablation", target=1, baseline={"review": "the"})
    close(found["features"]["review"]["values"], hidden[0])
    session.close()


def test_each_input_of_a_model_with_two_gets_its_share() -> None:
    study = insights_studies.modal
    model = study.models["model"]
    (image, ids), _ = study.data[1]
    session = Session(study)
    found = shown(session, sample=1, method="kernel_shap", target=2, args={"samples": 400})
    names = [share["feature"] for share in found["shares"]]
    assert names == ["photo", "question"]
    assert sum(abs(share["share"]) for share in found["shares"]) == pytest.approx(1)
    f = attrib.target(model, 2)
    whole = f((image[None], ids[None])) - f((torch.zeros_like(image)[None], ids[None] * 0))
    assert sum(share["net"] for share in found["shares"]) == pytest.approx(float(whole), rel=1e-4)
    # Exact: the two inputs as the only two players.
    args = {"groups.photo": "whole", "groups.question": "whole"}
    found = shown(session, sample=1, method="shapley_values", target=2, args=args)
    ids_of = (torch.zeros(1, 1, 1, dtype=torch.long), torch.ones(1, dtype=torch.long))
    start = (torch.zeros_like(image)[None], ids[None] * 0)
    exact = attrib.shapley_values(f, groups=ids_of)((image[None], ids[None]), start)
    nets = [share["net"] for share in found["shares"]]
    assert nets == pytest.approx([float(exact[0][0, 0, 0, 0]), float(exact[1][0, 0])], rel=1e-4)
    session.close()


def test_rows_and_series_get_what_attrib_says() -> None:
    for name, feature, method in (
        ("table", "patient", "deep_lift"),
        ("series", "ecg", "input_x_gradient"),
        ("regression", "row", "integrated_gradients"),
    ):
        study = getattr(insights_studies, name)
        x = study.data[2][0]
        index = None if name == "regression" else 1
        f = attrib.target(study.models["model"], index)
        attribute = getattr(attrib, method)(f)
        expected = attribute(x[None]) if method == "input_x_gradient" else attribute(x[None], 0.0)
        session = Session(study)
        found = shown(session, sample=2, method=method, target="pred" if index is None else 1)
        close(found["features"][feature]["values"], expected[0])
        session.close()


def test_a_single_logit_speaks_for_the_second_class() -> None:
    study = insights_studies.binary
    session = Session(study)
    both = [shown(session, sample=1, method="saliency", target=k) for k in (0, 1)]
    first, second = (one["features"]["row"]["values"] for one in both)
    np.testing.assert_allclose(first, -second)
    assert both[0]["score"] == -both[1]["score"]
    row = asked(session, "query", samples=[1])["rows"][0]["predictions"][0]
    logit = study.models["model"](study.data[1][0][None]).item()
    chances = {entry["class"]: entry["score"] for entry in row["top"]}
    assert chances[1] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
    assert chances[0] == pytest.approx(1 - chances[1])
    session.close()


def test_groups_count_once(session: Session) -> None:
    study = insights_studies.images
    image, _ = study.data[0]
    f = attrib.target(study.models["cnn"], 0)
    ids = games.patches(image, (6, 6))
    expected = attrib.kernel_shap(
        f, samples=100, groups=ids, generator=torch.Generator().manual_seed(7)
    )(image[None], 0.0)[0]
    args = {"samples": 100, "groups.photo": "grid-4", "seed": 7}
    found = shown(session, method="kernel_shap", args=args, target=0)
    photo = found["features"]["photo"]
    assert photo["grouped"]
    close(photo["values"], expected[0])
    players = expected[0, ::6, ::6]
    assert found["sum"] == pytest.approx(float(players.sum()), rel=RTOL)
    assert found["gap"] == pytest.approx(0, abs=1e-4)
    assert len(np.unique(photo["segments"])) == 16


def test_targets_are_what_they_say(session: Session) -> None:
    study = insights_studies.images
    image, label = study.data[-1]
    order = study.models["cnn"](image[None])[0].argsort(descending=True).tolist()
    sample = len(study.data) - 1
    for rule, pair in (
        ("pred", (order[0], None)),
        ("label", (label, None)),
        ({"contrast": ["pred", "second"]}, (order[0], order[1])),
        ({"contrast": [3, "label"]}, (3, label)),
    ):
        target = shown(session, sample=sample, target=rule)["target"]
        assert (target["a"], target["b"]) == pair
    first, second = (
        shown(session, sample=sample, target=k)["features"]["photo"] for k in (3, label)
    )
    found = shown(session, sample=sample, target={"contrast": [3, label]})["features"]["photo"]
    difference = numbers(first["values"]) - numbers(second["values"])
    np.testing.assert_allclose(numbers(found["values"]), difference, atol=1e-3 * first["max"])


def test_values_are_exact_where_the_map_is_rounded(session: Session) -> None:
    study = insights_studies.images
    image, _ = study.data[0]
    expected = attrib.saliency(attrib.target(study.models["cnn"], 1))(image[None])[0].sum(0)
    same = {"sample": 0, "method": "saliency", "target": 1, "feature": "photo"}
    found = asked(session, "values", **same, region=[[2, 5], [0, 24]])
    np.testing.assert_allclose(found["values"], expected[2:5].numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["inputs"], image.mean(0)[2:5].numpy(), rtol=1e-6)
    rows = asked(session, "values", **same, table={"limit": 5})["rows"]
    largest = expected.flatten().abs().argsort(descending=True)[:5]
    assert [row["index"][0] * 24 + row["index"][1] for row in rows] == largest.tolist()
    assert [row["value"] for row in rows] == pytest.approx(expected.flatten()[largest].tolist())


def test_curves_are_those_of_the_metrics() -> None:
    study = insights_studies.table
    x, _ = study.data[0]
    f = attrib.target(study.models["model"], 1)
    values = attrib.saliency(f)(x[None])
    session = Session(study)
    found = asked(session, "curves", sample=0, method="saliency", target=1, steps=5)
    for word, insert in (("deletion", False), ("insertion", True)):
        expected = attrib.metrics.curve(f, insert=insert, steps=5)(values, x[None], 0.0)
        assert found[word]["score"] == pytest.approx(expected.scores[:, 0].tolist(), rel=1e-5)
        assert found[word]["area"] == pytest.approx(float(expected.area), rel=1e-5)
    session.close()


def test_fewer_steps_are_farther_from_the_result() -> None:
    study = insights_studies.table
    x, _ = study.data[0]
    session = Session(study)
    args = {"steps": 40, "quadrature": "left"}
    asked_for = {"sample": 0, "method": "integrated_gradients", "target": 1, "args": args}
    found = asked(session, "convergence", **asked_for)
    assert (found["option"], found["counts"]) == ("steps", [1, 2, 5, 10, 20, 40])
    f = attrib.target(study.models["model"], 1)
    each = [
        attrib.integrated_gradients(f, steps=n, quadrature="left")(x[None], 0.0)
        for n in found["counts"]
    ]
    distances = [float((one - each[-1]).abs().sum() / each[-1].abs().sum()) for one in each]
    assert found["distance"] == pytest.approx(distances, rel=1e-4, abs=1e-6)
    whole = float(f(x[None]) - f(torch.zeros(1, 5)))
    assert found["gap"] == pytest.approx([float(one.sum()) - whole for one in each], abs=1e-4)
    none = asked(session, "convergence", sample=0, method="saliency", target=1)
    assert none["kind"] == "absent"
    session.close()


def test_the_cost_of_what_would_be_asked_is_told(session: Session) -> None:
    for args, passes in (({}, 100), ({"steps": 200}, 400)):
        found = asked(session, "cost", method="integrated_gradients", args=args)
        assert found["passes"] == passes
    refused = asked(session, "cost", method="integrated_gradients", args={"steps": 0})
    assert refused["field"] == "steps"


@pytest.mark.parametrize("design", ["antithetic", "independent", "stratified"])
def test_the_cost_of_random_orders_is_what_they_evaluate(design: Any) -> None:
    seen: list[int] = []

    def model(x: Tensor) -> Tensor:
        seen.append(len(x))
        return torch.stack([x.sum(1), x.prod(1)], 1)

    study = insights.Study(
        models=model,
        data=[(torch.rand(6), 0)],
        features={"row": insights.tabular(list("abcdef"))},
        classes=["sum", "product"],
    )
    args = {"samples": 6, "design": design}
    session = Session(study)
    found = asked(session, "cost", method="shapley_sampling", args=args)
    session.close()
    seen.clear()
    attrib.shapley_sampling(attrib.batched(lambda x: model(x)[:, 0]), **args)(torch.rand(1, 6))
    assert found["passes"] == sum(seen)


@pytest.mark.parametrize("name", ["images", "text", "table", "series", "array", "regression"])
def test_every_method_runs_wherever_it_claims_to(name: str) -> None:
    study = getattr(insights_studies, name)
    session = Session(study)
    config = asked(session, "init")
    model = next(iter(study.models))
    fitting = [one["name"] for one in config["methods"] if one["models"][model] is None]
    assert len(fitting) > 25
    for method in fitting:
        found = shown(session, sample=1, method=method)
        assert found["extra"] or any(found["features"].values()), method
    session.close()


def test_all_methods_are_offered_with_their_help(session: Session) -> None:
    config = asked(session, "init")
    assert {one["name"] for one in config["methods"]} == set(METHODS)
    assert all(one["summary"] for one in config["methods"])


# What-if.


def test_edits_move_the_prediction() -> None:
    study = insights_studies.table
    model, (x, _) = study.models["model"], study.data[0]
    session = Session(study)
    edits = {"patient": {"values": {"age": 2.5, "sex": 1}}}
    found = asked(session, "predict", sample=0, edits=edits)
    changed = torch.tensor([2.5, *x[1:4].tolist(), 1.0])
    expected = model(changed[None])[0].softmax(-1)
    for entry in found["predictions"][0]["top"]:
        assert entry["score"] == pytest.approx(float(expected[entry["class"]]), rel=1e-5)
    for entry in found["original"][0]["top"]:
        assert entry["score"] == pytest.approx(float(model(x[None])[0].softmax(-1)[entry["class"]]))
    again = shown(session, method="saliency", target=0, edits=edits)
    expected = attrib.saliency(attrib.target(model, 0))(changed[None])[0]
    close(again["features"]["patient"]["values"], expected)
    assert again["edited"]
    session.close()


def test_the_predicted_class_of_an_edited_sample_is_its_own(session: Session) -> None:
    study = insights_studies.images
    image, _ = study.data[2]
    model = study.models["cnn"]
    box = {"y0": 0, "x0": 0, "y1": 18, "x1": 20}
    changed = image.clone()
    changed[:, :18, :20] = 0
    before, after = (int(model(x[None]).argmax()) for x in (image, changed))
    assert before != after
    asked_for: dict[str, Any] = {"sample": 2, "edits": {"photo": {"erase": [box]}}}
    # What is erased does not depend on the baseline of the method.
    found = shown(session, **asked_for, baseline={"photo": "mean"})
    assert found["target"]["a"] == after
    expected = attrib.saliency(attrib.target(model, after))
    close(found["features"]["photo"]["values"], expected(changed[None])[0].sum(0))
    moved = shown(session, **asked_for, change=True)
    assert (moved["target"]["a"], moved["change"]) == (after, True)
    difference = (expected(changed[None]) - expected(image[None]))[0].sum(0)
    close(moved["features"]["photo"]["values"], difference)
    scores = [float(model(x[None])[0, after]) for x in (image, changed)]
    assert moved["score"] == pytest.approx(scores[1] - scores[0], rel=1e-4)


def test_what_is_longer_than_before_has_no_difference() -> None:
    session = Session(insights_studies.text)
    edits = {"review": {"drop": [3]}}
    found = shown(session, method="saliency", edits=edits, change=True)
    assert found["features"]["review"] is None
    assert [notice["feature"] for notice in found["notices"]] == ["review"]
    session.close()


def test_pixels_are_erased_and_tokens_replaced(session: Session) -> None:
    study = insights_studies.images
    image, _ = study.data[0]
    box = {"y0": 2, "x0": 3, "y1": 9, "x1": 8}
    found = asked(session, "predict", sample=0, edits={"photo": {"erase": [box]}})
    changed = image.clone()
    changed[:, 2:9, 3:8] = 0
    expected = study.models["cnn"](changed[None])[0].softmax(-1)
    top = found["predictions"][0]["top"]
    assert {e["class"]: e["score"] for e in top} == pytest.approx(
        dict(enumerate(expected.tolist()))
    )
    pixels = found["features"]["photo"]["pixels"]
    np.testing.assert_array_equal(pixels[2:9, 3:8], 0)

    text = insights_studies.text
    (ids, _), _ = text.data[0]
    reading = Session(text)
    edits = {"review": {"replace": {"2": "very good"}, "drop": [3]}}
    found = asked(reading, "predict", sample=0, edits=edits)
    new = torch.cat([ids[:2], torch.tensor([11, 6]), ids[4:]])
    expected = text.models["reader"](new[None], torch.ones(1, len(new)))[0].softmax(-1)
    top = found["predictions"][0]["top"]
    assert {e["class"]: e["score"] for e in top} == pytest.approx(
        dict(enumerate(expected.tolist()))
    )
    reading.close()


# Filters.


def test_filters_count_as_python_does() -> None:
    study = insights_studies.two_models
    session = Session(study)
    image = torch.stack([x for x, _ in study.data])
    labels = torch.tensor([label for _, label in study.data])
    cnn, other = (study.models[name](image).softmax(-1) for name in ("cnn", "other"))
    best, chance = cnn.argmax(-1), cnn.amax(-1)
    for query, expected in (
        ({"classes": [1, 2]}, (best == 1) | (best == 2)),
        ({"label": [3]}, labels == 3),
        ({"prediction": "correct"}, best == labels),
        ({"prediction": "incorrect"}, best != labels),
        ({"prediction": "disagree"}, best != other.argmax(-1)),
        ({"min_conf": 0.9}, chance >= 0.9),
        ({"max_conf": 0.9, "min_conf": 0.2}, (chance >= 0.2) & (chance <= 0.9)),
        ({"classes": [0], "prediction": "incorrect"}, (best == 0) & (best != labels)),
    ):
        found = asked(session, "query", **query, limit=48)
        indices = expected.nonzero().flatten().tolist()
        assert [row["sample"] for row in found["rows"]] == indices, query
        assert found["matched"] == len(indices)
    loss = -cnn.gather(1, labels[:, None])[:, 0].log()
    found = asked(session, "query", sort="-loss", limit=48)
    ranks = [row["sample"] for row in found["rows"]]
    assert [float(loss[i]) for i in ranks] == sorted(loss.tolist(), reverse=True)
    session.close()


def test_text_is_found_in_any_case() -> None:
    study = insights_studies.text
    session = Session(study)
    texts = ["".join(insights_studies.decode(ids.tolist())) for (ids, _), _ in study.data]
    found = asked(session, "query", text="BRIGHT", limit=48)
    assert [row["sample"] for row in found["rows"]] == [
        i for i, text in enumerate(texts) if "bright" in text
    ]
    session.close()


def test_numbers_below_zero_have_a_minus_sign_and_are_found_with_a_hyphen() -> None:
    study = insights_studies.table
    session = Session(study)
    texts = asked(session, "query", samples=[1])["rows"][0]["features"]["patient"]["text"]
    below = [text for text, value in zip(texts, study.data[1][0], strict=True) if value < 0]
    assert below
    assert all(text.startswith("−") for text in below)
    for typed in (below[0], below[0].replace("−", "-")):
        rows = asked(session, "query", text=typed)["rows"]
        assert [row["sample"] for row in rows] == [1]
    session.close()


def test_a_filter_that_matches_nothing_ends_at_once(session: Session) -> None:
    start = time.monotonic()
    found = asked(session, "query", classes=[1000])
    assert (found["matched"], found["rows"]) == (0, [])
    assert time.monotonic() - start < 1
    unlabelled = Session(insights_studies.unlabelled)
    for prediction in ("correct", "incorrect"):
        assert asked(unlabelled, "query", prediction=prediction)["matched"] == 0
    unlabelled.close()


def test_pages_forward_and_back_are_the_same(session: Session) -> None:
    first = asked(session, "query", offset=0, limit=4)
    second = asked(session, "query", offset=4, limit=4)
    again = asked(session, "query", offset=0, limit=4)
    assert [r["sample"] for r in first["rows"]] == [0, 1, 2, 3]
    assert [r["sample"] for r in second["rows"]] == [4, 5, 6, 7]
    assert [r["predictions"] for r in again["rows"]] == [r["predictions"] for r in first["rows"]]


def test_the_overview_counts_as_python_does() -> None:
    study = insights_studies.images
    session = Session(study)
    told: list[dict[str, Any]] = []
    done = threading.Event()

    def emit(message: dict[str, Any]) -> None:
        told.append(message)
        if message["type"] == "overview":
            done.set()

    session.handle({"v": 1, "id": "1", "type": "overview", "method": "saliency", "limit": 5}, emit)
    assert done.wait(30)
    found = told[-1]
    model = study.models["cnn"]
    best = [int(model(x[None]).argmax()) for x, _ in study.data]
    labels = [label for _, label in study.data]
    right = [a == b for a, b in zip(best, labels, strict=True)]
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    matrix, classes = found["confusion"]["matrix"], found["confusion"]["classes"]
    for row, label in enumerate(classes):
        for column, predicted in enumerate(classes):
            pairs = zip(labels, best, strict=True)
            assert matrix[row][column] == sum(pair == (label, predicted) for pair in pairs)
    assert found["attributed"] == 5
    heats = [
        attrib.saliency(attrib.target(model, best[i]))(study.data[i][0][None])[0].sum(0).abs()
        for i in range(5)
    ]
    close(found["features"]["photo"]["mean_absolute"], torch.stack(heats).mean(0))
    assert [m["type"] for m in told].count("partial") >= 1
    session.close()


def test_predicted_numbers_are_counted_without_labels() -> None:
    study = insights_studies.bare_regression
    session = Session(study)
    found = asked(session, "overview")
    expected = study.models["model"](torch.stack(study.data)).flatten().detach()
    counts, edges = np.histogram(expected.double(), 10)
    assert found["values"]["counts"] == counts.tolist()
    np.testing.assert_allclose(found["values"]["edges"], edges, rtol=1e-6)
    assert found["errors"] is None
    session.close()


def test_a_table_has_a_swarm_of_its_rows() -> None:
    study = insights_studies.table
    session = Session(study)
    found = asked(session, "overview", method="input_x_gradient", target=1, limit=6)
    rows = torch.stack([x for x, _ in study.data][:6])
    expected = attrib.input_x_gradient(attrib.target(study.models["model"], 1))(rows)
    swarm = found["features"]["patient"]["swarm"]
    close(swarm["attributions"], expected)
    np.testing.assert_allclose(swarm["values"], rows.numpy(), rtol=1e-6)
    close(np.array(found["features"]["patient"]["mean_absolute"]), expected.abs().mean(0))
    session.close()


# Jobs.


class Listener:
    """Collects what is told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def __call__(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    @property
    def ended(self) -> str | None:
        last = self.messages[-1]["type"] if self.messages else None
        return None if last in ("progress", "partial") else last


def slow(session: Session, id: str = "s", **changed: Any) -> Listener:
    listener = Listener()
    message = {"v": 1, "id": id, "client": "page", "type": "attribute", "sample": 0}
    session.handle({**message, "method": "slow", **changed}, listener)
    return listener


@pytest.fixture
def patient() -> Iterator[Session]:
    running = Session(insights_studies.slow)
    asked(running, "init")
    yield running
    running.close()


def test_progress_rises_and_cancel_stops_the_job(patient: Session) -> None:
    running = slow(patient)
    assert eventually(lambda: len(running.messages) > 4)
    patient.handle({"v": 1, "id": "c", "client": "page", "type": "cancel", "job": "s"}, Listener())
    assert eventually(lambda: running.ended == "cancelled", 1)
    assert eventually(lambda: not patient.workers.busy, 1)
    done = [m["done"] for m in running.messages if m.get("phase") == "attribution"]
    assert done == sorted(done)
    assert max(done) < 40
    count = len(running.messages)
    time.sleep(0.2)
    assert len(running.messages) == count  # and nothing is told afterwards


def test_another_client_cannot_cancel(patient: Session) -> None:
    running = slow(patient)
    patient.handle({"v": 1, "id": "c", "client": "other", "type": "cancel", "job": "s"}, Listener())
    patient.handle({"v": 1, "id": "c", "client": "other", "type": "cancel"}, Listener())
    assert not eventually(lambda: running.ended is not None, 0.3)
    patient.cancel("page")
    assert eventually(lambda: running.ended == "cancelled", 1)


def test_the_same_request_is_computed_once(patient: Session) -> None:
    brief = {"args": {"steps": 10, "seconds": 0.02}}
    first, second = slow(patient, "a", **brief), slow(patient, "b", **brief)
    assert eventually(lambda: first.ended == second.ended == "result")
    assert first.messages[-1]["seconds"] == second.messages[-1]["seconds"]
    third = slow(patient, "c", **brief)
    assert third.messages[-1]["cached"]  # at once
    # One who leaves does not take it from the other.
    other = {"args": {"steps": 11, "seconds": 0.02}}
    first, second = slow(patient, "a", **other), slow(patient, "b", **other)
    patient.cancel("page", "a")
    assert eventually(lambda: second.ended == "result")
    assert first.ended == "cancelled"


def test_a_new_target_on_a_card_ends_the_old_one(patient: Session) -> None:
    many = [slow(patient, str(i), target=i % 4, slot="card:0", priority="click") for i in range(20)]
    assert eventually(lambda: all(one.ended == "cancelled" for one in many[:-1]), 2)
    assert many[-1].ended is None
    patient.cancel("page")


def test_the_last_click_comes_first_then_what_is_seen(patient: Session) -> None:
    order: list[str] = []

    def waiting(id: str, priority: str) -> None:
        def emit(message: dict[str, Any]) -> None:
            if message["type"] == "result":
                order.append(id)

        args = {"steps": 2, "seconds": 0.0}
        sample = ["idle", "seen 1", "seen 2", "click 1", "click 2"].index(id)
        message = {"v": 1, "id": id, "client": "page", "type": "attribute", "method": "slow"}
        told = {**message, "sample": sample, "args": args, "priority": priority}
        patient.handle(told, emit)

    slow(patient, "first", args={"seconds": 0.02, "steps": 20}, target=3)
    waiting("idle", "idle")
    waiting("seen 1", "visible")
    waiting("seen 2", "visible")
    waiting("click 1", "click")
    waiting("click 2", "click")
    assert eventually(lambda: len(order) == 5)
    assert order == ["click 2", "click 1", "seen 1", "seen 2", "idle"]


def test_a_long_job_of_one_page_does_not_hold_up_another(patient: Session) -> None:
    long = slow(patient, "long", args={"steps": 1000}, target=3)
    waiting = slow(patient, "waiting", sample=1, args={"steps": 2, "seconds": 0.0})
    assert eventually(lambda: len(long.messages) > 3)
    quick = {"args": {"steps": 2, "seconds": 0.0}}
    other = slow(patient, "quick", client="other", sample=2, **quick)
    assert eventually(lambda: other.ended == "result", 2)
    # Of the same page, only what is brief goes on beside it.
    edits: dict[str, Any] = {"photo": {"erase": []}}
    assert asked(patient, "predict", client="page", sample=0, edits=edits)["type"] == "prediction"
    assert (long.ended, waiting.ended) == (None, None)
    patient.cancel("page")


def test_every_page_has_its_turn() -> None:
    session = Session(insights_studies.slow, limits=insights.Limits(workers=1))
    order: list[str] = []

    def wait(client: str, sample: int) -> None:
        def emit(message: dict[str, Any]) -> None:
            if message["type"] == "result":
                order.append(client)

        args = {"steps": 2, "seconds": 0.01}
        message = {"v": 1, "id": f"{sample}", "client": client, "type": "attribute"}
        session.handle({**message, "method": "slow", "sample": sample, "args": args}, emit)

    for sample in range(4):
        wait("first", sample)
    for sample in range(4, 6):
        wait("second", sample)
    assert eventually(lambda: len(order) == 6)
    assert order == ["first", "second", "first", "second", "first", "first"]
    session.close()


def test_two_pages_at_once_get_what_one_would() -> None:
    methods = ("lrp", "grad_cam", "deep_lift", "guided_backprop", "conductance", "kernel_shap")
    alone, together = Session(insights_studies.images), Session(insights_studies.images)
    expected = {name: shown(alone, method=name, target=1) for name in methods}
    asked(together, "init")
    listeners: dict[tuple[str, str], Listener] = {}
    for client, order in (("a", methods), ("b", methods[::-1])):
        for name in order:
            # Equal requests would be computed once for both: an edit that changes nothing.
            message = {"v": 1, "id": name, "client": client, "type": "attribute", "sample": 0}
            edits = {"photo": {"erase": []}} if client == "b" else {}
            listeners[client, name] = Listener()
            told = {**message, "method": name, "target": 1, "edits": edits}
            together.handle(told, listeners[client, name])
    assert eventually(lambda: all(one.ended == "result" for one in listeners.values()), 30)
    for (_, name), listener in listeners.items():
        found = listener.messages[-1]
        photo, wanted = found["features"]["photo"], expected[name]["features"]["photo"]
        if photo is None:
            assert found["extra"][0]["total"] == expected[name]["extra"][0]["total"]
        else:
            np.testing.assert_array_equal(numbers(photo["values"]), numbers(wanted["values"]))
    alone.close()
    together.close()


def test_a_full_queue_says_so(patient: Session) -> None:
    slow(patient, "running", target=3)
    assert eventually(lambda: patient.workers.busy)
    many = [slow(patient, str(i), sample=1 + i) for i in range(9)]
    last = many[-1]
    assert eventually(lambda: last.messages and last.messages[-1].get("kind") == "busy")
    assert [one.ended for one in many[:7]] == [None] * 7
    patient.cancel("page")


def test_one_who_cannot_be_told_does_not_stop_the_others(
    patient: Session, caplog: pytest.LogCaptureFixture
) -> None:
    def deaf(message: dict[str, Any]) -> None:
        raise ConnectionError("gone")

    message = {"v": 1, "id": "1", "type": "attribute", "sample": 0, "method": "slow"}
    patient.handle({**message, "args": {"steps": 2, "seconds": 0.0}}, deaf)
    assert slow(patient, args={"steps": 3, "seconds": 0.0})
    assert eventually(lambda: not patient.workers.busy)
    assert patient.workers.alive
    assert "cannot be reached" in caplog.text


def test_an_overview_reads_every_sample_once() -> None:
    read: list[int] = []
    data = insights_studies.photos(8)

    class Counted:
        def __len__(self) -> int:
            return 200

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return data[index % 8]

    session = Session(insights_studies.image_study(data=Counted()))
    read.clear()
    found = asked(session, "overview")
    assert found["computed"] == 200
    assert sorted(set(read)) == list(range(200))
    assert len(read) <= 202  # the first one also tells what the model predicts
    session.close()


def test_an_overview_does_not_count_samples_without_an_answer() -> None:
    data = insights_studies.photos(8)

    class Broken:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            if index in (2, 5, 6):
                raise ValueError("no such file")
            return data[index]

    session = Session(insights_studies.image_study(data=Broken()))
    found = asked(session, "overview")
    assert (found["computed"], found["total"], found["done"]) == (5, 8, True)
    session.close()


def test_threads_end_on_close() -> None:
    before = len(workers())
    session = Session(insights_studies.slow)
    running = slow(session)
    assert eventually(lambda: len(running.messages) > 2)
    assert len(workers()) == before + 2
    session.close()
    assert running.ended == "cancelled"
    assert len(workers()) == before
    assert slow(session).messages[-1]["kind"] == "busy"


def test_grad_mode_and_models_stay_as_they_are(session: Session) -> None:
    model = insights_studies.images.models["cnn"]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for method in ("integrated_gradients", "lrp", "grad_cam"):
        shown(session, method=method, sample=2)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


# Failures.


def test_a_broken_method_or_model_says_so_and_the_rest_goes_on() -> None:
    session = Session(insights_studies.broken)
    found = asked(session, "query", limit=14)
    errors = [row["predictions"][0]["error"] for row in found["rows"]]
    assert any(errors)
    assert not [error for error in errors if error is not None and "/home" in error]
    assert not all(errors)
    good = next(row["sample"] for row in found["rows"] if row["predictions"][0]["error"] is None)
    bad = next(row["sample"] for row in found["rows"] if row["predictions"][0]["error"])
    assert asked(session, "attribute", sample=bad, method="saliency")["kind"] == "model"
    error = asked(session, "attribute", sample=good, method="broken")
    assert (error["kind"], "broken" in error["message"]) == ("model", True)
    error = asked(session, "attribute", sample=good, method="hungry")
    assert (error["kind"], "chunk" in error["hint"]) == ("memory", True)
    shown(session, sample=good)
    session.close()


@pytest.mark.parametrize(
    ("changed", "kind", "field"),
    [
        ({"sample": 99}, "absent", "sample"),
        ({"model": "none"}, "field", "model"),
        ({"method": "none"}, "field", "method"),
        ({"method": "attention_rollout"}, "field", "method"),
        ({"target": 4}, "field", "target"),
        ({"target": {"contrast": [1, 1]}}, "field", "target"),
        ({"baseline": {"photo": "none"}}, "field", "baseline"),
        ({"baseline": {"none": "zero"}}, "field", "baseline"),
        ({"edits": {"none": {}}}, "field", "edits"),
        ({"edits": {"photo": {"erase": [{"y0": 1}]}}}, "field", "erase"),
        ({"edits": {"photo": {"fill": "none"}}}, "field", "fill"),
        ({"method": "lime", "args": {"samples": 3}}, "value", "samples"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(
    session: Session, changed: dict[str, Any], kind: str, field: str
) -> None:
    error = asked(session, "attribute", **{"sample": 0, "method": "saliency", **changed})
    assert (error["type"], error["kind"], error["field"]) == ("error", kind, field)


def test_degenerate_attributions_are_shown_with_a_notice() -> None:
    session = Session(insights_studies.degenerate)
    zero, one, spoiled = (shown(session, method=name) for name in ("zero", "one", "spoiled"))
    assert [notice["kind"] for notice in zero["notices"]] == ["zero"]
    assert zero["features"]["photo"]["scale"] == 0
    assert one["notices"] == []
    assert {notice["kind"] for notice in spoiled["notices"]} == {"nan", "inf"}
    photo = spoiled["features"]["photo"]
    assert (photo["nan"], photo["inf"]) == (1, 2)
    assert photo["values"].values[0, :3].tolist() == [-32768, 32767, -32767]
    session.close()


# What is kept.


def test_what_is_kept_is_bounded_and_found_again() -> None:
    limits = insights.Limits(cache_bytes=60_000)
    session = Session(insights_studies.images, limits=limits)
    for target in range(4):
        for sample in range(6):
            shown(session, sample=sample, target=target)
            assert 0 < session.bytes <= 60_000
    assert shown(session, sample=5, target=3)["cached"]
    assert not shown(session, sample=0, target=0)["cached"]  # forgotten long ago
    session.close()


def test_the_key_is_what_was_asked_never_a_tensor() -> None:
    calls: list[int] = []
    data = insights_studies.photos(4)

    class Fresh:
        """Data that are new tensors every time."""

        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> Any:
            return data[index][0].clone(), data[index][1]

    def counted(f: Any) -> Any:
        def attribute(x: Tensor) -> Tensor:
            calls.append(1)
            return attrib.saliency(f)(x)

        return attribute

    study = insights_studies.image_study(data=Fresh(), methods={"counted": counted})
    session = Session(study)
    best = asked(session, "query", samples=[1])["rows"][0]["predictions"][0]["top"][0]["class"]
    for target in ("pred", best, "pred"):
        shown(session, sample=1, method="counted", target=target)
    assert len(calls) == 1
    session.close()


def test_memory_of_a_long_run_is_bounded() -> None:
    limits = insights.Limits(cache_bytes=2**20)
    session = Session(insights_studies.images, limits=limits)

    def run(count: int) -> None:
        for number in range(count):
            seed = {"seed": number, "samples": 2}
            shown(session, sample=number % 14, method="smooth_grad", args=seed)

    run(100)  # caches of torch and of Python are warm
    before = _resident()
    run(300)
    # Each result holds an attribution of 7 kB: 300 of them would be 2 MB, with graphs many more.
    assert _resident() - before < 20 * 2**20
    assert session.bytes <= 2**20
    session.close()


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Sized:
    def __init__(self, size: int) -> None:
        self.bytes = size


def test_the_cache_forgets_what_was_not_used_for_longest() -> None:
    cache: Cache[Sized] = Cache(10)
    for key in "abc":
        cache.put(key, Sized(3))
    assert cache.get("a") is not None
    cache.put("d", Sized(3))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
    cache.put("large", Sized(11))
    assert cache.get("large") is None
    cache.put("a", Sized(1))
    assert (cache.bytes, len(cache)) == (7, 3)


def test_every_study_answers() -> None:
    assert set(STUDIES) >= {"thousand", "hostile", "long_text", "long_series", "grey"}
    for name in ("thousand", "hostile", "long_series", "grey", "unlabelled"):
        session = Session(getattr(insights_studies, name))
        assert asked(session, "init")["type"] == "config"
        found = asked(session, "query")
        assert found["rows"][0]["predictions"][0]["error"] is None
        method = asked(session, "init")["default"]["method"]
        shown(session, method=method)
        session.close()
