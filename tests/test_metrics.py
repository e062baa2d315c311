"""What all measures have in common: how they are called, and the laws that each of them keeps."""

from __future__ import annotations

import copy
import inspect
import re
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

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


class Case(NamedTuple):
    """A measure that is made for a score and called with the data of its attribution function."""

    make: Callable[[attrib.types.Score, nn.Module], attrib.types.Measure]
    call: Callable[[attrib.types.Measure, Tensor], Tensor] = lambda measure, x: measure(x, 0.1)
    drawn: bool = False
    differentiable: bool = True


def noise() -> Any:
    return attrib.perturb.gaussian(0.1, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def explained(f: Any) -> Any:
    return attrib.integrated_gradients(f, steps=4)


def moved(measure: Any, x: Tensor) -> Tensor:
    return measure(x)


def of_mask(measure: Any, x: Tensor) -> Tensor:
    return measure(x, torch.arange(x.shape[-1]).expand_as(x) < 2)


UNUSED = torch.tensor([False, False, True, False, False, False])

CASES: dict[str, Case] = {
    "agreement": Case(
        lambda f, m: metrics.agreement(
            attrib.saliency(f), explained(f), similarity=metrics.pearson
        ),
        moved,
    ),
    "aopc": Case(lambda f, m: metrics.aopc(f, explained(f))),
    "average_drop": Case(lambda f, m: metrics.average_drop(f, explained(f))),
    "average_increase": Case(
        lambda f, m: metrics.average_increase(f, explained(f)), differentiable=False
    ),
    "average_sensitivity": Case(
        lambda f, m: metrics.average_sensitivity(explained(f), noise()), moved, True
    ),
    "completeness": Case(lambda f, m: metrics.completeness(f, explained(f))),
    "comprehensiveness": Case(lambda f, m: metrics.comprehensiveness(f, explained(f))),
    "deletion": Case(lambda f, m: metrics.deletion(f, explained(f))),
    "deletion_gap": Case(lambda f, m: metrics.deletion_gap(f, explained(f))),
    "dummy": Case(lambda f, m: metrics.dummy(attrib.saliency(f), unused=UNUSED), moved),
    "effective_complexity": Case(
        lambda f, m: metrics.effective_complexity(f, explained(f), tol=0.1), differentiable=False
    ),
    "entropy": Case(lambda f, m: metrics.entropy(explained(f)), moved),
    "faithfulness_correlation": Case(
        lambda f, m: metrics.faithfulness_correlation(
            f, explained(f), size=2, samples=9, generator=seeded()
        ),
        drawn=True,
    ),
    "faithfulness_estimate": Case(lambda f, m: metrics.faithfulness_estimate(f, explained(f))),
    "implementation_invariance": Case(
        lambda f, m: metrics.implementation_invariance(attrib.saliency(f), explained(f)), moved
    ),
    "infidelity": Case(
        lambda f, m: metrics.infidelity(f, explained(f), noise(), form="global"), drawn=True
    ),
    "insertion": Case(lambda f, m: metrics.insertion(f, explained(f))),
    "iou": Case(lambda f, m: metrics.iou(explained(f)), of_mask, differentiable=False),
    "linearity": Case(
        lambda f, m: metrics.linearity(lambda g: lambda x: attrib.saliency(g)(x).square(), f, f),
        moved,
        differentiable=False,  # of two equal scores nothing is left
    ),
    "local_lipschitz": Case(
        lambda f, m: metrics.local_lipschitz(explained(f), noise()), moved, True
    ),
    "max_sensitivity": Case(
        lambda f, m: metrics.max_sensitivity(explained(f), noise()), moved, True
    ),
    "monotonicity": Case(lambda f, m: metrics.monotonicity(f, explained(f)), differentiable=False),
    "parameter_randomisation": Case(
        lambda f, m: metrics.parameter_randomisation(
            lambda m: attrib.saliency(attrib.target(m, 0)),
            m,
            similarity=metrics.pearson,
            generator=seeded(),
        ),
        moved,
        True,
    ),
    "pointing_game": Case(
        lambda f, m: metrics.pointing_game(explained(f)), of_mask, differentiable=False
    ),
    "random_logit": Case(
        lambda f, m: metrics.random_logit(
            lambda c: attrib.saliency(attrib.target(m, c)),
            classes=3,
            similarity=metrics.pearson,
            generator=seeded(),
        ),
        lambda measure, x: measure(x, 0),
        True,
    ),
    "relative_input_stability": Case(
        lambda f, m: metrics.relative_input_stability(explained(f), noise()), moved, True
    ),
    "relative_output_stability": Case(
        lambda f, m: metrics.relative_output_stability(explained(f), m, noise()), moved, True
    ),
    "relative_representation_stability": Case(
        lambda f, m: metrics.relative_representation_stability(
            explained(f), attrib.activation(m, "1"), noise()
        ),
        moved,
        True,
    ),
    "relevance_mass": Case(lambda f, m: metrics.relevance_mass(explained(f)), of_mask),
    "relevance_rank": Case(
        lambda f, m: metrics.relevance_rank(explained(f)), of_mask, differentiable=False
    ),
    "road": Case(
        lambda f, m: metrics.road(
            attrib.batched(lambda x: f(x.flatten(-3))), lambda x: x.square(), generator=seeded()
        ),
        lambda measure, x: measure(x.unflatten(-1, (1, 2, 3))),
        True,
        differentiable=False,
    ),
    "sensitivity_n": Case(
        lambda f, m: metrics.sensitivity_n(
            f, explained(f), sizes=[1, 3], samples=9, generator=seeded()
        ),
        drawn=True,
    ),
    "sparseness": Case(lambda f, m: metrics.sparseness(explained(f)), moved),
    "sufficiency": Case(lambda f, m: metrics.sufficiency(f, explained(f))),
    "sum_to_delta": Case(lambda f, m: metrics.sum_to_delta(f, explained(f))),
    "symmetry": Case(lambda f, m: metrics.symmetry(explained(f), lambda x: x.flip(-1)), moved),
    "top_k": Case(lambda f, m: metrics.top_k(explained(f), k=2), of_mask, differentiable=False),
}
cases = pytest.mark.parametrize("name", CASES)


def setting(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Any, Tensor]:
    model = network("gelu", 1, dtype)
    return model, attrib.target(model, 0), data("gelu", 2, dtype)


def test_every_measure_has_a_direction_a_law_and_says_so() -> None:
    functions = {
        name
        for name in metrics.__all__
        if inspect.isfunction(getattr(metrics, name)) and name not in HELPERS
    }
    assert functions == set(DIRECTION) == set(CASES)
    words = {"higher": "higher is", "lower": "lower is", "zero": "zero is"}
    for name, direction in DIRECTION.items():
        if name == "agreement":
            continue  # its docstring says for what
        text = inspect.getdoc(getattr(metrics, name)) or ""
        assert words[direction] in text or f"{direction}:" in text, name
        assert "References:" in text and re.search(r"https://", text), name


@cases
def test_a_measure_states_its_direction(name: str) -> None:
    model, f, _ = setting()
    measure: Any = CASES[name].make(f, model)
    assert measure.better == DIRECTION[name]


def test_the_directions_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DIRECTION["infidelity"] = "higher"  # type: ignore[index]


@cases
def test_a_measure_is_one_finite_number_per_example_of_the_dtype_of_the_score(name: str) -> None:
    case = CASES[name]
    for dtype in (torch.float64, torch.float32):
        model, f, x = setting(dtype)
        with torch.no_grad():
            found = case.call(case.make(f, model), x)
        assert found.shape == (5,) and found.dtype == dtype and found.isfinite().all()


@cases
def test_examples_do_not_disturb_each_other(name: str) -> None:
    case = CASES[name]
    if case.drawn:
        return  # another batch has other draws
    model, f, x = setting()
    with torch.no_grad():
        whole = case.call(case.make(f, model), x)
        part = case.call(case.make(f, model), x[[3, 1]])
    torch.testing.assert_close(part, whole[[3, 1]], rtol=1e-10, atol=1e-13)


@cases
def test_a_module_and_a_plain_function_measure_the_same(name: str) -> None:
    case = CASES[name]
    model, f, x = setting()
    with torch.no_grad():
        found = case.call(case.make(f, model), x)
        plain = case.call(case.make(lambda x: model(x)[..., 0], model), x)
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-12)


