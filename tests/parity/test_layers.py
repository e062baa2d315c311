"""Methods on layers against Captum: every class, every option, and where it is wrong, why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import Site, games, rules

from .comparing import FLOAT32_WEIGHTS, assert_close, relative
from .networks import NETWORKS, ToyModel

captum = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting .*hooks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Multiple layers provided:UserWarning"),
]

QUADRATURES = {
    "gauss-legendre": "gausslegendre",
    "midpoint": "riemann_middle",
    "left": "riemann_left",
    "right": "riemann_right",
}
SITES = [
    *[("mlp", site) for site in ("0", "1", "3")],
    *[("cnn", site) for site in ("0", "2", "4", "6")],
    *[("transformer", site) for site in ("layer.norm1", "layer.linear1", "layer")],
]
CHAINS = [("dense", "1"), ("dense", "2"), ("images", "0"), ("images", "2"), ("images", "3")]
SECANTS = 1e-9  # as in test_rules
# A norm makes more of what float32 makes of the nodes.
NODES = 4 * FLOAT32_WEIGHTS

sites = pytest.mark.parametrize(("network", "site"), SITES)
chains = pytest.mark.parametrize(("network", "site"), CHAINS)
sides = pytest.mark.parametrize("of", ["output", "input"])


def but_for(places: list[Any], *deviations: Any) -> Any:
    """Outputs of all places, and inputs of those without a deviation."""
    cases = [(*place, "output") for place in places]
    cases += [(*place, "input") for place in places if place not in deviations]
    return pytest.mark.parametrize(("network", "site", "of"), cases)


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def dense() -> tuple[nn.Module, Tensor]:
    """Of modules that Captum has rules for."""
    torch.manual_seed(1)
    layers = nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)
    return nn.Sequential(*layers).double().eval(), torch.randn(5, 6, dtype=torch.float64)


class Images(nn.Sequential):
    """The same with convolutions; flattened by a method, as Captum's LRP knows no `nn.Flatten`."""

    def forward(self, x: Tensor) -> Tensor:
        for module in list(self)[:-1]:
            x = module(x)
        return self[-1](x.flatten(1))


def images() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(2)
    first = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()
    model = Images(*first, nn.Linear(4 * 36, 3)).double().eval()
    return model, torch.randn(4, 2, 8, 8, dtype=torch.float64)


BUILDS = {**NETWORKS, "dense": dense, "images": images}


def case(network: str, site: str) -> tuple[nn.Module, nn.Module, Any, Tensor, Tensor]:
    """A model, one of its layers, a score, inputs and baselines."""
    model, x = BUILDS[network]()
    baseline = torch.randn_like(x)
    return model, model.get_submodule(site), attrib.target(model, 1), x, baseline


def spread(x: Tensor) -> Tensor:
    """A set of baselines."""
    return torch.randn(7, *x.shape[1:], dtype=x.dtype)


# --- what passes, and one gradient --------------------------------------------------------------


@sides
@sites
def test_activations_are_captums(network: str, site: str, of: Any) -> None:
    model, layer, _, x, _ = case(network, site)
    theirs = captum.LayerActivation(model, layer).attribute(
        x, attribute_to_layer_input=of == "input"
    )
    assert_close(attrib.activation(model, Site(site, of=of))(x), theirs)


@but_for(SITES, ("transformer", "layer.linear1"))
def test_gradient_times_activation_is_captums(network: str, site: str, of: Any) -> None:
    model, layer, f, x, _ = case(network, site)
    at, inner = Site(site, of=of), of == "input"
    theirs = captum.LayerGradientXActivation(model, layer).attribute(x, 1, None, inner)
    assert_close(attrib.gradient_x_activation(f, at)(x), theirs)
    local = captum.LayerGradientXActivation(model, layer, multiply_by_inputs=False)
    theirs = local.attribute(x, 1, None, inner)
    assert_close(attrib.layer(attrib.saliency, f, at)(x), theirs)
    assert_close(attrib.activation_and_gradient(f, at)(x)[1], theirs)


