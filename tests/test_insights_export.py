"""What leaves a session holds the numbers of attrib, and nothing that runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attrib
import insights_studies
from attrib import insights
from attrib.insights.protocol import Message
from attrib.insights.session import Session
from insights_asking import array


class Page(HTMLParser):
    """The elements of a page: names with attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def text(self, tag: str, **attributes: str) -> str:
        return next(
            text
            for (name, found), text in zip(self.elements, self.texts, strict=True)
            if name == tag and attributes.items() <= found.items()
        )


def data_of(page: Page) -> dict[str, Any]:
    return json.loads(page.text("script", id="attrib-data"))


def record(entry: dict[str, Any]) -> Message:
    return Message(entry["header"], [base64.b64decode(text) for text in entry["buffers"]])


def test_a_report_is_one_file_with_the_numbers_of_attrib(tmp_path: Path) -> None:
    study = insights_studies.images
    path = insights.export(
        study,
        tmp_path / "report.html",
        samples=[3, 5],
        methods=["saliency", ("integrated_gradients", {"steps": 8})],
        targets="top2",
    )
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    page = Page(path.read_text("utf-8"))
    data = data_of(page)
    assert data["config"]["header"]["study"]["name"] == "shapes"
    assert [one["header"]["rows"][0]["sample"] for one in data["rows"]] == [3, 5]
    assert len(data["results"]) == 2 * 2 * 2
    for entry in data["results"]:
        found = record(entry)
        header = found.header
        image, _ = study.data[header["sample"]]
        f = attrib.target(study.models["cnn"], header["target"]["a"])
        expected = attrib.saliency(f)(image[None])
        if header["method"] == "integrated_gradients":
            expected = attrib.integrated_gradients(f, steps=8)(image[None], 0.0)
        values = array(found, header["features"]["photo"]["values"])
        largest = float(expected.sum(1).abs().max())
        np.testing.assert_allclose(values, expected[0].sum(0), atol=1e-4 * largest)


def test_a_report_loads_nothing_and_runs_only_what_is_in_it(tmp_path: Path) -> None:
    path = insights.export(insights_studies.table, tmp_path / "report.html", samples=[0])
    page = Page(path.read_text("utf-8"))
    assert not [found for _, found in page.elements if "src" in found]
    links = [found["href"] for _, found in page.elements if "href" in found]
    assert links == ["data:,"]
    policy = next(found["content"] for _, found in page.elements if found.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    scripts = [
        text
        for (name, found), text in zip(page.elements, page.texts, strict=True)
        if name == "script" and found.get("type") == "module"
    ]
    assert len(scripts) == 1
    for kind, text in (("script", scripts[0]), ("style", page.text("style"))):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"^(?:import|export)\b", scripts[0], re.MULTILINE)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    study = insights_studies.hostile
    path = insights.export(study, tmp_path / "report.html", samples=[0, 1, 2])
    page = Page(path.read_text("utf-8"))
    plain = Page(
        insights.export(insights_studies.table, tmp_path / "plain.html").read_text("utf-8")
    )
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements]
    data = data_of(page)
    assert data["config"]["header"]["study"]["name"] == insights_studies.HOSTILE[0]
    tokens = data["rows"][0]["header"]["rows"][0]["features"][insights_studies.HOSTILE[1]]["tokens"]
    assert tokens == [*insights_studies.HOSTILE, "plain"]
    assert page.text("title") == insights_studies.HOSTILE[0]


@pytest.mark.parametrize(
    "word", ["</script x", "</SCRIPT/", "<!--<script", "]]></script\n>", "\u2028"]
)
def test_no_word_ends_the_data(word: str, tmp_path: Path) -> None:
    study = insights.Study(
        models={word: nn.Linear(2, 2)},
        data=[(torch.ones(2), 0)],
        features={word: insights.tabular([word, "b"])},
        classes=[word, "other"],
        name=word,
    )
    text = insights.export(study, tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert data_of(page)["config"]["header"]["study"]["classes"][0] == word
    # What browsers take for an end is more than Python does: there must be nothing like one.
    data = text.partition('id="attrib-data">')[2].partition("</script>\n<script")[0]
    assert json.loads(data) == data_of(page)
    assert not set("<>&\u2028\u2029") & set(data)


def test_json_and_npz_hold_the_same_numbers(tmp_path: Path) -> None:
    study = insights_studies.modal
    options: dict[str, Any] = {"samples": [0, 1], "methods": ["saliency"], "targets": [0, 2]}
    whole = json.loads(insights.export(study, tmp_path / "a.json", **options).read_text())
    packed = np.load(insights.export(study, tmp_path / "a.npz", **options), allow_pickle=False)
    assert len(whole["results"]) == 4
    for result in whole["results"]:
        (image, ids), _ = study.data[result["sample"]]
        f = attrib.target(study.models["model"], result["target"]["a"])
        expected = attrib.layer(attrib.saliency, f, "read.embedding")((image[None], ids[None]))[0]
        np.testing.assert_allclose(result["values"]["question"], expected, rtol=1e-5, atol=1e-7)
        key = f"{result['sample']}/model/saliency/{result['target']['a']}"
        for feature in ("photo", "question"):
            np.testing.assert_allclose(
                packed[f"{key}/{feature}"], result["values"][feature], rtol=1e-6
            )


def test_the_size_is_told_before_anything_is_sent() -> None:
    session = Session(insights_studies.table)
    message: dict[str, Any] = {"v": 1, "id": "1", "type": "export", "samples": [0, 1]}
    for kind in ("html", "json", "npz"):
        asked = {**message, "format": kind, "methods": [{"method": "saliency"}], "targets": "top2"}
        told = session.ask({**asked, "estimate": True})
        assert told["data"] is None
        sent = session.ask(asked)
        assert sent["name"] == f"attrib.{kind}"
        assert told["bytes"] == sent["bytes"] == sent["data"].size
    session.close()


@pytest.mark.parametrize(
    ("path", "changed", "match"),
    [
        ("report.pdf", {}, "path: unknown"),
        ("report.html", {"samples": [99]}, "there is no sample 99"),
        ("report.html", {"methods": ["none"]}, "there is no such method"),
        ("report.html", {"methods": [("saliency", {"steps": 1})]}, "there is no such option"),
        ("report.html", {"targets": "best"}, "targets: must be"),
        ("report.html", {"targets": [7]}, "there is no class 7"),
        ("report.html", {"model": "none"}, "there is no such model"),
    ],
)
def test_what_makes_no_sense_is_refused(
    path: str, changed: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(attrib.AttribError, match=match):
        insights.export(insights_studies.table, tmp_path / path, **changed)
    assert list(tmp_path.iterdir()) == []
