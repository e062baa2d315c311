"""The Python code of a card is code of attrib that gives the numbers of the card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrib
import insights_studies
from attrib import insights
from attrib.insights.session import Session
from attrib.types import Estimate

IG = "integrated_gradients"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "an image": ("images", {"method": IG, "args": {"steps": 20}, "target": 3}),
    "one class against another": (
        "images",
        {"method": "saliency", "target": {"contrast": ["pred", "second"]}},
    ),
    "a blurred baseline": ("images", {"method": "deep_lift", "baseline": {"photo": "blurred"}}),
    "windows": ("images", {"method": "occlusion"}),
    "parts of an image": ("images", {"method": "kernel_shap", "args": {"samples": 200}}),
    "parts within parts": (
        "images",
        {
            "method": "owen_values",
            "args": {"samples": 4, "groups.photo": "grid-4", "unions.photo": "grid-2"},
        },
    ),
    "a path of blurred images": ("images", {"method": IG, "args": {"path": "blur", "steps": 5}}),
    "a similarity": ("images", {"method": "lime", "args": {"similarity": "cosine"}}),
    "noise": ("images", {"method": "smooth", "args": {"samples": 3, "perturb": "uniform"}}),
    "a standard error": (
        "images",
        {"method": "smooth", "args": {"samples": 4, "reduce": "estimate"}},
    ),
    "a map of a layer": ("images", {"method": "grad_cam"}),
    "rules": ("images", {"method": "lrp", "args": {"composite": "epsilon_plus"}}),
    "a neuron": ("images", {"method": "neuron_conductance", "args": {"index": [5]}}),
    "other samples as baselines": ("images", {"method": "expected_gradients"}),
    "an average over baselines": (
        "images",
        {"method": "shapley_sampling", "args": {"samples": 4, "interventional": True}},
    ),
    "exchanged values": ("images", {"method": "feature_permutation"}),
    "an erased image": (
        "images",
        {"method": IG, "edits": {"photo": {"erase": [{"y0": 2, "x0": 3, "y1": 9, "x1": 8}]}}},
    ),
    "a text": ("text", {"method": IG, "args": {"steps": 10}}),
    "words of a text": ("text", {"method": "feature_ablation", "baseline": {"review": "the"}}),
    "tokens of a text": ("text", {"method": "kernel_shap", "args": {"groups.review": "word"}}),
    "other words": (
        "text",
        {"method": IG, "edits": {"review": {"replace": {"2": "very good"}, "drop": [3]}}},
    ),
    "a table": ("table", {"method": "deep_lift"}),
    "a changed row": (
        "table",
        {"method": "shapley_values", "edits": {"patient": {"values": {"age": 2.5}}}},
    ),
    "a series": ("series", {"method": "feature_ablation"}),
    "channels of a series": (
        "series",
        {"method": "feature_ablation", "args": {"groups.ecg": "channel"}},
    ),
    "an array": ("array", {"method": "input_x_gradient"}),
    "a number": ("regression", {"method": IG}),
    "the first class of one logit": ("binary", {"method": "saliency", "target": 0}),
    "an image and a text": ("modal", {"method": IG, "args": {"steps": 10}}),
    "parts of an image and a text": ("modal", {"method": "feature_ablation"}),
    "numpy and embeddings": ("embedded", {"method": "saliency", "baseline": {"text": "padding"}}),
    "a method of one's own": ("embedded", {"method": "mine", "args": {"power": 2}}),
}


def mine(f: Any, *, power: int = 1) -> Any:
    """The gradient to a power."""
    return lambda x, *args: attrib.saliency(f)(x, *args) ** power


class Embedded(nn.Module):
    """A model of embeddings and of further numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, embeddings: Tensor, more: Tensor, scale: float) -> Tensor:
        return self.head(embeddings.tanh().mean(1)) * scale + more


def embedded_study() -> insights.Study:
    torch.manual_seed(0)
    model = Embedded().eval()
    data = [((np.arange(k, k + 5), torch.randn(3), 2.0), None) for k in range(3)]
    text = insights.text(lambda ids: [f"w{i}" for i in ids], embed=model.embedding.forward)
    return insights.Study(
        models={"m": model},
        data=data,
        features={"text": text},
        baselines={"text": {"padding": 0, "next": lambda ids: (ids + 1) % 9}},
        methods={**insights.methods(), "mine": mine},
    )


@pytest.mark.parametrize("case", CASES)
def test_the_code_gives_the_numbers_of_the_card(case: str) -> None:
    name, asked = CASES[case]
    study = embedded_study() if name == "embedded" else getattr(insights_studies, name)
    session = Session(study)
    message = {"v": 1, "id": "1", "type": "attribute", "sample": 1, **asked}
    result = session.ask(message)
    session.close()
    assert result["type"] == "result", result
    names: dict[str, Any] = {"study": study}
    exec(result["snippet"], names)
    assert "Session" not in result["snippet"]
    found = names.get("shown", names["attribution"])
    found = found.value if isinstance(found, Estimate) else found
    parts = [*found] if isinstance(found, tuple) else [found]
    for part, shown in zip(parts, result["features"].values(), strict=True):
        values = shown["values"] if "values" in shown else shown["top"]["values"]
        card = values.values * values.scale if hasattr(values, "scale") else np.asarray(values)
        flat = part[0].detach().numpy()
        if shown["kind"] == "array":
            flat = flat.flatten()[np.argsort(-abs(flat.flatten()), kind="stable")][: len(card)]
        np.testing.assert_allclose(flat, card, rtol=1e-4, atol=1e-4 * abs(card).max())


def test_the_code_is_what_one_would_write() -> None:
    session = Session(insights_studies.images)
    message = {"v": 1, "id": "1", "type": "attribute", "sample": 3, "target": 2, "method": IG}
    code = session.ask({**message, "args": {"steps": 20}})["snippet"]
    session.close()
    assert code.splitlines() == [
        "import torch",
        "import attrib",
        "",
        "model = study.models['cnn']",
        "inputs, label = study.data[3]",
        "x = inputs[None]",
        "f = attrib.target(model, 2)",
        "baseline = torch.full_like(x, 0.0)",
        "attribution = attrib.integrated_gradients(f, steps=20)(x, baseline)",
        "shown = attribution.sum(1)  # as on the card",
    ]
