"""Conductance, internal influence and the conductance of single neurons, against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import attrib
from attrib import Site, conductance, internal_influence, neuron_conductance
from derivatives import check_derivatives, relative

EXACT = 1e-12
RULES = ("trapezoid", "gauss-legendre", "midpoint", "left", "right")
INTEGRALS = ("telescoping", "secant", *RULES)
rules = pytest.mark.parametrize("rule", RULES)
integrals = pytest.mark.parametrize("integral", INTEGRALS)
EVERY = slice(None)


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def ends(rows: int = 4, features: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs and baselines."""
    return randn(rows, features, seed=1), randn(rows, features, seed=2)


def network(activation: Callable[[], nn.Module], seed: int = 0) -> nn.Sequential:
    """Two hidden layers: "0" and "2" before their activations, "1" and "3" behind them."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(6, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3)
    )
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    return model.double().eval()


def smooth() -> nn.Sequential:
    return network(nn.Tanh)


def kinked() -> nn.Sequential:
    return network(nn.ReLU)


def integral_by_hand(model: nn.Sequential, layer: int, x: Tensor, start: Tensor) -> Tensor:
    """The definition, with so many nodes of a Gauss rule that nothing is left of the error."""
    before, behind = model[: layer + 1], model[layer + 1 :]
    nodes, weights = _gauss(100)
    total = torch.zeros_like(before(x))
    for node, weight in zip(nodes, weights, strict=True):
        point = start + node * (x - start)
        h, speed = torch.autograd.functional.jvp(before, point, x - start)
        gradient = torch.func.grad(lambda h: behind(h)[:, 1].sum())(h)
        total += weight * gradient * speed
    return total.detach()


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] by the eigenvalues of the Jacobi matrix of Legendre."""
    order = torch.arange(1, count, dtype=torch.float64)
    side = order / (4 * order.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return (nodes + 1) / 2, vectors[0].square()


# --- closed forms -------------------------------------------------------------------------------


def fewest(integral: str) -> int:
    """Steps without which a rule is none: the trapezoid needs both ends."""
    return 2 if integral == "trapezoid" else 1


def linear() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear network, its first matrix and the weights of what is explained."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).double().eval()
    return model, model[0].weight.detach(), model[1].weight[1].detach()


@integrals
@pytest.mark.parametrize("more", [0, 1, 6])
def test_in_a_linear_network_a_neuron_conducts_its_weight_times_its_change(
    integral: Any, more: int
) -> None:
    (model, into, out), (x, start) = linear(), ends()
    f = attrib.target(model, 1)
    found = conductance(f, "0", steps=fewest(integral) + more, quadrature=integral)(x, start)
    assert relative(found, out * ((x - start) @ into.T)) <= EXACT


@rules
@pytest.mark.parametrize("steps", [2, 7])
def test_in_a_linear_network_the_weights_of_every_rule_sum_to_one(rule: Any, steps: int) -> None:
    (model, into, out), (x, start) = linear(), ends()
    f = attrib.target(model, 1)
    influence = internal_influence(f, "0", steps=steps, quadrature=rule)(x, start)
    assert relative(influence, out.expand(4, 5)) <= EXACT
    for k in range(5):
        found = neuron_conductance(f, "0", k, steps=steps, quadrature=rule)(x, start)
        assert relative(found, out[k] * into[k] * (x - start)) <= EXACT


@pytest.mark.parametrize("rule", ["midpoint", "left", "right"])
def test_half_precision_is_rounded_once_however_many_chunks_there_are(rule: Any) -> None:
    # 255 / 128 has all eight digits, and a 127th of it needs one more.
    slope = torch.tensor(255 / 128, dtype=torch.bfloat16)
    f = attrib.batched(lambda x: attrib.tap("h", x).mul(slope).sum(-1))
    x = torch.tensor([[1.0, -4.0, 0.5]], dtype=torch.bfloat16)
    options: Any = {"steps": 127, "quadrature": rule, "chunk_size": 1}
    assert torch.equal(internal_influence(f, "h", **options)(x), slope.expand_as(x))
    assert torch.equal(conductance(f, "h", **options)(x), slope * x)
    alone = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.bfloat16)
    assert torch.equal(neuron_conductance(f, "h", 1, **options)(x), alone * slope * x)


