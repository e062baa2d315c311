"""DeepLift: exact sums, closed forms, exact derivatives, on networks however they are written."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib import deep_lift
from zoo import ZOO, build, close, data

RULES = ("rescale", "reveal-cancel")
rules = pytest.mark.parametrize("rule", RULES)
networks = pytest.mark.parametrize("name", ZOO)
# Every kind of rule, once.
FEW = ("relu", "smooth", "bent", "vgg", "residual", "overwritten", "padded encoder", "extremes")
few = pytest.mark.parametrize("name", FEW)
MISH = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


# ------------------------------------------------------------------------------------------- sums


@rules
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["f64", "f32"]
)
@networks
def test_attributions_sum_to_the_rise_of_the_score(
    name: str, dtype: torch.dtype, tolerance: float, grad: bool, rule: str
) -> None:
    model, x, baseline = build(name, dtype)
    f = attrib.target(model, 1)
    with torch.set_grad_enabled(grad):
        attribution = deep_lift(f, rule=rule)(x, baseline)
        end, start = f(x), f(baseline)
        rise = end - start
    # A sum is as exact as its terms, and a difference as exact as the scores.
    scale = torch.stack([attribution.abs().flatten(1).sum(1), end.abs(), start.abs()])
    close(attribution.flatten(1).sum(1), rise, tolerance, scale)
    assert attribution.abs().max() > 0


@rules
@networks
def test_an_example_gets_in_a_batch_what_it_gets_alone(name: str, rule: str) -> None:
    model, x, baseline = build(name)
    attribute = deep_lift(attrib.target(model, 2), rule=rule)
    with torch.no_grad():
        together = attribute(x, baseline)
        for i in range(len(x)):
            close(attribute(x[i : i + 1], baseline[i : i + 1])[0], together[i], 1e-12, together)


@networks
def test_an_input_at_its_baseline_has_its_gradient_as_multipliers(name: str) -> None:
    model, x, _ = build(name)
    f = attrib.target(model, 0)
    with torch.no_grad():
        multipliers = deep_lift(f, multiply=False)(x, x)
        # The derivative of torch's hardsigmoid is a float32 sixth.
        close(multipliers, attrib.saliency(f)(x), 1e-7 if name == "bent" else 1e-12)
        assert torch.equal(deep_lift(f)(x, x), torch.zeros_like(x))


@pytest.mark.parametrize("apart", [1e-12, 1e-9, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("name", ["smooth", "attention", "rms norm", "standardized", "gates"])
@pytest.mark.parametrize(
    ("dtype", "noise"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=["f64", "f32"]
)
def test_an_input_near_its_baseline_has_nearly_its_gradient_as_multipliers(
    name: str, apart: float, dtype: torch.dtype, noise: float
) -> None:
    model, x, direction = build(name, dtype)
    f = attrib.target(model, 0)
    with torch.no_grad():
        multipliers = deep_lift(f, multiply=False)(x, x + apart * direction)
        # The slope of a secant is the derivative up to the distance, and rounding.
        close(multipliers, attrib.saliency(f)(x), 30 * apart + noise)


# --------------------------------------------------------------------------------- closed forms


def test_a_linear_network_gives_each_feature_weight_times_difference() -> None:
    first, second = nn.Linear(4, 5).double(), nn.Linear(5, 2).double()
    x, baseline = data(3, 4), data(3, 4, seed=1)
    f = attrib.target(nn.Sequential(first, second), 0)
    weight = (second.weight @ first.weight)[0].detach()
    for rule in RULES:
        close(deep_lift(f, rule=rule)(x, baseline).detach(), weight * (x - baseline), 1e-14)


def test_one_rectifier_shares_its_rise_by_the_terms_of_its_sum() -> None:
    weight, x, baseline = data(4), data(50, 4, seed=1), data(50, 4, seed=2)
    found = deep_lift(lambda x: torch.relu(x @ weight + 0.3))(x, baseline)
    sums = [at @ weight + 0.3 for at in (x, baseline)]
    slope = (sums[0].relu() - sums[1].relu()) / (sums[0] - sums[1])
    close(found, slope[:, None] * weight * (x - baseline), 1e-13)


def test_one_nonlinear_layer_is_integrated_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    f, x, baseline = attrib.target(model, 1), data(3, 4), data(3, 4, seed=1)
    expected = attrib.integrated_gradients(f, steps=100)(x, baseline)
    close(deep_lift(f)(x, baseline), expected, 1e-10)


def test_a_product_is_shared_by_the_mean_of_the_other_factor() -> None:
    x, baseline = torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 2.0]])
    expected = torch.tensor([[2.0 * 3.5, 3.0 * 2.0]])
    assert torch.equal(deep_lift(lambda x: x[..., 0] * x[..., 1])(x, baseline), expected)


def test_a_maximum_rises_and_falls_at_its_own_entries() -> None:
    x, baseline = torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([[0.0, 3.0, 2.0]])
    # Up from 3 to 4 at the first entry, and at the second nothing is lost.
    found = deep_lift(lambda x: x.amax(-1))(x, baseline)
    assert torch.equal(found, torch.tensor([[1.0, 0.0, 0.0]]))
    back = deep_lift(lambda x: x.amax(-1))(baseline, x)
    assert torch.equal(back, torch.tensor([[-1.0, 0.0, 0.0]]))


def test_windows_that_overlap_add_up() -> None:
    x = torch.tensor([[[1.0, 9.0, 1.0, 7.0, 1.0]]])
    found = deep_lift(lambda x: F.max_pool1d(x, 3, 1).sum((-1, -2)))(x)
    assert torch.equal(found, torch.tensor([[[0.0, 18.0, 0.0, 7.0, 0.0]]]))


# --------------------------------------------------------------------------------- derivatives


def _difference(value: Any, tensors: list[Tensor], by: list[Tensor], step: float) -> Tensor:
    def moved(step: float) -> Tensor:
        for tensor, direction in zip(tensors, by, strict=True):
            tensor.data.add_(direction, alpha=step)
        found = value()
        for tensor, direction in zip(tensors, by, strict=True):
            tensor.data.sub_(direction, alpha=step)
        return found

    with torch.no_grad():
        return (moved(step) - moved(-step)) / (2 * step)


@rules
@few
def test_derivatives_of_an_attribution_are_right(name: str, rule: str) -> None:
    model, x, baseline = build(name)
    attribute, weights = deep_lift(attrib.target(model, 1), rule=rule), torch.randn_like(x)

    def value() -> Tensor:
        return (attribute(x, baseline) * weights).sum()

    for tensors in ([x.requires_grad_()], [baseline.requires_grad_()], list(model.parameters())):
        found = torch.autograd.grad(value(), tensors, allow_unused=True)
        by = [torch.randn_like(tensor) for tensor in tensors]
        terms = [(g * v).flatten() for g, v in zip(found, by, strict=True) if g is not None]
        slope = torch.cat(terms)
        expected = _difference(value, tensors, by, 1e-6)
        # The share by which a cancelling sum may be off is one of its terms.
        close(slope.sum(), expected, 1e-6, slope.abs().sum())
        assert slope.sum() != 0


@rules
@few
def test_plain_autograd_and_torch_func_agree(name: str, rule: str) -> None:
    model, x, baseline = build(name)
    attribute = deep_lift(attrib.target(model, 1), rule=rule)

    def of(x: Tensor) -> Tensor:
        return attribute(x, baseline).square().sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(of(leaf), leaf)
    close(torch.func.grad(of)(x), expected, 1e-11)


@rules
@few
@MISH
def test_vmap_is_a_loop(name: str, rule: str) -> None:
    model, x, baseline = build(name)
    expected = deep_lift(attrib.target(model, 0), rule=rule)(x, baseline).detach()
    one = deep_lift(lambda x: model(x[None])[0, 0], rule=rule)
    with torch.no_grad():
        close(torch.vmap(one)(x, baseline), expected, 1e-11)


@rules
@few
@MISH
def test_a_compiled_attribution_gives_the_same_numbers(name: str, rule: str) -> None:
    model, x, baseline = build(name)
    attribute = deep_lift(attrib.target(model, 0), rule=rule)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(attribute, fullgraph=True, backend="aot_eager")
        close(compiled(x, baseline), attribute(x, baseline), 1e-12)


def test_a_network_learns_to_leave_a_feature_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)).double()
    x, optimizer = data(32, 4), torch.optim.Adam(model.parameters(), 0.02)
    attribute = deep_lift(attrib.target(model))
    shares = []
    for _ in range(200):
        shares.append(attribute(x, 0).abs().mean(0))
        optimizer.zero_grad()
        fit = F.mse_loss(model(x)[:, 0], x[:, 0] + x[:, 1])
        (fit + attribute(x, 0)[:, 1].square().mean()).backward()
        optimizer.step()
    # Without the second term both would be alike.
    assert shares[-1][1] < 0.7 * shares[-1][0]
    assert shares[-1][0] > shares[0][0]


def test_deep_lift_of_an_attribution_is_refused_because_its_backward_pass_cannot_be_seen() -> None:
    model, x, baseline = build("relu")
    inner = deep_lift(attrib.target(model, 0))
    with pytest.raises(attrib.AttribError, match=r"cannot be followed") as refused:
        deep_lift(lambda x: inner(x, baseline)[:, 0])(x, baseline)
    assert refused.value.code == "rules.unseen"


# ------------------------------------------------------------------------------ compositions


@rules
def test_many_targets_get_what_each_gets(rule: str) -> None:
    model, x, baseline = build("vgg")

    def method(f: Any) -> Any:
        return deep_lift(f, rule=rule)

    with torch.no_grad():
        found = attrib.per_target(method, model, [0, 2])(x, baseline)
        for place, index in enumerate((0, 2)):
            close(found[place], method(attrib.target(model, index))(x, baseline), 1e-12)


@rules
@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_the_average_over_baselines_is_the_mean_of_attributions(
    rule: str, chunk_size: int | None
) -> None:
    model, x, _ = build("residual")
    baselines, own = torch.randn(5, *x.shape[1:], dtype=x.dtype), torch.tensor([0, 2, 1, 1])
    attribute = deep_lift(attrib.target(model, own), rule=rule)
    with torch.no_grad():
        found = attrib.expected(attribute, chunk_size=chunk_size)(x, baselines)
        each = torch.stack([attribute(x, row) for row in baselines])
    close(found, each.mean(0), 1e-12)


def test_a_tree_gets_a_tree_and_integers_get_nothing() -> None:
    layer, table = nn.Linear(3, 1).double(), nn.Embedding(5, 3).double()

    def f(x: dict[str, Tensor], scale: Tensor) -> Tensor:
        return scale * layer(torch.relu(x["a"]) * table(x["token"])).squeeze(-1)

    x = {"a": data(4, 3), "token": torch.tensor([0, 3, 1, 1])}
    scale = torch.tensor([1.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    found = deep_lift(f)(x, 0, scale)
    assert found["token"] is None
    close(found["a"].sum(-1), f(x, scale) - f({**x, "a": torch.zeros(4, 3).double()}, scale), 1e-12)


def test_several_threads_give_the_serial_result() -> None:
    problems = [build(name) for name in ("relu", "vgg", "padded encoder", "residual")]
    attributes = [deep_lift(attrib.target(model, 1)) for model, _, _ in problems]
    expected = [a(x, b).detach() for a, (_, x, b) in zip(attributes, problems, strict=True)]
    wrong: list[int] = []

    def work(place: int) -> None:
        _, x, baseline = problems[place]
        for _ in range(5):
            found = attributes[place](x, baseline).detach()
            if not torch.equal(found, expected[place]):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ----------------------------------------------------------------------------------- refusals


def test_another_path_at_the_baseline_is_refused() -> None:
    def branching(x: Tensor) -> Tensor:
        return torch.tanh(x).sum(-1) if x.sum() > 0 else torch.sigmoid(x).sum(-1)

    def longer(x: Tensor) -> Tensor:
        return (torch.tanh(x) if x.sum() > 0 else torch.tanh(torch.tanh(x))).sum(-1)

    x = torch.ones(1, 3)
    for f in (branching, longer):
        for ends in ((x, -x), (-x, x)):
            with pytest.raises(attrib.AttribError, match=r"at x than at the base") as refused:
                deep_lift(f)(*ends)
            assert refused.value.code == "rules.choice"
            with pytest.raises(attrib.AttribError, match=r"another path at x") as refused:
                deep_lift(f, unknown="gradient")(*ends)
            assert refused.value.code == "rules.path"
        deep_lift(f)(x, x / 2)


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(attrib.AttribError, match=r"rule: .*rescale") as refused:
        deep_lift(lambda x: x.sum(-1), rule="revealcancel")
    assert refused.value.code == "rule.unknown"


def test_a_model_that_raises_leaves_nothing() -> None:
    model, x, baseline = build("vgg")
    attribute = deep_lift(attrib.target(model, 0))
    expected = attribute(x, baseline).detach()

    class HalfWayError(Exception):
        pass

    def broken(x: Tensor) -> Tensor:
        torch.relu(model(x))
        raise HalfWayError

    for rule in RULES:
        with pytest.raises(HalfWayError):
            deep_lift(broken, rule=rule)(x, baseline)
    assert torch.equal(attribute(x, baseline).detach(), expected)
    assert all(
        not module._forward_hooks and not module._backward_hooks for module in model.modules()
    )


def test_a_rule_of_ones_own_sees_the_baseline() -> None:
    def halved(call: Any, carrier: Any) -> Tensor:
        (x,), (reference,) = call.inputs, call.references
        at = carrier.frozen(x)
        slope = (at**3 - reference**3) / (at - reference) / 2
        return carrier.carried(call(at), slope * x)

    x, baseline = data(4, 3), data(4, 3, seed=1)
    found = deep_lift(lambda x: (x**3).sum(-1), rules={"pow": halved})(x, baseline)
    close(found, (x**3 - baseline**3) / 2, 1e-12)


def test_what_a_score_writes_to_its_arguments_stays_inside() -> None:
    x, baseline, factor = data(2, 3), data(2, 3, seed=1), data(2, seed=2)
    kept = [tensor.clone() for tensor in (x, baseline, factor)]

    def f(x: Tensor, factor: Tensor) -> Tensor:
        x.relu_()
        factor.mul_(2)
        return x.sum(-1) * factor

    for rule in RULES:
        found = deep_lift(f, rule=rule)(x, baseline, factor)
        close(found, (x.relu() - baseline.relu()) * 2 * factor[:, None], 1e-13)
    assert all(torch.equal(a, b) for a, b in zip((x, baseline, factor), kept, strict=True))


def test_what_leaves_torch_is_noticed_by_the_sum() -> None:
    def f(x: Tensor) -> Tensor:
        outside = torch.from_numpy(torch.sin(x.data).numpy())
        return (torch.relu(x) + outside).sum(-1)

    x = torch.tensor([[0.5, 1.5]])
    for grad in (False, True):
        with torch.set_grad_enabled(grad), pytest.raises(attrib.AttribError) as refusal:
            attrib.deep_lift(f)(x)
        assert refusal.value.code in ("rules.incomplete", "rules.choice")
    torch.testing.assert_close(attrib.deep_lift(f, unknown="gradient")(x), x)


@pytest.mark.parametrize("how", ["narrow", "entries", "view"])
def test_a_compiled_model_that_writes_into_a_view_is_followed(how: str) -> None:
    weight = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def f(x: Tensor) -> Tensor:
        hidden, buffer = torch.tanh(x @ weight), x.new_zeros(len(x), 5)
        if how == "narrow":
            buffer.narrow(1, 0, 3).copy_(hidden)
        elif how == "entries":
            buffer[:, :3] = hidden
        else:
            view = buffer[:, :3]
            view.add_(hidden)
        return (torch.relu(buffer) * torch.arange(5)).sum(-1)

    x = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    attribute = attrib.deep_lift(f)
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(attribute, fullgraph=True, backend="aot_eager")(x, 0.5)
        torch.testing.assert_close(found, attribute(x, 0.5), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found.sum(-1), f(x) - f(torch.full_like(x, 0.5)))