@cases
def test_nothing_is_changed_and_the_same_seed_gives_the_same(name: str) -> None:
    case = CASES[name]
    model, f, x = setting()
    before, original = copy.deepcopy(model.state_dict()), x.clone()
    state = torch.get_rng_state()
    values = [case.call(case.make(f, model), x) for _ in range(2)]
    assert torch.equal(*values)
    assert torch.equal(x, original) and x.grad is None and not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@cases
def test_four_threads_measure_what_one_does(name: str) -> None:
    case = CASES[name]
    model, f, x = setting()

    def measured(turn: int) -> Tensor:
        with torch.no_grad():  # of this thread
            return case.call(case.make(f, model), x)

    alone = measured(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(found, alone) for found in pool.map(measured, range(8)))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.differentiable])
def test_its_slope_is_that_of_finite_differences(name: str) -> None:
    case = CASES[name]
    model, f, x = setting()
    x = x[:2].clone().requires_grad_()
    measured = lambda x: case.call(case.make(f, model), x)
    direction = torch.randn_like(x)
    (slope,) = torch.autograd.grad(measured(x).sum(), x)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (measured(x + sign * step * direction).sum() for sign in (1, -1))
    found = (slope * direction).sum()
    scale = (slope * direction).abs().sum().clamp_min(1e-3)
    assert (found - (ahead - behind) / (2 * step)).abs() <= 1e-5 * scale


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
def test_measures_of_an_attribution_can_be_mapped_and_compiled(measure: Any) -> None:
    _, f, x = setting()
    phi = data("gelu", 5)
    own = measure(f)
    expected = own(phi, x)
    mapped = torch.vmap(own)(phi, x)
    torch.testing.assert_close(mapped, expected, rtol=1e-10, atol=1e-13)
    stack = torch.vmap(lambda a: own(a, x))(torch.stack([phi, -phi]))
    torch.testing.assert_close(stack[0], expected, rtol=1e-10, atol=1e-13)
    with torch.no_grad():
        compiled = torch.compile(own, fullgraph=True, backend="eager")(phi, x)
    torch.testing.assert_close(compiled, expected.detach(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("factory", [metrics.max_sensitivity, metrics.local_lipschitz])
def test_measures_of_a_function_can_be_mapped_and_compiled(factory: Any) -> None:
    _, f, x = setting()
    saliency = attrib.saliency(f)
    move = lambda x: 0.9 * x
    expected = factory(saliency, move)(x)
    mapped = torch.vmap(factory(saliency, move, batch_dims=0))(x)
    torch.testing.assert_close(mapped, expected, rtol=1e-10, atol=1e-13)
    with torch.no_grad():
        compiled = torch.compile(factory(saliency, move), fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(compiled, expected.detach(), rtol=1e-10, atol=1e-13)


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
        assert metrics.max_sensitivity(ablation, noise())(x).shape == (5,)
        exact = metrics.infidelity(
            lambda x: x.sum(-1), games.feature_ablation(lambda x: x.sum(-1)), metrics.hiding()
        )(x)
        assert (exact < 1e-28).all()
