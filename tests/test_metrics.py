"""What measures have in common: how they are called (their laws are in `laws/test_measures.py`)."""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import games, metrics
from attrib.metrics import DIRECTION
from laws.networks import data, network

HELPERS = {
    *("compare", "curve", "hiding", "linear_imputation", "pearson", "randomisation_curve"),
    "spearman",
}


def explained(f: Any) -> Any:
    return attrib.integrated_gradients(f, steps=4)


def setting() -> tuple[nn.Module, Any, Tensor]:
    model = network("gelu", 1)
    return model, attrib.target(model, 0), data("gelu", 2)


def test_every_measure_has_a_direction_and_says_it_and_where_it_comes_from() -> None:
    functions = {
        name
        for name in metrics.__all__
        if inspect.isfunction(getattr(metrics, name)) and name not in HELPERS
    }
    assert functions == set(DIRECTION)
    words = {"higher": "higher is", "lower": "lower is", "zero": "zero is"}
    for name, direction in DIRECTION.items():
        text = inspect.getdoc(getattr(metrics, name)) or ""
        assert words[direction] in text.split("Args:")[0], name
        for part in ("Args:", "Returns:", "Raises:", "References:", "Example:", "https://"):
            assert part in text, (name, part)


def test_the_directions_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DIRECTION["infidelity"] = "higher"  # type: ignore[index]


GIVEN = [
    "aopc",
    "average_drop",
    "average_increase",
    "completeness",
    "comprehensiveness",
    "deletion",
    "deletion_gap",
    "faithfulness_estimate",
    "insertion",
    "monotonicity",
    "sufficiency",
    "sum_to_delta",
]


@pytest.mark.parametrize("name", GIVEN)
def test_an_attribution_is_given_or_made(name: str) -> None:
    """With an attribution function it explains first; the baseline goes there if it is taken."""
    _, f, x = setting()
    factory = getattr(metrics, name)
    for attribute, attribution in (
        (explained(f), explained(f)(x, 0.3)),
        (attrib.saliency(f), attrib.saliency(f)(x)),
    ):
        made, given = factory(f, attribute)(x, 0.3), factory(f)(attribution, x, 0.3)
        assert torch.equal(made, given)


def test_further_arguments_go_to_the_score_and_to_the_attribution() -> None:
    f = lambda x, scale: (x.square() * scale).sum(-1)
    x, scale = data("gelu"), data("gelu", 1)
    for attribute, own in ((attrib.saliency(f), (scale,)), (explained(f), (0.5, scale))):
        made = metrics.deletion(f, attribute)(x, 0.5, scale)
        given = metrics.deletion(f)(attribute(x, *own), x, 0.5, scale)
        assert torch.equal(made, given)


def test_a_function_without_a_signature_takes_no_baseline() -> None:
    _, f, x = setting()
    assert torch.equal(metrics.deletion(f, torch.sin)(x, 0.3), metrics.deletion(f)(x.sin(), x, 0.3))


@pytest.mark.parametrize(
    "name", ["deletion", "insertion", "aopc", "deletion_gap", "comprehensiveness", "completeness"]
)
def test_the_baseline_may_be_named(name: str) -> None:
    _, f, x = setting()
    factory, attribute = getattr(metrics, name), attrib.integrated_gradients(f, steps=4)
    expected = factory(f, attribute)(x, 0.3)
    assert torch.equal(factory(f, attribute)(x, baseline=0.3), expected)
    given = factory(f)(attribute(x, 0.3), x, baseline=0.3)
    assert torch.equal(given, expected)


def test_a_set_of_baselines_is_to_be_bound() -> None:
    _, f, x = setting()
    attribute = attrib.expected(attrib.integrated_gradients(f, steps=4))
    with pytest.raises(attrib.AttribError) as error:
        metrics.deletion(f, attribute)
    assert error.value.code == "attribute.baselines"
    bound = metrics.deletion(f, lambda y: attribute(y, x[:2]))
    assert torch.equal(bound(x), metrics.deletion(f)(attribute(x, x[:2]), x))


@pytest.mark.parametrize(
    "measure",
    [
        lambda f: metrics.deletion(f),
        lambda f: metrics.insertion(f, steps=3),
        lambda f: metrics.comprehensiveness(f),
        lambda f: metrics.faithfulness_estimate(f),
        lambda f: metrics.monotonicity(f),
        lambda f: metrics.average_drop(f),
        lambda f: metrics.completeness(f),
        lambda f: metrics.infidelity(f, None, lambda x: x.flip(-1), samples=3),
        lambda f: metrics.infidelity(f, None, lambda x: 0.9 * x, samples=3, normalize=True),
    ],
)
def test_measures_can_be_mapped_over_attributions(measure: Any) -> None:
    _, f, x = setting()
    phi = data("gelu", 5)
    own = measure(f)
    expected = own(phi, x)
    mapped = torch.vmap(own)(phi, x)
    torch.testing.assert_close(mapped, expected, rtol=1e-10, atol=1e-13)
    stack = torch.vmap(lambda a: own(a, x))(torch.stack([phi, -phi]))
    torch.testing.assert_close(stack[0], expected, rtol=1e-10, atol=1e-13)


def test_memory_does_not_grow_with_samples() -> None:
    """The draws of a chunk are alive at a time, not all of them."""
    alive: list[Any] = []
    most = 0

    def move(x: Tensor) -> Tensor:
        nonlocal most
        drawn = 0.9 * x
        alive.append(weakref.ref(drawn))
        most = max(most, sum(ref() is not None for ref in alive))
        return drawn

    f = lambda x: x.square().sum(-1)
    with torch.no_grad():
        metrics.infidelity(f, attrib.saliency(f), move, samples=60, chunk_size=3)(data("gelu"))
        metrics.max_sensitivity(attrib.saliency(f), move, samples=60, chunk_size=3)(data("gelu"))
    assert most <= 6


def test_measures_take_attributions_of_games() -> None:
    _, f, x = setting()
    with torch.no_grad():
        ablation = games.feature_ablation(f)
        assert metrics.deletion(f, ablation)(x).shape == (5,)
        assert metrics.max_sensitivity(ablation, attrib.perturb.gaussian(0.1))(x).shape == (5,)
        exact = metrics.infidelity(
            lambda x: x.sum(-1), games.feature_ablation(lambda x: x.sum(-1)), metrics.hiding()
        )(x)
        assert (exact < 1e-28).all()