@pytest.mark.parametrize("integral", ["telescoping", "gauss-legendre", "midpoint", "secant"])
@pytest.mark.parametrize("more", [0, 1, 4])
def test_behind_a_linear_layer_a_quadratic_form_is_exact_at_the_fewest_steps(
    integral: Any, more: int
) -> None:
    steps = fewest(integral) + more
    into, form = randn(5, 6, seed=3), randn(5, 5, seed=4)
    f = lambda x: _form(attrib.tap("h", x @ into.T), form)
    x, start = ends()
    high, low = x @ into.T, start @ into.T
    slope = (high + low) @ (form + form.T) / 2
    found = conductance(f, "h", steps=steps, quadrature=integral)(x, start)
    assert relative(found, slope * (high - low)) <= EXACT
    if integral in ("gauss-legendre", "midpoint"):
        influence = internal_influence(f, "h", steps=steps, quadrature=integral)(x, start)
        assert relative(influence, slope) <= EXACT
        one = neuron_conductance(f, "h", 2, steps=steps, quadrature=integral)(x, start)
        assert relative(one, slope[:, 2:3] * into[2] * (x - start)) <= EXACT


def _form(h: Tensor, form: Tensor) -> Tensor:
    # A product of two tensors, because secants take a matrix product for a linear map.
    return (h[..., None] * form * h[..., None, :]).sum((-2, -1))


@pytest.mark.parametrize("integral", ["gauss-legendre", "telescoping", "secant"])
def test_what_goes_around_a_layer_is_not_its_own(integral: Any) -> None:
    # With h = x^2 and f = sum h x, on the way from zero: of x^3 two thirds are due to h.
    f = lambda x: (attrib.tap("h", x.square()) * x).sum(-1)
    x = randn(4, 3)
    found = conductance(f, "h", steps=1000, quadrature=integral)(x)
    tolerance = EXACT if integral == "gauss-legendre" else 1e-6
    assert relative(found, 2 / 3 * x**3) <= tolerance


def test_the_published_properties_hold() -> None:
    # Dhamdhere, Sundararajan & Yan (2018): what saturates between the layer and the score conducts
    # nothing more, what is computed and not used nothing at all (their section 4).
    def f(x: Tensor) -> Tensor:
        h = attrib.tap("h", torch.stack([x[..., 0], x[..., 1], x[..., 0] * x[..., 1]], -1))
        return 1 - F.relu(1 - h[..., 0]) + 0 * h[..., 1]

    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    found = conductance(f, "h", steps=1000)(x)
    assert relative(found, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)) <= 2e-3
    assert torch.equal(found[:, 1:], torch.zeros(1, 2, dtype=torch.float64))


# --- orders of convergence ----------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_changes_of_the_layer_times_mean_gradients_have_an_error_of_second_order(
    layer: int,
) -> None:
    model, (x, start) = smooth(), ends()
    truth = integral_by_hand(model, layer, x, start)
    few, many = (
        relative(conductance(attrib.target(model, 1), str(layer), steps=n)(x, start), truth)
        for n in (41, 81)
    )
    # Behind the last activation the score is linear, and nothing is left to be approximated.
    assert many <= EXACT if layer == 3 else 3.6 <= few / many <= 4.4


@pytest.mark.parametrize("quadrature", ["left", "right", "midpoint"])
def test_exact_derivatives_have_the_order_of_their_rule(quadrature: Any) -> None:
    model, (x, start) = smooth(), ends()
    truth = integral_by_hand(model, 1, x, start)
    method = lambda n: conductance(attrib.target(model, 1), "1", steps=n, quadrature=quadrature)
    few, many = (relative(method(n)(x, start), truth) for n in (80, 160))
    order = 4 if quadrature == "midpoint" else 2
    assert 0.8 * order <= few / many <= 1.2 * order


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_ten_exact_derivatives_are_enough_for_a_smooth_network(layer: int) -> None:
    (x, start), torch_model = ends(), network(nn.GELU)
    for parameter in torch_model.parameters():
        parameter.data.div_(1.5)  # as it comes
    truth = integral_by_hand(torch_model, layer, x, start)
    f = attrib.target(torch_model, 1)
    found = conductance(f, str(layer), steps=10, quadrature="gauss-legendre")(x, start)
    assert relative(found, truth) <= 1e-8