def test_deviation_the_input_of_a_layer_is_what_the_layer_gets() -> None:
    """Captum differentiates by the tensor, also by what it does elsewhere: here in the connection
    around the layer. attrib does so where that tensor is made."""
    model, layer, f, x, _ = case("transformer", "layer.linear1")
    theirs = captum.LayerGradientXActivation(model, layer).attribute(x, 1, None, True)
    assert_close(attrib.gradient_x_activation(f, "layer.norm1")(x), theirs)
    at_output = captum.LayerGradientXActivation(model, layer, multiply_by_inputs=False)
    through = at_output.attribute(x, 1) @ layer.weight
    ours = attrib.layer(attrib.saliency, f, Site("layer.linear1", of="input"))(x)
    assert_close(ours, through)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_list_of_layers_is_captums(network: str) -> None:
    model, x = NETWORKS[network]()
    names = [site for of, site in SITES if of == network]
    layers = [model.get_submodule(name) for name in names]
    f = attrib.target(model, 1)
    assert_close(
        attrib.activation(model, names)(x), captum.LayerActivation(model, layers).attribute(x)
    )
    theirs = captum.LayerGradientXActivation(model, layers).attribute(x, 1)
    assert_close(attrib.gradient_x_activation(f, names)(x), theirs)


# --- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("quadrature", QUADRATURES)
@sites
def test_internal_influence_is_captums(network: str, site: str, quadrature: Any) -> None:
    model, layer, f, x, baseline = case(network, site)
    theirs = captum.InternalInfluence(model, layer).attribute(
        x, baseline, 1, n_steps=12, method=QUADRATURES[quadrature]
    )
    ours = attrib.internal_influence(f, site, steps=12, quadrature=quadrature)(x, baseline)
    assert_close(ours, theirs, tolerance=NODES)


@sides
@pytest.mark.parametrize("quadrature", QUADRATURES)
@sites
def test_layer_integrated_gradients_are_captums(
    network: str, site: str, quadrature: Any, of: Any
) -> None:
    model, layer, f, x, baseline = case(network, site)
    theirs = captum.LayerIntegratedGradients(model, layer).attribute(
        *(x, baseline, 1),
        n_steps=12,
        method=QUADRATURES[quadrature],
        attribute_to_layer_input=of == "input",
    )
    method = lambda f: attrib.integrated_gradients(f, steps=12, quadrature=quadrature)
    ours = attrib.layer(method, f, Site(site, of=of))(x, baseline)
    assert_close(ours, theirs, tolerance=NODES)


@sites
def test_local_layer_integrated_gradients_and_the_delta_are_captums(
    network: str, site: str
) -> None:
    model, layer, f, x, baseline = case(network, site)
    local = captum.LayerIntegratedGradients(model, layer, multiply_by_inputs=False)
    ours = attrib.layer(attrib.average_gradient, f, site)(x, baseline)
    theirs = local.attribute(x, baseline, 1, internal_batch_size=20)
    assert_close(ours, theirs, tolerance=NODES)
    whole = captum.LayerIntegratedGradients(model, layer)
    _, delta = whole.attribute(x, baseline, 1, return_convergence_delta=True)
    ours = attrib.layer(attrib.integrated_gradients, f, site)(x, baseline).flatten(1).sum(1)
    rise = f(x) - f(baseline)
    assert ((ours - rise) - delta).abs().max() <= NODES * rise.abs().max()


