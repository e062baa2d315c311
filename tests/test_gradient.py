"""Gradients of scores: exact, of the right shape, and refused where they would say nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib

X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
modes = pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "no_grad"])
METHODS = {
    "saliency": attrib.saliency,
    "input_x_gradient": attrib.input_x_gradient,
    "integrated_gradients": attrib.integrated_gradients,
}
each = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def f(x: Tensor) -> Tensor:
    return (x.sin() * x[..., :1]).sum(-1)


def naive(f: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    """Row by row, by plain autograd."""
    rows = []
    for row in x:
        leaf = row.detach().clone().requires_grad_()
        rows.append(torch.autograd.grad(f(leaf, *args), leaf)[0])
    return torch.stack(rows)


def hessian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.jacrev(torch.func.jacrev(f))(x)


@modes
def test_a_gradient_is_that_of_each_row_by_itself(recorded: bool) -> None:
    with torch.set_grad_enabled(recorded):
        gradient, score = attrib.grad_and_score(f)(X)
    torch.testing.assert_close(gradient, naive(f, X), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, f(X), rtol=0, atol=0)


@modes
def test_saliency_is_the_gradient_and_input_x_gradient_its_product_with_x(recorded: bool) -> None:
    with torch.set_grad_enabled(recorded):
        gradient, product = attrib.saliency(f)(X), attrib.input_x_gradient(f)(X)
    torch.testing.assert_close(gradient, naive(f, X), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product, X * naive(f, X), rtol=1e-12, atol=1e-12)


@modes
def test_further_arguments_go_to_the_score(recorded: bool) -> None:
    weight = torch.randn(3, dtype=torch.float64)
    g = lambda x, w, power: (w * x).pow(power).sum(-1)
    with torch.set_grad_enabled(recorded):
        found = attrib.saliency(g)(X, weight, 3)
    torch.testing.assert_close(found, 3 * weight * (weight * X).square(), rtol=1e-12, atol=1e-12)


@modes
def test_one_number_has_one_derivative(recorded: bool) -> None:
    x = torch.tensor(0.5, dtype=torch.float64)
    with torch.set_grad_enabled(recorded):
        gradient, score = attrib.grad_and_score(torch.sin)(x)
        many, scores = attrib.grad_and_score(torch.sin)(X[:, 0])
    torch.testing.assert_close(gradient, x.cos())
    torch.testing.assert_close(score, x.sin())
    torch.testing.assert_close(many, X[:, 0].cos())
    torch.testing.assert_close(scores, X[:, 0].sin())


@modes
def test_a_tree_has_a_tree_of_gradients(recorded: bool) -> None:
    x = {"a": X, "b": (X[:, :2], [X[:, :1]]), "ids": torch.arange(4), "absent": None}
    g = lambda t: (t["a"].sum(-1) * t["b"][0].prod(-1) + t["b"][1][0][..., 0]) * t["ids"]
    with torch.set_grad_enabled(recorded):
        found, _ = attrib.grad_and_score(g)(x)
    assert found.keys() == x.keys() and isinstance(found["b"], tuple)
    assert found["ids"] is None and found["absent"] is None
    ids = torch.arange(4)[:, None]
    expected = ids * X[:, :2].prod(-1, keepdim=True).expand_as(X)
    torch.testing.assert_close(found["a"], expected)
    torch.testing.assert_close(found["b"][1][0], ids.double())


@each
@modes
def test_a_leaf_that_is_not_used_gets_zeros(method: Any, recorded: bool) -> None:
    with torch.set_grad_enabled(recorded):
        used, unused = method(lambda x: f(x[0]))((X, X.float()))
    assert used.abs().sum() > 0
    assert torch.equal(unused, torch.zeros_like(X.float()))


@each
@modes
def test_the_same_tensor_twice_has_two_derivatives(method: Any, recorded: bool) -> None:
    with torch.set_grad_enabled(recorded):
        first, second = method(lambda x: (2 * x[0] + 3 * x[1]).sum(-1))((X, X))
    torch.testing.assert_close(3 * first, 2 * second)


INDEPENDENT: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda x: x.detach().sum(-1),
    "data": lambda x: x.data.sum(-1),
    "no_grad": torch.no_grad()(lambda x: x.sum(-1)),
    "constant": lambda x: torch.ones(len(x), dtype=x.dtype),
}


@each
@modes
@pytest.mark.parametrize("name", INDEPENDENT)
def test_a_score_that_does_not_depend_on_x_is_refused(
    name: str, method: Any, recorded: bool
) -> None:
    for score in (attrib.batched(INDEPENDENT[name]), INDEPENDENT[name]):
        with (
            torch.set_grad_enabled(recorded),
            pytest.raises(ValueError, match="does not depend on x") as refusal,
        ):
            method(score)(X)
        assert isinstance(refusal.value, attrib.AttribError)
        assert refusal.value.code == "score.independent"


@each
@modes
def test_a_score_that_depends_on_parameters_alone_is_refused(method: Any, recorded: bool) -> None:
    weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
    score = attrib.batched(lambda x: (x.detach() * weight).sum(-1))
    with torch.set_grad_enabled(recorded), pytest.raises(ValueError, match="does not depend on x"):
        method(score)(X)


def test_a_score_that_depends_on_another_level_alone_is_refused() -> None:
    def outer(x: Tensor) -> Tensor:
        return attrib.saliency(lambda z: (z.detach() * x).sum(-1))(x).sum()

    with pytest.raises(ValueError, match="does not depend on x"):
        torch.func.grad(outer)(X)


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@modes
def test_an_example_without_a_finite_score_gets_nan_and_a_warning(
    method: Any, bad: float, recorded: bool
) -> None:
    x = X.clone()
    x[2, 1] = bad
    # A gradient alone would hide it: that of a ReLU is 0 or 1 whatever its input.
    score = attrib.batched(lambda x: x.relu().sum(-1) - (-x).relu().sum(-1))
    with (
        torch.set_grad_enabled(recorded),
        pytest.warns(attrib.NonFiniteWarning, match=r"first at index \[\d") as warned,
    ):
        found = method(score)(x)
    assert all(record.category is attrib.NonFiniteWarning for record in warned)
    assert found[2].isnan().all()
    others = [0, 1, 3]
    torch.testing.assert_close(found[others], method(score)(X)[others])


def test_inside_a_transform_a_score_without_a_finite_value_gives_nan() -> None:
    x = X.clone()
    x[2, 1] = torch.nan
    with pytest.warns(attrib.NonFiniteWarning):
        found = torch.vmap(attrib.saliency(lambda x: x.relu().sum(-1)))(x)
    assert found[2].isnan().all() and found[:2].isfinite().all()


SHAPES: dict[str, Callable[[Tensor], Any]] = {
    "all outputs": lambda x: x.sin(),
    "one for all": lambda x: x[:2].sum(-1),
    "a column": lambda x: x.sum(-1, keepdim=True)[None],
}


@each
@modes
@pytest.mark.parametrize("name", SHAPES)
def test_a_score_of_the_wrong_shape_is_refused_with_what_to_write(
    name: str, method: Any, recorded: bool
) -> None:
    with (
        torch.set_grad_enabled(recorded),
        pytest.raises(ValueError, match=r"one number per example.*attrib\.target") as refusal,
    ):
        method(SHAPES[name])(X)
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == "score.shape"


@each
@pytest.mark.parametrize(
    ("score", "code"),
    [
        (lambda x: (x.sum(-1),), "score.type"),
        (lambda x: 3.0, "score.type"),
        (lambda x: None, "score.type"),
        (lambda x: x.sum(-1).long(), "score.dtype"),
        (lambda x: x.sum(-1).to(torch.complex128), "score.dtype"),
    ],
)
def test_a_score_that_is_no_real_tensor_is_refused(method: Any, score: Any, code: str) -> None:
    with pytest.raises(TypeError) as refusal:
        method(score)(X)
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == code


@each
@pytest.mark.parametrize(
    ("x", "code"),
    [
        (torch.arange(4), "x.dtype"),
        (X.to(torch.complex128), "x.dtype"),
        (X.to_sparse(), "x.layout"),
        ([1.0, 2.0], "x.type"),
        (X.numpy(), "x.type"),
        ((X, "text"), "x.type"),
        ((), "x.type"),
        (None, "x.type"),
    ],
)
def test_an_input_that_has_no_gradient_is_refused_before_the_model_is_called(
    method: Any, x: Any, code: str
) -> None:
    def score(x: Any) -> Tensor:
        raise AssertionError("called")

    with pytest.raises(TypeError, match=r"^x") as refusal:
        method(score)(x)
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == code


@each
def test_a_score_is_callable(method: Any) -> None:
    with pytest.raises(TypeError, match="f: must be callable"):
        method(X)


def test_derivatives_of_every_order_are_exact() -> None:
    x = X.clone().requires_grad_()
    assert torch.autograd.gradcheck(attrib.saliency(f), x)
    assert torch.autograd.gradgradcheck(attrib.input_x_gradient(f), x)
    second = attrib.saliency(lambda x: attrib.saliency(f)(x).sum(-1))(X)
    row = X[1]
    expected = hessian(f, row).sum(0)
    torch.testing.assert_close(second[1], expected, rtol=1e-12, atol=1e-12)


def test_a_jacobian_of_an_attribution_is_a_hessian() -> None:
    found = torch.func.jacrev(attrib.saliency(f))(X[0])
    torch.testing.assert_close(found, hessian(f, X[0]), rtol=1e-12, atol=1e-12)


def test_a_gradient_with_respect_to_the_weights_is_recorded() -> None:
    weight = nn.Parameter(torch.randn(3, dtype=torch.float64))
    attrib.saliency(lambda x: (x * weight).sin().sum(-1))(X).sum().backward()
    found = weight.grad
    expected = ((X * weight).cos() - X * weight * (X * weight).sin()).sum(0)
    torch.testing.assert_close(found, expected.detach())


class _OldFunction(torch.autograd.Function):
    """Custom functions as everybody wrote them before torch.func, without setup_context."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * g