# --- completeness -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_secants_sum_to_the_rise_of_the_score_at_any_number_of_steps(
    layer: str, steps: int
) -> None:
    (x, start) = ends()
    for model in (kinked(), smooth()):
        f = attrib.target(model, 1)
        found = conductance(f, layer, steps=steps, quadrature="secant")(x, start)
        rise = f(x) - f(start)
        assert (found.sum(-1) - rise).abs().max() <= 1e-13 * found.abs().sum(-1).max()


@pytest.mark.parametrize("quadrature", ["telescoping", "secant"])
def test_the_last_hidden_layer_of_a_rectified_network_is_exact_at_the_fewest_steps(
    quadrature: Any,
) -> None:
    model, (x, start) = kinked(), ends()
    change = model[:4](x) - model[:4](start)
    method = conductance(attrib.target(model, 1), "3", steps=1, quadrature=quadrature)
    assert relative(method(x, start), model[4].weight[1] * change) <= EXACT
    if quadrature == "secant":  # before its activation as well
        method = conductance(attrib.target(model, 1), "2", steps=1, quadrature=quadrature)
        assert relative(method(x, start), model[4].weight[1] * change) <= EXACT


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_all_neurons_together_conduct_the_rise_of_the_score(layer: str) -> None:
    model, (x, start) = smooth(), ends()
    f = attrib.target(model, 1)
    rise = f(x) - f(start)
    found = conductance(f, layer, quadrature="gauss-legendre")(x, start).sum(-1)
    assert relative(found, rise) <= 1e-10
    found = neuron_conductance(f, layer, (EVERY,))(x, start).sum(-1)
    assert relative(found, rise) <= 1e-10


@rules
@pytest.mark.parametrize("layer", ["0", "3"])
def test_through_all_neurons_together_flows_the_integrated_gradient(layer: str, rule: Any) -> None:
    model, (x, start) = kinked(), ends()
    f = attrib.target(model, 1)
    found = neuron_conductance(f, layer, (EVERY,), steps=9, quadrature=rule)(x, start)
    truth = attrib.integrated_gradients(f, steps=9, quadrature=rule)(x, start)
    assert relative(found, truth) <= EXACT
    each = [neuron_conductance(f, layer, k, steps=9, quadrature=rule)(x, start) for k in range(8)]
    assert relative(torch.stack(each).sum(0), truth) <= EXACT


@pytest.mark.parametrize("quadrature", ["gauss-legendre", "midpoint", "left", "right"])
@pytest.mark.parametrize("layer", ["0", "2"])
def test_what_flows_through_a_neuron_from_all_of_x_is_its_conductance(
    layer: str, quadrature: Any
) -> None:
    model, (x, start) = smooth(), ends()
    f = attrib.target(model, 1)
    whole = conductance(f, layer, steps=3, quadrature=quadrature)(x, start)
    for k in (0, 5, -1):
        found = neuron_conductance(f, layer, k, steps=3, quadrature=quadrature)(x, start)
        assert relative(found.sum(-1), whole[:, k]) <= EXACT


def test_an_index_may_be_a_tensor_a_tuple_or_slices() -> None:
    images = Images()
    x, start = randn(3, 2, 6, 6, seed=1), randn(3, 2, 6, 6, seed=2)
    f = attrib.target(images, 1)
    through = lambda index: neuron_conductance(f, "first", index, steps=4)(x, start)
    single = through((1, 2, 3))
    rows = torch.stack([through((1, i, 3)) for i in range(6)])
    assert relative(rows[2], single) <= EXACT
    assert relative(through((1, EVERY, 3)), rows.sum(0)) <= EXACT
    assert relative(through((slice(1, 2), EVERY, slice(3, 4))), rows.sum(0)) <= EXACT

    model, (x, start) = smooth(), ends()
    f = attrib.target(model, 1)
    through = lambda index: neuron_conductance(f, "1", index, steps=4)(x, start)
    each = torch.tensor([0, 3, 7, 3])
    found = through(each)
    for row, k in enumerate(each.tolist()):
        assert relative(found[row], through(k)[row]) <= EXACT
    every = torch.vmap(through)(torch.arange(8))
    assert relative(every, torch.stack([through(k) for k in range(8)])) <= EXACT