class Tokens(nn.Module):
    """Two embeddings, of what and of where."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 6), nn.Embedding(9, 6)
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1]).expand_as(ids)
        return self.head(self.layer(self.words(ids) + self.places(places))[:, 0])


@pytest.mark.parametrize("names", ["words", ["words", "places"]])
def test_embeddings_of_tokens_are_captums(names: Any) -> None:
    torch.manual_seed(0)
    model, ids = Tokens().double().eval(), torch.randint(1, 20, (4, 9))
    padding = torch.zeros_like(ids)
    one = isinstance(names, str)
    layers = getattr(model, names) if one else [getattr(model, name) for name in names]
    theirs = captum.LayerIntegratedGradients(model, layers).attribute(ids, padding, 1)
    f = attrib.target(model, 1)
    ours = attrib.layer(attrib.integrated_gradients, f, names)(ids, padding)
    assert_close(ours, theirs, tolerance=NODES)


@chains
def test_captums_draws_with_attribs_gradients_are_captums_layer_gradient_shap(
    network: str, site: str
) -> None:
    """Captum goes along a line in the input and multiplies with the change of the layer; attrib's
    composition goes along a line in the layer, which adds up on average."""
    model, layer, f, x, _ = case(network, site)
    baselines, samples = spread(x), 6
    np.random.seed(4)
    theirs = captum.LayerGradientShap(model, layer).attribute(x, baselines, samples, target=1)
    np.random.seed(4)
    rows = samples * len(x)
    start = baselines[np.random.choice(len(baselines), rows).tolist()]
    alpha = torch.tensor(np.random.uniform(0.0, 1.0, rows)).view(-1, *[1] * (x.ndim - 1))
    end = x.repeat_interleave(samples, 0)
    gradient = attrib.layer(attrib.saliency, f, site)(start + alpha * (end - start))
    read = attrib.activation(model, site)
    twin = (gradient * (read(end) - read(start))).unflatten(0, (-1, samples)).mean(1)
    assert_close(twin, theirs, tolerance=1e-12)


# --- rules --------------------------------------------------------------------------------------


@but_for(CHAINS, ("dense", "1"), ("images", "3"))
def test_layer_deep_lift_is_captums(network: str, site: str, of: Any) -> None:
    model, layer, f, x, baseline = case(network, site)
    theirs = captum.LayerDeepLift(model, layer).attribute(
        x, baseline, 1, attribute_to_layer_input=of == "input"
    )
    ours = attrib.layer(attrib.deep_lift, f, Site(site, of=of))(x, baseline)
    assert_close(ours, theirs, tolerance=SECANTS)


def test_deviation_the_input_of_an_activation_gets_its_own_rule_too() -> None:
    """Captum takes the derivative of the layer itself, so that its attributions do not add up."""
    model, layer, f, x, baseline = case("dense", "1")
    theirs = captum.LayerDeepLift(model, layer).attribute(
        x, baseline, 1, attribute_to_layer_input=True
    )
    z, start = model[0](x), model[0](baseline)
    behind = captum.LayerDeepLift(model, layer, multiply_by_inputs=False).attribute(x, baseline, 1)
    assert_close((z - start) * (z > 0) * behind, theirs, tolerance=SECANTS)
    ours = attrib.layer(attrib.deep_lift, f, Site("1", of="input"))(x, baseline)
    assert_close(ours.sum(1), f(x) - f(baseline))


@chains
def test_layer_multipliers_and_layer_deep_lift_shap_are_captums(network: str, site: str) -> None:
    model, layer, f, x, baseline = case(network, site)
    baselines = spread(x)

    def multipliers(f: Any) -> Any:
        return attrib.deep_lift(f, multiply=False)

    local = captum.LayerDeepLift(model, layer, multiply_by_inputs=False)
    ours = attrib.layer(multipliers, f, site)(x, baseline)
    assert_close(ours, local.attribute(x, baseline, 1), tolerance=SECANTS)
    theirs = captum.LayerDeepLiftShap(model, layer).attribute(x, baselines, 1)
    ours = attrib.layer(lambda f: attrib.expected(attrib.deep_lift(f)), f, site)(x, baselines)
    assert_close(ours, theirs, tolerance=SECANTS)
    local = captum.LayerDeepLiftShap(model, layer, multiply_by_inputs=False)
    ours = attrib.layer(lambda f: attrib.expected(multipliers(f)), f, site)(x, baselines)
    assert_close(ours, local.attribute(x, baselines, 1), tolerance=SECANTS)


@pytest.mark.parametrize(("network", "site"), [("dense", "0"), ("dense", "2"), ("images", "2")])
@sides
def test_layer_relevance_is_captums(network: str, site: str, of: Any) -> None:
    model, layer, f, x, _ = case(network, site)
    theirs = captum.LayerLRP(model, layer).attribute(x, 1, attribute_to_layer_input=of == "input")
    method = lambda f: attrib.lrp(f, composite=rules.epsilon(1e-9))
    assert_close(attrib.layer(method, f, Site(site, of=of))(x), theirs, tolerance=1e-6)


# --- features of a layer ------------------------------------------------------------------------


@sides
@chains
def test_layer_ablation_is_captums(network: str, site: str, of: Any) -> None:
    model, layer, f, x, baseline = case(network, site)
    at, inner = Site(site, of=of), of == "input"
    head, tail = attrib.split(f, at)
    theirs = captum.LayerFeatureAblation(model, layer)
    ours = games.feature_ablation(tail)(head(x), 0.5, x)
    assert_close(ours, theirs.attribute(x, 0.5, 1, attribute_to_layer_input=inner))
    ours = attrib.layer(games.feature_ablation, f, at)(x, baseline)
    start = head(baseline)
    assert_close(ours, theirs.attribute(x, start, 1, attribute_to_layer_input=inner))
    mask = torch.arange(start[0].numel()).view(1, *start.shape[1:]) // 3
    ours = games.feature_ablation(tail, groups=mask)(head(x), 0.0, x)
    options = {"layer_mask": mask, "attribute_to_layer_input": inner}
    assert_close(ours, theirs.attribute(x, target=1, **options, perturbations_per_eval=4))


@chains
def test_layer_permutation_of_two_examples_is_captums(network: str, site: str) -> None:
    """There is one permutation of two examples without a fixed point. With a target Captum fails:
    it chooses twice."""
    model, layer, f, x, _ = case(network, site)
    theirs = captum.LayerFeaturePermutation(lambda x: model(x)[:, 1], layer).attribute(x[:2])
    assert_close(attrib.layer(games.feature_permutation, f, site)(x[:2]), theirs)
    with pytest.raises(AssertionError):
        captum.LayerFeaturePermutation(model, layer).attribute(x[:2], target=1)


# --- sites that Captum does not reach -----------------------------------------------------------


class Reused(nn.Module):
    """A layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.layer(x).tanh()).tanh())