@pytest.mark.parametrize("recording", [False, True])
def test_outside_of_transforms_anything_goes_that_autograd_can(recording: bool) -> None:
    checkpointed = lambda x: torch.utils.checkpoint.checkpoint(
        lambda x: x.square().sum(-1), x, use_reentrant=False
    )
    hooked = nn.Linear(3, 1).double()
    hooked.register_full_backward_hook(lambda module, given, found: None)
    x = X.clone().requires_grad_(recording)
    with torch.set_grad_enabled(recording):
        found = attrib.saliency(lambda x: _OldFunction.apply(x).sum(-1))(x)
        torch.testing.assert_close(found, 2 * X)
        if recording:
            (second,) = torch.autograd.grad(found.sum(), x)
            torch.testing.assert_close(second, torch.full_like(X, 2.0))
        torch.testing.assert_close(attrib.saliency(checkpointed)(X), 2 * X)
        found = attrib.saliency(attrib.target(hooked))(X)
        torch.testing.assert_close(found, hooked.weight.expand_as(X))


@pytest.mark.parametrize(
    "method",
    [
        attrib.saliency,
        lambda f: attrib.integrated_gradients(f, steps=2),
        attrib.deep_lift,
        attrib.lrp,
    ],
    ids=["saliency", "integrated_gradients", "deep_lift", "lrp"],
)
def test_no_derivative_comes_back_to_a_variable_of_ours(method: Any) -> None:
    """With `create_graph` it would be held in a circle that nobody can break."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    found = method(attrib.target(net))(X)
    waiting: list[Any] = [found.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [after for after, _ in node.next_functions]
    variables = [node.variable for node in seen if hasattr(node, "variable")]
    own = [v for v in variables if all(v is not p for p in net.parameters())]
    found.square().sum().backward()
    assert own and all(v.grad is None for v in own)
    assert net[0].weight.grad is not None


def test_of_a_frozen_model_no_graph_is_made() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double().requires_grad_(False)
    saved: list[Tensor] = []
    pack = lambda tensor: saved.append(tensor) or tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = attrib.saliency(attrib.target(net))(X)
        with torch.no_grad():
            recorded = len(saved)
            saved.clear()
            again = attrib.saliency(attrib.target(net))(X)
    assert not found.requires_grad and torch.equal(found, again)
    assert 0 < recorded == len(saved)


def test_autocast_of_the_caller_is_respected() -> None:
    model, x = nn.Linear(8, 2), torch.randn(4, 8)
    seen: list[torch.dtype] = []
    model.register_forward_hook(lambda module, args, result: seen.append(result.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attrib.integrated_gradients(attrib.target(model, 0))(x)
    assert set(seen) == {torch.bfloat16}
    assert found.dtype == torch.float32
    expected = x * model.weight[0]
    assert (found - expected).abs().max() <= 0.06 * expected.abs().max() + 0.03