def test_internal_influence_is_the_mean_gradient_behind_the_layer() -> None:
    model, (x, start) = smooth(), ends()
    behind = model[2:]
    nodes, weights = _gauss(50)
    truth = torch.zeros(4, 8, dtype=torch.float64)
    for node, weight in zip(nodes, weights, strict=True):
        h = model[:2](start + node * (x - start)).detach().requires_grad_()
        truth += weight * torch.autograd.grad(behind(h)[:, 1].sum(), h)[0]
    found = internal_influence(attrib.target(model, 1), "1")(x, start)
    assert relative(found, truth) <= 1e-10


# --- models, sites and inputs of every kind -----------------------------------------------------


class Images(nn.Module):
    """Convolutions, a normalisation and a connection around a layer."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.GELU) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.activation = nn.BatchNorm2d(4), activation()
        self.last = nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.first(x)))
        x = x + self.activation(self.second(x))
        return self.last(x.mean((2, 3)))


class Attention(nn.Module):
    """Self-attention by the function of torch, whose fused kernels have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
        self.mix, self.last = nn.Linear(8, 24), nn.Linear(8, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x))
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.mix(x).chunk(3, -1))
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.last(torch.tanh(attrib.tap("mixed", x))).mean(1)


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("site", ["embed", "norm", "mix", "mixed"])
def test_attention_has_exact_derivatives_too(site: str, recording: bool) -> None:
    model, x, start = Attention(), randn(2, 5, 4, seed=1), randn(2, 5, 4, seed=2)
    f = attrib.target(model, 1)
    with torch.set_grad_enabled(recording):
        found = conductance(f, site, quadrature="gauss-legendre")(x, start)
        near = conductance(f, site, steps=4000)(x, start)
        assert relative(near, found) <= 1e-5
        if site != "mix":  # a connection goes around it
            rise = f(x) - f(start)
            assert relative(found.flatten(1).sum(1), rise) <= 1e-8
        one = neuron_conductance(f, site, (2, 3))(x, start)
        assert relative(one.flatten(1).sum(1), found[:, 2, 3]) <= 1e-10


@integrals
def test_sites_side_by_side_are_served_together(integral: Any) -> None:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right, self.last = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.left(x)) * torch.tanh(self.right(x)))

    (x, start), f = ends(), attrib.target(Towers().double().eval(), 1)
    method = lambda site: conductance(f, site, steps=40, quadrature=integral)(x, start)
    both = method({"a": "left", "b": Site("right")})
    rise = f(x) - f(start)
    gap = both["a"].sum(-1) + both["b"].sum(-1) - rise
    assert gap.abs().max() <= (0.2 if integral in ("left", "right") else 2e-3) * rise.abs().max()
    for name, site in (("a", "left"), ("b", "right")):
        assert relative(both[name], method(site)) <= 1e-10


@rules
def test_sites_behind_each_other_are_served_together(rule: Any) -> None:
    model, (x, start) = smooth(), ends()
    f = attrib.target(model, 1)
    for method in (conductance, internal_influence):
        found = method(f, ["0", "1", "3"], steps=5, quadrature=rule)(x, start)
        for part, site in zip(found, ("0", "1", "3"), strict=True):
            alone = method(f, site, steps=5, quadrature=rule)(x, start)
            assert relative(part, alone) <= EXACT


def test_secants_of_sites_behind_each_other_are_refused() -> None:
    x, start = ends()
    method = conductance(attrib.target(smooth(), 1), ["0", "3"], quadrature="secant")
    with pytest.raises(attrib.AttribError) as error:
        method(x, start)
    assert error.value.code == "site.behind"


