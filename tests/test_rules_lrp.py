"""Relevance propagation: every rule against its formula, and what all of them have in common."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib import rules as r
from derivatives import check_derivatives, relative

EXACT = 1e-10


def vgg(*, bias: bool = True, norm: bool = False) -> nn.Sequential:
    """Convolutions, a maximum, an average and dense layers, with biases of both signs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=bias),
        *([nn.BatchNorm2d(5)] if norm else []),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 3, bias=bias),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 7, bias=bias),
        nn.ReLU(),
        nn.Linear(7, 3, bias=bias),
    ).double()
    if norm:
        with torch.no_grad():
            model(3 * torch.randn(16, 2, 8, 8, dtype=torch.float64) + 1)
            model[1].weight.normal_()
            model[1].bias.normal_()
    return model.eval()


def images(count: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 2, 8, 8, dtype=torch.float64)


# --- every rule against its formula, from the matrix of the layer -------------------------------


def _stabilised(z: Tensor, epsilon: float) -> Tensor:
    return torch.where(z >= 0, z + epsilon, z - epsilon)


def _shares(c: Tensor, b: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """Relevance in proportion to contributions ``c[out, in]`` and a bias."""
    return (c / _stabilised(c.sum(1) + b, epsilon)[:, None] * relevance[:, None]).sum(0)


def _epsilon(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _shares(w * x, b, y * v, 0.01)


def _epsilon_unbiased(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _shares(w * x, 0 * b, y * v, 0.01)


def _gamma(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    c = w * x
    up = _shares(c + 0.3 * c.clamp(min=0), b + 0.3 * b.clamp(min=0), (y * v) * (y > 0), 0.01)
    down = _shares(c + 0.3 * c.clamp(max=0), b + 0.3 * b.clamp(max=0), (y * v) * (y < 0), 0.01)
    return up + down


def _alpha_beta(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    c = w * x
    up = _shares(c.clamp(min=0), b.clamp(min=0), y * v, 0.01)
    return 2 * up - _shares(c.clamp(max=0), b.clamp(max=0), y * v, 0.01)


def _z_plus(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _shares((w * x).clamp(min=0), b.clamp(min=0), y * v, 0.01)


def _z_plus_unbiased(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _shares((w * x).clamp(min=0), 0 * b, y * v, 0.01)


def _w_square(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _shares(w**2, 0 * b, y * v, 0)


def _flat(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    return _shares((w != 0).to(w.dtype), 0 * b, y * v, 0)


def _z_box(x: Tensor, w: Tensor, b: Tensor, y: Tensor, v: Tensor) -> Tensor:
    c = w * x + 4 * w.clamp(min=0) - 5 * w.clamp(max=0)
    return _shares(c, 0 * b, y * v, 0.01)


RULES: dict[str, tuple[Any, Callable[..., Tensor]]] = {
    "epsilon": (r.epsilon(0.01), _epsilon),
    "epsilon_unbiased": (r.epsilon(0.01, bias=False), _epsilon_unbiased),
    "norm": (r.norm(0.01), _epsilon),
    "gamma": (r.gamma(0.3, 0.01), _gamma),
    "alpha_beta": (r.alpha_beta(2, 1, 0.01), _alpha_beta),
    "z_plus": (r.z_plus(0.01), _z_plus),
    "z_plus_unbiased": (r.z_plus(0.01, bias=False), _z_plus_unbiased),
    "w_square": (r.w_square(), _w_square),
    "flat": (r.flat(), _flat),
    "z_box": (r.z_box(-4, 5, 0.01), _z_box),
}

torch.manual_seed(2)
K, KT, K1 = (
    torch.randn(*shape, dtype=torch.float64) for shape in ((4, 2, 3, 3), (4, 3, 2, 2), (4, 3, 2))
)
M, V4, V3, V6 = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 4), (4,), (3,), (6,)))

LAYERS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "conv2d": (lambda x: F.conv2d(x, K, V4, stride=2, padding=1), (2, 5, 5)),
    "conv2d_by_name": (lambda x: torch.conv2d(weight=K, bias=V4, input=x), (2, 5, 5)),
    "conv1d_grouped": (lambda x: F.conv1d(x, K1, V4, dilation=2, groups=2), (6, 7)),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, KT, V6, 2, groups=2), (4, 3, 3)),
    "linear": (lambda x: F.linear(x, M, V3), (4,)),
    "linear_by_name": (lambda x: F.linear(bias=V3, weight=M, input=x), (2, 4)),
    "matmul": (lambda x: x @ M, (2, 3)),
    "matmul_from_the_left": (lambda x: torch.matmul(M, x), (4, 2)),
    "einsum": (lambda x: torch.einsum("ij,bj->bi", M, x), (2, 4)),
    "addmm": (lambda x: torch.addmm(V4, x, M), (2, 3)),
    "method": (lambda x: x.mm(M), (2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_its_formula_on_the_matrix_of_the_layer(rule: str, layer: str) -> None:
    if layer == "conv1d_grouped" and rule == "flat":
        pytest.skip("a matrix cannot tell a weight of zero from no weight")
    op, shape = LAYERS[layer]
    ours, formula = RULES[rule]
    torch.manual_seed(3)
    x = torch.randn(shape, dtype=torch.float64)
    x.flatten()[:2] = 0
    y = op(x)
    b = op(torch.zeros_like(x)).flatten()
    v = torch.randn_like(y)
    w = torch.func.jacrev(op)(x).reshape(y.numel(), x.numel())
    expected = formula(x.flatten(), w, b, y.flatten(), v.flatten()).reshape(shape)

    found = attrib.lrp(lambda x: (op(x) * v).sum(), composite=ours)(x)
    assert relative(found, expected) <= EXACT
    with torch.no_grad():
        assert (
            relative(attrib.lrp(lambda x: (op(x) * v).sum(), composite=ours)(x), expected) <= EXACT
        )


def test_identity_passes_all_relevance_through_any_function_of_one_number() -> None:
    x = torch.tensor([-1.3, -0.2, 0.0, 0.4, 2.0], dtype=torch.float64)
    v = torch.tensor([1.0, -2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    for function in (F.gelu, F.silu, torch.tanh, torch.sigmoid, torch.exp, F.relu, torch.square):
        expected = torch.where(x == 0, 0, function(x) * v)
        found = attrib.lrp(lambda x, function=function: (function(x) * v).sum())(x)
        assert relative(found, expected) <= 1e-15


def test_nothing_passes_a_function_at_zero() -> None:
    f = lambda x: torch.exp(x @ torch.tensor([2.0, 1.0]))
    attribute = attrib.lrp(f, composite=r.epsilon(0.0))
    assert attribute(torch.tensor([1.0, -2.0])).tolist() == [0.0, 0.0]


def test_the_winner_of_a_maximum_takes_all() -> None:
    x = torch.tensor([[[1.0, 3.0, 2.0, -1.0]]])
    f = lambda x: F.max_pool1d(x, 2).sum((-1, -2))
    assert attrib.lrp(f)(x).tolist() == [[[0.0, 3.0, 2.0, 0.0]]]


def test_factors_get_equal_parts_and_frozen_ones_nothing() -> None:
    a, b = torch.tensor([2.0, 3.0]), torch.tensor([5.0, -1.0])
    f = lambda x: (torch.sigmoid(x[0]) * x[1]).sum()
    y = torch.sigmoid(a) * b
    first, second = attrib.lrp(f)((a, b))
    assert relative(first, y / 2) <= 1e-6
    assert relative(second, y / 2) <= 1e-6
    first, second = attrib.lrp(f, composite={"sigmoid": r.frozen()})((a, b))
    assert first.tolist() == [0.0, 0.0]
    assert relative(second, y) <= 1e-6


def test_a_constant_that_is_written_to_through_a_view_is_none_any_more() -> None:
    def f(x: Tensor) -> Tensor:
        weights = torch.softmax(x, -1).clone()
        first = weights[:, :1]
        first.copy_(x[:, :1])
        return torch.exp(weights).sum(-1)

    x = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
    found = attrib.lrp(f, composite=r.cp_lrp())(x)
    assert relative(found, torch.exp(x) * torch.tensor([1.0, 0.0])) <= 1e-6


# --- conservation -------------------------------------------------------------------------------

UNBIASED = {"conv": r.epsilon(0.0, bias=False), "linear": r.epsilon(0.0, bias=False)}
CONSERVING = {
    "epsilon": r.epsilon(0.0),
    "gamma": r.gamma(0.25, 0.0),
    "epsilon_unbiased": r.epsilon(0.0, bias=False),
    "gamma_unbiased": r.gamma(0.25, 0.0, bias=False),
    "flat": {**UNBIASED, 0: r.flat()},
    "w_square": {**UNBIASED, 0: r.w_square()},
    "z_box": {**UNBIASED, 0: r.z_box(-5, 5, 0.0)},
}


@pytest.mark.parametrize("name", CONSERVING)
def test_relevance_adds_up_to_the_score_where_no_bias_keeps_any(name: str) -> None:
    free = "unbiased" in name or not callable(CONSERVING[name])
    f, x = attrib.target(vgg(bias=free), 1), images()
    found = attrib.lrp(f, composite=CONSERVING[name])(x).flatten(1).sum(1)
    assert relative(found, f(x)) <= EXACT


@pytest.mark.parametrize("rule", [r.epsilon(0.0), r.gamma(0.25, 0.0)], ids=["epsilon", "gamma"])
def test_biases_keep_exactly_what_the_inputs_do_not_get(rule: Any) -> None:
    model = vgg(norm=True)
    x = images(1)
    biases = {
        name: value.detach()
        for name, value in model.named_parameters()
        if name.endswith("bias") and not name.startswith(("0.", "1."))
    }
    with torch.no_grad():
        for name in ("0.bias", "1.bias", "1.running_mean"):
            model.get_parameter(name).zero_() if "mean" not in name else model.get_buffer(
                name
            ).zero_()

    def score(parts: tuple[Tensor, dict[str, Tensor]]) -> Tensor:
        return torch.func.functional_call(model, parts[1], (parts[0],))[0, 1]

    relevance, kept = attrib.lrp(score, composite=rule)((x, biases))
    total = relevance.sum() + sum(part.sum() for part in kept.values())
    assert relative(total, score((x, biases))) <= EXACT
    assert relative(relevance.sum(), score((x, biases))) > 0.01
    # Whether a bias counts as a variable or not changes nothing for the input.
    assert relative(relevance, attrib.lrp(attrib.target(model, 1), composite=rule)(x)) <= EXACT


def test_lrp_0_of_a_relu_network_is_input_times_gradient() -> None:
    for norm in (False, True):
        f, x = attrib.target(vgg(norm=norm), 2), images()
        expected = attrib.input_x_gradient(f)(x)
        assert relative(attrib.lrp(f, composite=r.epsilon(0.0))(x), expected) <= EXACT


def test_pixels_that_are_zero_get_nothing_from_proportional_rules_and_their_part_from_flat() -> (
    None
):
    f, x = attrib.target(vgg(), 1), images()
    zero = torch.rand(x.shape) < 0.3
    x[zero] = 0
    assert attrib.lrp(f, composite=r.epsilon_plus())(x)[zero].abs().max() == 0
    nearby = torch.where(zero, 1e-13, x)
    at_zero, close = (attrib.lrp(f, composite=r.epsilon_plus_flat())(z) for z in (x, nearby))
    assert at_zero[zero].abs().max() > 0
    assert relative(at_zero, close) <= EXACT


def test_excitation_is_a_walk_along_positive_contributions() -> None:
    torch.manual_seed(4)
    a, b = nn.Linear(5, 8).double(), nn.Linear(8, 2).double()
    x = torch.rand(3, 5, dtype=torch.float64)
    f = attrib.target(nn.Sequential(a, nn.ReLU(), b), 1)
    h = a(x).relu()
    down = (b.weight[1].clamp(min=0) * h).unsqueeze(1)
    step = a.weight.clamp(min=0) * x.unsqueeze(1)
    expected = (down / down.sum(-1, keepdim=True)) @ (step / step.sum(-1, keepdim=True))
    found = attrib.excitation_backprop(f)(x)
    assert relative(found, expected.squeeze(1)) <= EXACT
    assert relative(found.sum(-1), torch.ones(3, dtype=torch.float64)) <= EXACT


# --- batch norm -----------------------------------------------------------------------------------

MERGED = [r.gamma(), r.z_plus(), r.alpha_beta(), r.epsilon(0.1), r.flat(), r.z_box(-4, 4)]


def _fused(layer: nn.Module, norm: Any) -> nn.Module:
    """The same in one layer, column by column of its affine map."""
    fused: Any = copy.deepcopy(layer)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shape = [1] * fused.weight.ndim
    if "Transpose" in type(layer).__name__:
        groups = fused.groups
        wide = fused.weight.unflatten(0, (groups, -1))
        by_group = scale.view(groups, 1, -1, *[1] * (fused.weight.ndim - 2))
        weight = (wide * by_group).flatten(0, 1)
    else:
        shape[0] = -1
        weight = fused.weight * scale.view(shape)
    bias = 0 if fused.bias is None else fused.bias
    fused.weight = nn.Parameter(weight)
    fused.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias)
    return fused


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (lambda: nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d, (3, 2, 6, 6)),
        (lambda: nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.BatchNorm2d, (3, 4, 6, 6)),
        (lambda: nn.ConvTranspose1d(4, 4, 3, groups=2), nn.BatchNorm1d, (3, 4, 6)),
        (lambda: nn.Linear(5, 4), nn.BatchNorm1d, (3, 5)),
    ],
    ids=["conv", "grouped", "transposed", "linear"],
)
@pytest.mark.parametrize("rule", MERGED)
def test_batch_norm_after_a_layer_is_merged_with_it(
    layer: Any, norm: Any, shape: tuple[int, ...], rule: Any
) -> None:
    torch.manual_seed(5)
    first, after = layer(), norm(4)
    with torch.no_grad():
        for part in (*after.parameters(), after.running_mean):
            part.normal_()
        after.running_var.uniform_(0.5, 2)
    first, after = first.double().eval(), after.double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    x[1:, :2] = 0
    v = torch.randn_like(after(first(x)))
    fused = _fused(first, after)
    apart = attrib.lrp(lambda x: (F.relu(after(first(x))) * v).sum(), composite=rule)
    together = attrib.lrp(lambda x: (F.relu(fused(x)) * v).sum(), composite=rule)
    assert relative(apart(x), together(x)) <= EXACT


def test_batch_norm_after_something_was_written_over_the_layer_is_not_merged() -> None:
    torch.manual_seed(6)
    conv, norm = nn.Conv2d(2, 3, 3).double(), nn.BatchNorm2d(3).double().eval()

    def out_of_place(x: Tensor) -> Tensor:
        return norm(F.relu(conv(x))).sum((1, 2, 3))

    def in_place(x: Tensor) -> Tensor:
        h = conv(x)
        h.flatten().relu_()
        return norm(h).sum((1, 2, 3))

    x = images()
    ways = [attrib.lrp(f, composite=r.gamma())(x) for f in (out_of_place, in_place)]
    assert relative(*ways) <= EXACT


# --- which rule an operation follows --------------------------------------------------------------


def test_names_positions_modules_and_functions_choose_the_rule() -> None:
    model = vgg()
    f, x = attrib.target(model, 1), images()
    base = {"conv": r.epsilon(0.1), "linear": r.epsilon(0.1)}

    def of(more: dict[Any, Any]) -> Tensor:
        return attrib.lrp(f, composite={**base, **more})(x)

    first = of({0: r.gamma()})
    assert relative(of({model[0]: r.gamma()}), first) == 0
    assert relative(first, of({})) > 1e-3
    # Modules go before positions, positions before names, names before families.
    assert relative(of({0: r.flat(), model[0]: r.gamma()}), first) == 0
    both = of({"conv": r.gamma()})
    assert relative(of({"conv2d": r.gamma(), "conv": r.flat()}), both) == 0
    assert relative(of({torch.conv2d: r.gamma(), 1: r.flat()}), both) == 0
    assert relative(of({"conv2d": r.flat(), 0: r.gamma(), 1: r.gamma()}), both) == 0
    # A position counts every operation with a weight.
    assert relative(of({3: r.gamma()}), of({model[-1]: r.gamma()})) == 0
    # What is linear without a weight has a rule if it is named.
    assert 0 < relative(of({"avg_pool2d": r.norm(0.1)}), of({})) < 1


def test_a_module_that_is_called_twice_follows_its_rule_twice() -> None:
    torch.manual_seed(7)
    layer = nn.Linear(4, 4).double()
    twin = copy.deepcopy(layer)
    x = torch.randn(3, 4, dtype=torch.float64)
    once = attrib.lrp(lambda x: layer(F.relu(layer(x))).sum(-1), composite={layer: r.z_plus()})(x)
    apart = attrib.lrp(
        lambda x: layer(F.relu(twin(x))).sum(-1), composite={layer: r.z_plus(), twin: r.z_plus()}
    )(x)
    assert relative(once, apart) == 0


def test_what_is_only_moved_or_normalised_keeps_the_relevance_of_its_pixels() -> None:
    torch.manual_seed(8)
    conv = nn.Conv2d(2, 3, 3).double()
    v = torch.randn(3, 6, 6, dtype=torch.float64)
    f = lambda x: (conv(x) * v).sum((1, 2, 3))
    x = images()
    for rule in (r.flat(), r.w_square(), r.z_box(-5, 5)):
        plain = attrib.lrp(f, composite={0: rule})(x)

        def moved(x: Tensor) -> Tensor:
            return f(x.flatten(1)[:, :].reshape(-1, 8, 8, 2).permute(0, 3, 1, 2))

        flipped = x.permute(0, 2, 3, 1).contiguous()
        found = attrib.lrp(moved, composite={0: rule})(flipped)
        assert relative(found.permute(0, 3, 1, 2), plain) <= EXACT
        scaled = attrib.lrp(lambda x: f((x - 0.5) / 0.25), composite={0: rule})(x * 0.25 + 0.5)
        assert relative(scaled, plain) <= EXACT


def test_flat_deep_in_a_model_gives_relevance_to_units_that_are_off() -> None:
    torch.manual_seed(9)
    a, b = nn.Linear(3, 5).double(), nn.Linear(5, 1).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    f = attrib.target(nn.Sequential(a, nn.ReLU(), b), 0)
    found = attrib.lrp(f, composite=r.flat())(x)
    assert relative(found, f(x)[:, None].expand(4, 3) / 3) <= EXACT


# --- spellings and shapes -------------------------------------------------------------------------


def functional(model: nn.Sequential, x: Tensor) -> Tensor:
    """What `vgg` computes, written without modules."""
    conv, other, dense, out = (model[place] for place in (0, 3, 7, 9))
    h = torch.max_pool2d(torch.relu(torch.conv2d(x, conv.weight, conv.bias, padding=1)), 2)
    h = F.avg_pool2d(F.conv2d(h, other.weight, other.bias).clamp(min=0), 2).squeeze(-1).squeeze(-1)
    return torch.addmm(out.bias, F.relu(h @ dense.weight.t() + dense.bias), out.weight.t())


def in_place(model: nn.Sequential, x: Tensor) -> Tensor:
    """The same, writing over its intermediate results, with one ReLU."""
    relu = nn.ReLU(inplace=True)
    h = model[2](relu(model[0](x)))
    h = model[5](model[3](h).relu_())
    return model[9](relu(model[7](h.flatten(1))))


@pytest.mark.parametrize("light", [True, False])
def test_the_spelling_of_a_model_does_not_matter(light: bool) -> None:
    model, x = vgg(), images()
    for composite in (r.epsilon(0.01), r.epsilon_gamma_box(-5, 5), r.epsilon_plus_flat()):
        with torch.set_grad_enabled(not light):
            expected = attrib.lrp(attrib.target(model, 1), composite=composite)(x)
            second = attrib.lrp(lambda x: in_place(model, x)[:, 1], composite=composite)(x)
            assert relative(second, expected) <= EXACT
    expected = attrib.lrp(attrib.target(model, 1), composite=r.epsilon(0.0))(x)
    found = attrib.lrp(lambda x: functional(model, x)[:, 1], composite=r.epsilon(0.0))(x)
    assert relative(found, expected) <= EXACT


def written_over(layers: nn.Sequential, x: Tensor, inplace: bool) -> Tensor:
    """A network that writes over every result as soon as it may."""
    h = F.silu(layers[0](x), inplace=inplace)
    h = F.gelu(layers[1](h))
    h = h.add_(0.5) if inplace else h + 0.5
    h = F.leaky_relu(layers[2](h), inplace=inplace)
    return F.relu(layers[3](h), inplace=inplace).sum(-1)


@pytest.mark.parametrize("rule", [r.epsilon(0.1), r.gamma(0.25, 0.1), r.z_plus(0.1), r.flat()])
def test_writing_over_results_changes_neither_relevance_nor_its_derivatives(rule: Any) -> None:
    torch.manual_seed(11)
    layers = nn.Sequential(*(nn.Linear(5, 5) for _ in range(4))).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 5, dtype=torch.float64)
    found = []
    for inplace in (True, False):
        f = lambda x, inplace=inplace: written_over(layers, x, inplace)
        with torch.no_grad():
            light = attrib.lrp(f, composite=rule)(x)
            own = {"conv": rule, "linear": rule, "activation": r.gradient()}
            light = light + attrib.lrp(f, composite=own)(x)
        relevance = attrib.lrp(f, composite=rule)(x)
        slopes = torch.autograd.grad((relevance * weight).sum(), [x, *layers.parameters()])
        found.append([light, relevance, *slopes])
    assert all(relative(a, b) <= EXACT for a, b in zip(*found, strict=True))


def test_a_residual_connection_shares_in_proportion() -> None:
    layer = nn.Linear(3, 3, bias=False).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    branch = lambda x: layer(F.relu(layer(x)))
    expected = x + attrib.input_x_gradient(lambda x: branch(x).sum(-1))(x)
    for f in (lambda x: (x + branch(x)).sum(-1), lambda x: branch(x).add_(x).sum(-1)):
        assert relative(attrib.lrp(f, composite=r.epsilon(0.0))(x), expected) <= EXACT


ALL: dict[str, Any] = {
    "epsilon": r.epsilon(0.1),
    "gamma": r.gamma(0.25, 0.1),
    "alpha_beta": r.alpha_beta(2, 1, 0.1),
    "plus_flat": r.epsilon_plus_flat(0.1),
    "gamma_box": r.epsilon_gamma_box(-5.0, 5.0, 0.25, 0.1),
    "alpha_beta_flat": r.epsilon_alpha2_beta1_flat(0.1),
    "w_square": {**r.epsilon_alpha2_beta1(0.1), 0: r.w_square()},
    "attn": r.attn_lrp(0.1),
}

composites = pytest.mark.parametrize("composite", ALL.values(), ids=ALL)


@composites
def test_examples_do_not_interact(composite: Any) -> None:
    attribute, x = attrib.lrp(attrib.target(vgg(norm=True), 1), composite=composite), images()
    alone = torch.cat([attribute(row[None]) for row in x])
    assert relative(alone, attribute(x)) <= EXACT


@composites
def test_vmap_is_the_loop(composite: Any) -> None:
    attribute, x = attrib.lrp(attrib.target(vgg(norm=True), 1), composite=composite), images()
    mapped = torch.vmap(lambda row: attribute(row[None])[0])(x)
    assert relative(mapped, attribute(x)) <= EXACT


@composites
def test_compiled_is_eager(composite: Any) -> None:
    torch.compiler.reset()
    attribute, x = attrib.lrp(attrib.target(vgg(norm=True), 1), composite=composite), images()
    with torch.no_grad():
        compiled: Any = torch.compile(attribute, fullgraph=True, backend="aot_eager")
        assert relative(compiled(x), attribute(x)) <= EXACT


@composites
def test_derivatives_are_those_of_finite_differences(composite: Any) -> None:
    torch.manual_seed(10)
    check_derivatives(partial(attrib.lrp, composite=composite), vgg(norm=True), images(2))


def test_a_tree_of_inputs_is_attributed_leaf_by_leaf() -> None:
    a, b = nn.Linear(3, 4).double(), nn.Linear(2, 4).double()
    x = {"a": torch.randn(2, 3, dtype=torch.float64), "b": torch.randn(2, 2, dtype=torch.float64)}
    f = lambda x, sign: sign * F.relu(a(x["a"]) + b(x["b"])).sum(-1)
    for composite in (r.epsilon(0.0), {a: r.flat(), b: r.epsilon(0.0)}):
        found = attrib.lrp(f, composite=composite)({**x, "index": torch.tensor([1, 2])}, -1)
        assert found["index"] is None
        assert found["a"].shape == (2, 3) and found["b"].shape == (2, 2)
        assert relative(found["b"], attrib.input_x_gradient(f)(x, -1)["b"]) <= EXACT


def test_nothing_is_left_behind_even_by_a_model_that_raises() -> None:
    model, x = vgg(norm=True), images()
    before = copy.deepcopy(model.state_dict())
    keys = [sorted(vars(module)) for module in model.modules()]
    attrib.lrp(attrib.target(model, 1), composite=r.epsilon_gamma_box(-5, 5))(x)

    def failing(x: Tensor) -> Tensor:
        model(x)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        attrib.lrp(failing)(x)
    assert torch.overrides._len_torch_function_stack() == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert keys == [sorted(vars(module)) for module in model.modules()]
    assert all(value.grad is None for value in model.parameters())
    assert x.grad_fn is None and not hasattr(x, "_attrib_notes")


def test_threads_do_not_disturb_each_other() -> None:
    model, x = vgg(norm=True), images()
    attributes = [attrib.lrp(attrib.target(model, 1), composite=c) for c in list(ALL.values())[:4]]
    serial = [attribute(x) for attribute in attributes]
    found: dict[int, list[Tensor]] = {}

    def work(place: int) -> None:
        found[place] = [attributes[place](x) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, expected in enumerate(serial):
        assert all(torch.equal(result, expected) for result in found[place])


def test_many_targets_come_from_one_forward_pass() -> None:
    model, x = vgg(), images()
    for composite in (r.epsilon_plus(), r.epsilon_plus_flat()):
        method = lambda f, composite=composite: attrib.lrp(f, composite=composite)
        with torch.no_grad():
            together = attrib.per_target(method, model, [0, 2])(x)
            for place, index in enumerate((0, 2)):
                assert relative(together[place], method(attrib.target(model, index))(x)) <= EXACT


# --- refusals -------------------------------------------------------------------------------------


def test_an_operation_that_is_not_known_is_refused_or_followed() -> None:
    f = lambda x: torch.linalg.det(x)
    x = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    with pytest.raises(attrib.AttribError, match="linalg_det"):
        attrib.lrp(f)(x)
    assert attrib.lrp(f, unknown="gradient")(x).tolist() == [[6.0, 0.0], [0.0, 6.0]]
    own = {"linalg_det": lambda call, carrier: call(*call.inputs)}
    assert attrib.lrp(f, rules=own)(x).tolist() == [[6.0, 0.0], [0.0, 6.0]]


@pytest.mark.parametrize(
    ("composite", "code"),
    [
        ("epsilon", "composite.type"),
        ({"conv": 3}, "composite.type"),
        ({-1: r.flat()}, "composite.type"),
        ({True: r.flat()}, "composite.type"),
        ({"convolutions": r.flat()}, "composite.unknown"),
    ],
)
def test_a_composite_is_a_mapping_from_operations_to_rules(composite: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as error:
        attrib.lrp(lambda x: x.sum(-1), composite=composite)
    assert error.value.code == code


def test_numbers_that_break_a_rule_are_refused() -> None:
    for build in (
        lambda: r.epsilon(-1.0),
        lambda: r.alpha_beta(2.0, 2.0),
        lambda: r.gamma(float("nan")),
        lambda: r.z_box("low", 1.0),
    ):
        with pytest.raises(attrib.AttribError):
            build()
