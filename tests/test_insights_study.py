"""A study describes; what does not fit is refused in words; forms come from signatures."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

import attrib
import insights_studies
from attrib import games, insights
from attrib.insights.field import Setting
from attrib.insights.forms import NOT_IN_FORMS, arguments, fields
from attrib.insights.protocol import Failure
from attrib.insights.registry import METHODS, options_of, summary
from attrib.insights.session import Session

ROOT = Path(__file__).parents[1]

# What attrib offers that is no method of attribution to choose from a list.
OTHERS = {
    *("activation", "activation_and_gradient", "batched", "blur_path", "check", "compare"),
    *("contrast", "estimate", "game", "grad_and_score", "log_prob", "maximum", "mean", "minimum"),
    *("neuron", "override", "per_target", "prob", "progress", "second_moment", "split", "straight"),
    *("tap", "target", "total", "upsample", "variance", "with_attention", "sharded"),
}


def setting(name: str = "images") -> Setting:
    study = getattr(insights_studies, name)
    first = study.data[0][0]
    leaves = first if isinstance(first, tuple) else (first,)
    return Setting(study.features, leaves[: len(study.features)], study.models)


def test_every_method_of_the_library_is_there() -> None:
    functions = {
        name
        for name in attrib.__all__
        if inspect.isfunction(getattr(attrib, name)) and not name.startswith("_")
    }
    assert set(METHODS) - {"svarm"} == functions - OTHERS
    assert METHODS["svarm"].make is games.svarm


@pytest.mark.parametrize("name", METHODS)
def test_every_option_has_an_entry_or_a_reason(name: str) -> None:
    form = fields(METHODS[name], setting())
    named = {field.name.partition(".")[0] for field in form}
    renamed = {"generator": "seed", "perturb": "perturb"}
    for option in options_of(METHODS[name]):
        assert renamed.get(option, option) in named or option in NOT_IN_FORMS, option
    assert arguments(form, {}, "cnn").keys() == {field.name for field in form}
    assert summary(METHODS[name].make)


def test_options_get_the_entries_of_their_types() -> None:
    form = {field.name: field for field in fields(METHODS["integrated_gradients"], setting())}
    assert (form["steps"].type, form["steps"].default, form["steps"].max) == ("integer", 50, 1000)
    words = [choice["value"] for choice in form["quadrature"].choices or ()]
    assert set(words) >= {"gauss-legendre", "trapezoid", "secant"}
    assert (form["tol"].type, form["tol"].optional) == ("number", True)
    form = {field.name: field for field in fields(METHODS["deep_lift"], setting())}
    assert form["multiply"].type == "boolean"
    for word in form["rule"].choices or ():  # the words are those that attrib knows
        attrib.deep_lift(lambda x: x.sum(-1), rule=word["value"])
    form = {field.name: field for field in fields(METHODS["occlusion"], setting())}
    assert (form["window.photo"].type, form["window.photo"].default) == ("integers", [3, 3])
    assert "24 × 24" in (form["window.photo"].hint or "")


def test_forms_of_own_functions_come_from_their_signatures() -> None:
    def mine(
        f: Any,
        *,
        steps: Annotated[int, insights.Range(2, 500)] = 50,
        kind: Literal["soft", "hard"] = "soft",
        bold: bool = False,
        rate: float = 0.5,
        size: tuple[int, ...] = (3, 8),
        note: str = "",
    ) -> Any:
        return lambda x: x * rate

    study = insights_studies.image_study(methods={**insights.methods(), "mine": mine})
    session = Session(study)
    config = session.ask({"v": 1, "id": "1", "type": "init"})
    entry = next(one for one in config["methods"] if one["name"] == "mine")
    assert entry["group"] == "yours"
    types = {field["name"]: field["type"] for field in entry["fields"]}
    assert types == {
        "steps": "integer",
        "kind": "choice",
        "bold": "boolean",
        "rate": "number",
        "size": "integers",
        "note": "text",
    }
    steps = entry["fields"][0]
    assert (steps["min"], steps["max"]) == (2, 500)
    message = {"v": 1, "id": "1", "type": "attribute", "sample": 0, "method": "mine"}
    found = session.ask({**message, "args": {"rate": 0.25}})
    image = study.data[0][0]
    assert found["sum"] == pytest.approx(0.25 * float(image.sum()), rel=1e-5)
    refused = session.ask({**message, "args": {"steps": 1}})
    assert (refused["kind"], refused["field"]) == ("field", "steps")
    session.close()


def test_methods_may_be_chosen_by_name() -> None:
    study = insights_studies.image_study(methods=["saliency", "lrp"])
    session = Session(study)
    config = session.ask({"v": 1, "id": "1", "type": "init"})
    assert {one["name"] for one in config["methods"]} == {"saliency", "lrp"}
    session.close()
    for methods in ("saliency", ["salience"], {"mine": 3}):
        with pytest.raises((ValueError, TypeError), match="methods"):
            Session(insights_studies.image_study(methods=methods))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"models": {}}, "models: must name"),
        ({"models": 3}, "models"),
        ({"data": 3}, "data: must be a sequence"),
        ({"data": [(torch.zeros(5), 0)]}, "data: feature 'photo' must be an image"),
        ({"data": [("text", 0)]}, "data: inputs of sample 0 must be tensors"),
        ({"data": [(torch.zeros(3, 4, 4), "a")]}, "data: the label of sample 0"),
        ({"data": [(torch.zeros(3, 4, 4) * 1j, 0)]}, "data: inputs of sample 0 must be real"),
        ({"features": {}}, "features: must name"),
        ({"features": {"photo": "image"}}, "features\\['photo'\\]: must be a feature"),
        ({"baselines": {"other": 0}}, "features: must name"),
        ({"n_top": 0}, "n_top"),
        ({"score": 3}, "score"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(changed: dict[str, Any], match: str) -> None:
    given = {"models": nn.Identity(), "data": insights_studies.photos(2)}
    features = {"photo": insights.image()}
    with pytest.raises(attrib.AttribError, match=match):
        insights.Study(**{**given, "features": features, **changed})


@pytest.mark.parametrize(
    "call",
    [
        lambda: insights.image(denorm=3),  # pyright: ignore[reportArgumentType]
        lambda: insights.text(3),  # pyright: ignore[reportArgumentType]
        lambda: insights.text(list, merge="other"),  # pyright: ignore[reportArgumentType]
        lambda: insights.text(list, encode=3),  # pyright: ignore[reportArgumentType]
        lambda: insights.tabular([]),
        lambda: insights.tabular(["a", "a"]),
        lambda: insights.tabular(["a"], units={"b": "kg"}),
        lambda: insights.timeseries(dt=0),
    ],
)
def test_a_feature_that_makes_no_sense_is_refused(call: Any) -> None:
    with pytest.raises(attrib.AttribError):
        call()


def test_a_study_is_frozen_and_reads_lazily() -> None:
    read: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return insights_studies.picture(index % 4, index), index % 4

    study = insights_studies.image_study(data=Lazy())
    with pytest.raises(AttributeError):
        study.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    session = Session(study)
    session.ask({"v": 1, "id": "1", "type": "query", "offset": 40, "limit": 3})
    assert set(read) == {0, 40, 41, 42}
    session.close()


def test_an_iterable_and_a_bare_model_will_do() -> None:
    study = insights.Study(
        models=lambda x: x.sum(-1),
        data=(([1.0, 2.0], None) for _ in range(3)),
        features={"row": insights.tabular(["a", "b"])},
    )
    assert len(study.data) == 3
    session = Session(study)
    found = session.ask({"v": 1, "id": "1", "type": "attribute", "sample": 2, "method": "saliency"})
    assert found["features"]["row"]["values"].tolist() == [1.0, 1.0]
    session.close()


def test_an_empty_study_is_shown_empty() -> None:
    study = insights_studies.image_study(data=[])
    session = Session(study)
    assert session.ask({"v": 1, "id": "1", "type": "init"})["study"]["samples"] == 0
    assert session.ask({"v": 1, "id": "1", "type": "query"})["rows"] == []
    session.close()


def test_a_model_that_returns_no_row_per_example_is_refused_in_words() -> None:
    study = insights_studies.image_study(models=lambda x: x, classes=None)
    session = Session(study)
    row = session.ask({"v": 1, "id": "1", "type": "query"})["rows"][0]
    assert "must return (batch, classes)" in row["predictions"][0]["error"]
    session.close()


# How inputs are shown.


def test_pixels_are_brought_back_to_colours() -> None:
    image = torch.rand(3, 5, 7)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    normal = (image - mean[:, None, None]) / std[:, None, None]
    pixels = insights.image(denorm=(mean, std)).view(normal)["pixels"]
    np.testing.assert_array_equal(pixels, (image * 255).round().permute(1, 2, 0).byte())


def test_large_images_shrink_by_means() -> None:
    image = torch.rand(1, 1024, 512)
    view = insights.image().view(image)
    assert view["pixels"].shape == (512, 256, 1)
    assert view["size"] == [1024, 512]
    expected = image.reshape(512, 2, 256, 2).mean((1, 3)) * 255
    assert np.abs(view["pixels"][..., 0] - expected.numpy()).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("merge", "raw", "tokens", "before", "words"),
    [
        ("wordpiece", ["[CLS]", "un", "##kind", "act", "[SEP]"], None, None, [-1, 0, 0, 1, -1]),
        ("sentencepiece", ["▁un", "kind", "▁act"], ["un", "kind", "act"], ["", "", " "], [0, 0, 1]),
        ("bpe", ["un", "kind", "Ġact"], ["un", "kind", "act"], ["", "", " "], [0, 0, 1]),
        ("words", ["un", "kind"], ["un", "kind"], ["", " "], [0, 1]),
        ("characters", ["u", "n"], ["u", "n"], ["", ""], [0, 1]),
    ],
)
def test_tokens_become_words(
    merge: Any, raw: list[str], tokens: Any, before: Any, words: list[int]
) -> None:
    feature = insights.text(lambda ids: [raw[i] for i in ids], merge=merge)
    view = feature.view(torch.arange(len(raw)))
    assert view["word"] == words
    if tokens is not None:
        assert (view["tokens"], view["before"]) == (tokens, before)


def test_a_table_is_shown_in_its_units() -> None:
    feature = insights.tabular(
        ["age", "sex"],
        units=["years", ""],
        categories={"sex": ["f", "m"]},
        scale=([40, 0], [10, 1]),
    )
    view = feature.view(torch.tensor([0.5, 1.0]))
    assert view["values"] == [45.0, 1.0]
    assert view["text"] == ["45 years", "m"]
    changed, _ = feature.edited(torch.tensor([0.5, 1.0]), {"values": {"age": 20}}, torch.zeros(2))
    assert changed.tolist() == [-2.0, 1.0]


def test_long_series_are_sent_as_means() -> None:
    series = torch.randn(2, 9000)
    view = insights.timeseries().view(series)
    assert view["stride"] == 3
    expected = series.reshape(2, 3000, 3).mean(-1)
    np.testing.assert_allclose(view["series"], expected, rtol=1e-5, atol=1e-6)


def test_words_that_a_study_does_not_have_are_refused() -> None:
    feature = insights.text(lambda ids: ["a"] * len(ids))
    for edit in ({"replace": {"0": "b"}}, {"drop": [7]}, {"drop": [0, 1]}, {"replace": []}):
        with pytest.raises(Failure):
            feature.edited(torch.tensor([0, 1]), edit, torch.zeros(2))


def test_the_documentation_lists_every_method() -> None:
    page = (ROOT / "docs" / "insights.md").read_text("utf-8")
    missing = [name for name in METHODS if f"`{name}`" not in page]
    assert not missing


def test_a_config_is_small_enough_to_wait_for() -> None:
    session = Session(insights_studies.modal)
    config = session.ask({"v": 1, "id": "1", "type": "init"})
    assert len(json.dumps(config)) < 150_000
    session.close()