@integrals
def test_every_call_of_a_reused_module_conducts_its_own(integral: Any) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.same, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.same(torch.tanh(self.same(x)))))

    (x, start), f = ends(), attrib.target(Twice().double().eval(), 1)
    method = lambda call: conductance(f, Site("same", call=call), steps=5, quadrature=integral)
    first, second = (method(call)(x, start) for call in (0, 1))
    assert relative(first, second) > 0.1
    if integral != "secant":  # the second call is behind the first
        both = method("all")(x, start)
        assert relative(both[0], first) <= EXACT and relative(both[1], second) <= EXACT


def bent(x: Tensor, baseline: Tensor, alpha: Tensor) -> Tensor:
    detour = torch.arange(x.shape[-1], dtype=x.dtype).cos()
    return baseline + (alpha + 0.3 * torch.sin(torch.pi * alpha) * detour) * (x - baseline)


@pytest.mark.parametrize("layer", [0, 1])
def test_another_path_gives_its_own_integral(layer: int) -> None:
    model, (x, start) = smooth(), ends()
    before, behind = model[: layer + 1], model[layer + 1 :]
    nodes, weights = _gauss(100)
    truth = torch.zeros(4, 8, dtype=torch.float64)
    for node, weight in zip(nodes, weights, strict=True):
        h, speed = torch.autograd.functional.jvp(lambda a: before(bent(x, start, a)), node)
        truth += weight * speed * torch.func.grad(lambda h: behind(h)[:, 1].sum())(h)
    f, site = attrib.target(model, 1), str(layer)
    assert relative(integral_by_hand(model, layer, x, start), truth) > 1e-3
    for integral, steps, tolerance in (
        ("gauss-legendre", 60, 1e-10),
        ("telescoping", 2000, 1e-5),
        ("secant", 2000, 1e-5),
    ):
        found = conductance(f, site, steps=steps, quadrature=integral, path=bent)(x, start)
        assert relative(found, truth) <= tolerance
    through = neuron_conductance(f, site, 3, steps=60, path=bent)(x, start)
    assert relative(through.sum(-1), truth[:, 3]) <= 1e-10
    straight = internal_influence(f, site, steps=60, path=attrib.straight)(x, start)
    assert relative(straight, internal_influence(f, site, steps=60)(x, start)) <= EXACT