def test_deviation_a_layer_used_twice_is_captums_last_call() -> None:
    """Each call overwrites what Captum's hook keeps; attrib asks which one is meant."""
    model, x = Reused().double(), torch.randn(5, 4, dtype=torch.float64)
    f = attrib.target(model, 1)
    theirs = captum.LayerGradientXActivation(model, model.layer).attribute(x, 1)
    first, last = (attrib.gradient_x_activation(f, Site("layer", call=call))(x) for call in (0, 1))
    assert_close(last, theirs)
    assert relative(first, theirs) > 0.1
    with pytest.raises(attrib.AttribError, match="reached 2 times"):
        attrib.gradient_x_activation(f, "layer")(x)


class Recurrent(nn.Module):
    """A layer that yields tensors within tensors, and one that is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(input=self.lstm(x)[1][0][0])


@pytest.mark.parametrize(("name", "of"), [("lstm", "output"), ("last", "input")])
def test_deviation_structures_and_keywords_are_sites(name: str, of: Any) -> None:
    """Captum takes tensors and flat tuples of them, by position."""
    model, x = Recurrent().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    read: Callable[..., Any] = attrib.activation(model, Site(name, of=of))
    found = read(x)[1][0][0] if name == "lstm" else read(x)
    assert_close(found, model.lstm(x)[1][0][0])
    theirs = captum.LayerActivation(model, getattr(model, name))
    with pytest.raises((AttributeError, AssertionError, IndexError)):
        theirs.attribute(x, attribute_to_layer_input=of == "input")


def test_the_published_example_keeps_to_single_precision() -> None:
    model = ToyModel()
    torch.manual_seed(123)
    x = torch.rand(2, 3)
    theirs = captum.LayerIntegratedGradients(model, model.first).attribute(x, target=0)
    ours = attrib.layer(attrib.integrated_gradients, attrib.target(model, 0), "first")(x)
    assert_close(ours, theirs, tolerance=1e-6)