class Mixed(nn.Module):
    """Tokens and numbers; a layer that yields a number of its own beside its values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.hidden, self.last = nn.Embedding(5, 4), Counting(), nn.Linear(4, 3)
        self.double().eval()

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        h, count = self.hidden(self.words(ids) * x)
        return self.last(torch.tanh(h) / count[:, None])


class Counting(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(input), torch.full((len(input),), 2)


@integrals
def test_integers_stay_where_they_are(integral: Any) -> None:
    model, ids = Mixed(), torch.tensor([1, 4, 2])
    x, start = randn(3, 4, seed=1), randn(3, 4, seed=2)
    site = Site("hidden", leaf=0)
    options = {"steps": 5, "quadrature": integral}
    f, alone = attrib.target(model, 1), attrib.target(lambda x: model(ids, x), 1)
    found = conductance(f, site, **options)((ids, x), (ids, start))
    truth = conductance(alone, Site(model.hidden, leaf=0), **options, chunk_size=1)(x, start)
    assert relative(found, truth) <= EXACT
    # What is no number that can change is no part of the attribution.
    whole = conductance(f, "hidden", **options)((ids, x), (0, start))
    assert whole[1] is None and relative(whole[0], truth) <= EXACT
    if integral in RULES:
        whole = internal_influence(f, "hidden", **options)((ids, x), (0, start))
        assert whole[1] is None and whole[0].shape == (3, 4)
        through = neuron_conductance(f, site, 2, **options)((ids, x), (0, start))
        assert through[0] is None
        assert relative(through[1].sum(-1), truth[:, 2]) <= EXACT


# --- composition --------------------------------------------------------------------------------

METHODS: dict[str, Callable[..., Any]] = {
    **{
        name: lambda f, site, name=name, **options: conductance(
            f, site, steps=5, quadrature=name, **options
        )
        for name in ("telescoping", "gauss-legendre", "secant")
    },
    "path": lambda f, site, **options: conductance(
        f, site, steps=5, quadrature="midpoint", path=bent, **options
    ),
    "influence": lambda f, site, **options: internal_influence(f, site, steps=5, **options),
    "neuron": lambda f, site, **options: neuron_conductance(f, site, 3, steps=5, **options),
}
methods = pytest.mark.parametrize("name", METHODS)
KINDS = ["marked", "closure", "vmap"]


def score(model: nn.Module, kind: str) -> Any:
    """Scores that tell their model, that do not but have rows, and that have no rows either."""
    closure = lambda x: model(x)[..., 1]
    return {
        "marked": attrib.target(model, 1),
        "closure": attrib.batched(closure),
        "vmap": closure,
    }[kind]


@methods
@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_chunks_does_not_matter(name: str, kind: str) -> None:
    model, (x, start) = smooth(), ends()
    method = lambda size: METHODS[name](score(model, kind), model[1], chunk_size=size)(x, start)
    truth = method(None)
    for size in (1, 2, 3, 5, 6, "auto"):
        assert relative(method(size), truth) <= EXACT


@methods
def test_vmap_is_the_loop(name: str) -> None:
    attribute, (x, start) = METHODS[name](attrib.target(smooth(), 1), "1"), ends()
    mapped = torch.vmap(lambda x, start: attribute(x[None], start[None])[0])(x, start)
    assert relative(mapped, attribute(x, start)) <= EXACT
    alone = torch.stack([attribute(a, b) for a, b in zip(x, start, strict=True)])
    assert relative(alone, attribute(x, start)) <= EXACT


@methods
def test_compiled_is_eager(name: str) -> None:
    attribute, (x, start) = METHODS[name](attrib.target(smooth(), 1), "1"), ends()
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(attribute, fullgraph=True, backend="aot_eager")
        assert relative(compiled(x, start), attribute(x, start)) <= EXACT


@methods
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    model, (x, start) = smooth(), ends()

    def method(f: Any) -> Callable[[Tensor], Tensor]:
        attribute = METHODS[name](f, model[1])
        return lambda x: x * attribute(x, start).square().sum(-1, keepdim=True)

    check_derivatives(method, model, x)


@methods
def test_a_class_for_every_example_is_as_good_as_one(name: str) -> None:
    model, (x, start), index = smooth(), ends(), torch.tensor([2, 0, 1, 1])
    found = METHODS[name](attrib.target(model, index), "1")(x, start)
    for row, k in enumerate(index.tolist()):
        alone = METHODS[name](attrib.target(model, k), "1")(x[row : row + 1], start[row : row + 1])
        assert relative(found[row : row + 1], alone) <= EXACT


def test_every_point_of_the_path_is_evaluated_once_and_a_chunk_at_a_time() -> None:
    seen: list[int] = []
    model, (x, start) = smooth(), ends()
    model[0].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with torch.no_grad():
        conductance(attrib.target(model, 1), "1", steps=40, chunk_size=5)(x, start)
    assert max(seen) == 5 * len(x)
    assert sum(seen) == 42 * len(x)  # 40 gradients, and the layer at both ends of the path


def test_x_may_be_a_tree() -> None:
    model, (x, start) = smooth(), ends()
    pieces = lambda x: {"a": x[:, :2], "b": (x[:, 2:],)}
    whole = lambda x: model(torch.cat([x["a"], *x["b"]], -1))[..., 1]
    for name, method in METHODS.items():
        if name != "path":
            found = method(attrib.batched(whole), model[1])(pieces(x), pieces(start))
            truth = method(attrib.target(model, 1), "1")(x, start)
            truth = pieces(truth) if name == "neuron" else truth
            assert all(
                relative(a, b) <= EXACT
                for a, b in zip(pytree.tree_leaves(found), pytree.tree_leaves(truth), strict=True)
            )


def test_an_attribution_per_class_is_that_of_each() -> None:
    model, (x, start) = smooth(), ends()
    method = lambda f: lambda x: conductance(f, model[1], steps=5)(x, start)
    found = attrib.per_target(method, model, [0, 2])(x)
    for row, k in enumerate((0, 2)):
        truth = conductance(attrib.target(model, k), "1", steps=5)(x, start)
        assert relative(found[row], truth) <= EXACT


# --- refusals -----------------------------------------------------------------------------------


def through_the_first(f: Any, site: Any, **options: Any) -> Any:
    return neuron_conductance(f, site, 0, **options)


@pytest.mark.parametrize(
    ("method", "options", "code"),
    [
        (conductance, {"steps": 1, "quadrature": "trapezoid"}, "steps.range"),
        (conductance, {"steps": 0, "quadrature": "secant"}, "steps.range"),
        (conductance, {"steps": 2.0}, "steps.type"),
        (conductance, {"quadrature": "simpson"}, "quadrature.unknown"),
        (conductance, {"path": "straight"}, "path.type"),
        (conductance, {"chunk_size": 0}, "chunk_size.range"),
        (internal_influence, {"quadrature": "secant"}, "quadrature.unknown"),
        (internal_influence, {"quadrature": "trapezoid", "steps": 1}, "steps.range"),
        (internal_influence, {"chunk_size": "all"}, "chunk_size.type"),
        (internal_influence, {"path": 3}, "path.type"),
        (through_the_first, {"steps": 0}, "steps.range"),
        (through_the_first, {"quadrature": "secant"}, "quadrature.unknown"),
        (through_the_first, {"path": 3}, "path.type"),
    ],
)
def test_options_are_checked_before_the_model_is_called(
    method: Callable[..., Any], options: dict[str, Any], code: str
) -> None:
    with pytest.raises(attrib.AttribError) as error:
        method(lambda x: 1 / 0, "h", **options)
    assert error.value.code == code


@pytest.mark.parametrize("method", [conductance, internal_influence, through_the_first])
@pytest.mark.parametrize(
    ("x", "baseline", "code"),
    [
        (torch.zeros(4, 6), torch.zeros(4, 5), "baseline.shape"),
        (torch.zeros(4, 6), "black", "baseline.type"),
        (torch.zeros(4, 6, dtype=torch.long), 0, "x.dtype"),
        (3.0, 0, "x.type"),
    ],
)
def test_inputs_are_checked_before_the_model_is_called(
    method: Callable[..., Any], x: Any, baseline: Any, code: str
) -> None:
    attribute = method(lambda x: 1 / 0, "h")
    with pytest.raises(attrib.AttribError) as error:
        attribute(x, baseline)
    assert error.value.code == code


def test_a_neuron_is_no_function() -> None:
    with pytest.raises(attrib.AttribError, match="single neurons") as error:
        neuron_conductance(attrib.target(smooth(), 1), "1", lambda h: h.sum(-1))
    assert error.value.code == "target.type"
    f = attrib.target(smooth(), 1)
    for index, code in ((8, "target.range"), ((1, 2), "target.shape"), (None, "target.missing")):
        with pytest.raises(attrib.AttribError) as error:
            neuron_conductance(f, "1", index)(*ends())
        assert error.value.code == code


def test_a_layer_that_the_score_does_not_depend_on_is_refused() -> None:
    model = smooth()
    for method in (
        conductance(attrib.target(model, 1), "nowhere"),
        conductance(attrib.neuron(model, "0", 1), "3"),
        conductance(attrib.neuron(model, "0", 1), "3", quadrature="secant"),
        internal_influence(attrib.neuron(model, "0", 1), "3"),
    ):
        with pytest.raises(attrib.AttribError) as error:
            method(*ends())
        assert error.value.code in ("site.unknown", "site.unreached", "site.unused")


def test_the_path_must_move() -> None:
    still = lambda x, baseline, alpha: x
    f = attrib.target(smooth(), 1)
    for integral in ("gauss-legendre", "telescoping", "secant"):
        with pytest.raises(attrib.AttribError) as error:
            conductance(f, "1", quadrature=integral, path=still)(*ends())
        assert error.value.code == "path.independent"
