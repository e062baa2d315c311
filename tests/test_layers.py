"""Sites: what is read there, a score in two parts, and methods on layers and neurons."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import attrib
from attrib import Site
from derivatives import check_derivatives, relative

EXACT = 1e-12


class Residual(nn.Module):
    """A convolutional network with a connection around a layer, and a ReLU in place, used twice."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.Tanh() if smooth else nn.ReLU(inplace=True)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 6, 3, padding=1)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x)) + x
        return self.behind(self.third(x))

    def behind(self, h: Tensor) -> Tensor:
        return self.last(attrib.tap("mean", torch.tanh(h).mean((2, 3))))


def residual(smooth: bool = False) -> Residual:
    return Residual(smooth).double().eval()


def images(count: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, 6, 6, dtype=torch.float64)


def hooked(model: nn.Module, name: str, x: Tensor) -> list[Tensor]:
    """What a module yields at every call, by a hook of torch."""
    seen: list[Tensor] = []
    module = dict(model.named_modules())[name]
    handle = module.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    model(x)
    handle.remove()
    return seen


SITES = ["first", "norm", "second", "third", "last"]
sites = pytest.mark.parametrize("site", SITES)
KINDS = ["marked", "closure", "vmap"]
kinds = pytest.mark.parametrize("kind", KINDS)


def score(model: nn.Module, kind: str) -> Any:
    """Scores that tell their model, that do not but have rows, and that have no rows either."""
    closure = lambda x: model(x)[..., 1]
    return {
        "marked": attrib.target(model, 1),
        "closure": attrib.batched(closure),
        "vmap": closure,
    }[kind]


# --- reading ------------------------------------------------------------------------------------


@sites
def test_an_activation_is_what_a_hook_sees(site: str) -> None:
    model, x = residual(), images()
    for model_or_score in (model, attrib.target(model, 1)):
        found = attrib.activation(model_or_score, site)(x)
        assert relative(found, hooked(model, site, x)[0]) <= EXACT


def test_an_activation_is_not_changed_by_what_follows_in_place() -> None:
    model, x = residual(), images()
    assert attrib.activation(model, "norm")(x).min() < 0


def test_a_module_used_twice_needs_a_call() -> None:
    model, x = residual(), images()
    with pytest.raises(attrib.AttribError, match="reached 2 times") as error:
        attrib.activation(model, "relu")(x)
    assert error.value.code == "site.calls"
    calls = hooked(model, "relu", x)
    for call, value in enumerate(calls):
        found = attrib.activation(model, Site("relu", call=call))(x)
        assert relative(found, value) <= EXACT
    every = attrib.activation(model, Site("relu", call="all"))(x)
    assert all(relative(a, b) <= EXACT for a, b in zip(every, calls, strict=True))
    with pytest.raises(attrib.AttribError, match="call 2"):
        attrib.activation(model, Site("relu", call=2))(x)


def test_a_contrast_calls_its_model_twice_and_says_how_it_need_not() -> None:
    model, x = residual(), images()
    both = attrib.contrast(attrib.target(model, 1), attrib.target(model, 0))
    with pytest.raises(attrib.AttribError, match=r"call the model once: attrib\.target") as error:
        attrib.gradient_x_activation(both, "last")(x)
    assert error.value.code == "site.calls"
    once = attrib.target(model, lambda out: out[:, 1] - out[:, 0])
    first, second = attrib.gradient_x_activation(both, Site("second", call="all"))(x)
    assert relative(first + second, attrib.gradient_x_activation(once, "second")(x)) <= EXACT


def test_the_input_of_a_module_is_what_it_is_given() -> None:
    model, x = residual(), images()
    found = attrib.activation(model, Site("third", of="input"))(x)
    assert relative(model.third(found), hooked(model, "third", x)[0]) <= EXACT


def test_a_model_is_left_once_the_site_is_known() -> None:
    model, x = residual(), images()
    read = attrib.activation(model, "second")
    read(x)
    model.last.forward = lambda h: 1 / 0
    assert read(x).shape == (2, 8, 6, 6)


@pytest.mark.parametrize("name", ["first", "last"])
def test_errors_of_the_model_pass(name: str) -> None:
    model, x = residual(), images()
    getattr(model, name).forward = lambda h: 1 / 0
    with pytest.raises(ZeroDivisionError):
        attrib.activation(model, "second")(x)


class Structured(nn.Module):
    """Outputs of every structure, and a module called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.keyword = Keyword()
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.lstm(x)
        found = self.keyword(hidden=out[:, -1] + h[0] * c[0], scale=None)
        return self.last(found["h"] * found["more"][1])


class Keyword(nn.Module):
    def forward(self, *, hidden: Tensor, scale: Any) -> dict[str, Any]:
        return {"h": hidden.exp(), "n": 3, "more": (scale, hidden)}


def structured() -> tuple[Structured, Tensor]:
    model = Structured().double().eval()
    return model, torch.randn(2, 4, 3, dtype=torch.float64)


def test_a_structure_is_read_as_a_tree_of_its_tensors() -> None:
    model, x = structured()
    out, (h, c) = model.lstm(x)
    found = attrib.activation(model, "lstm")(x)
    assert isinstance(found, tuple) and isinstance(found[1], tuple)
    assert all(
        torch.equal(a, b) for a, b in zip(pytree.tree_leaves(found), (out, h, c), strict=True)
    )
    named = attrib.activation(model, "keyword")(x)
    assert list(named) == ["h", "n", "more"] and named["n"] is None and named["more"][0] is None
    assert torch.equal(named["h"], named["more"][1].exp())
    given = attrib.activation(model, Site("keyword", of="input"))(x)
    assert torch.equal(given, named["more"][1])


def test_a_leaf_of_a_structure_is_a_site() -> None:
    model, x = structured()
    _, (_, c) = model.lstm(x)
    site = Site("lstm", leaf=(1, 1), batch_dim=1)
    assert torch.equal(attrib.activation(model, site)(x), c.transpose(0, 1))
    gradient = attrib.layer(attrib.saliency, attrib.target(model, 1), site)(x)
    out, (h, c) = (pytree.tree_map(Tensor.detach, part) for part in model.lstm(x))
    c.requires_grad_()
    hidden = out[:, -1] + h[0] * c[0]
    (truth,) = torch.autograd.grad(model.last(hidden.exp() * hidden)[:, 1].sum(), c)
    assert relative(gradient, truth.transpose(0, 1)) <= EXACT
    more = attrib.layer(
        attrib.saliency, attrib.target(model, 1), Site("keyword", leaf=("more", 1))
    )(x)
    assert relative(more, model.last.weight[1] * hidden.exp()) <= EXACT


class Pair(nn.Module):
    def forward(self, x: Tensor) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=2 * x, hidden_states=(x, 3 * x))


def test_a_model_output_of_hugging_face_is_a_structure() -> None:
    pytest.importorskip("transformers")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            out = self.pair(x)
            return out.last_hidden_state.square() * out.hidden_states[1]

    model, x = Model(), torch.tensor([[2.0, 3.0]])
    assert list(attrib.activation(model, "pair")(x)) == ["last_hidden_state", "hidden_states"]
    f = attrib.target(model, 1)
    found = attrib.layer(attrib.saliency, f, Site("pair", leaf="last_hidden_state"))(x)
    assert torch.equal(found, torch.tensor([[0.0, 2 * 6.0 * 9.0]]))
    found = attrib.layer(attrib.saliency, f, Site("pair", leaf=("hidden_states", 1)))(x)
    assert torch.equal(found, torch.tensor([[0.0, 36.0]]))


def test_the_fused_path_of_an_encoder_does_not_hide_its_layers() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(2, 3, 8)
    with torch.no_grad():
        assert attrib.activation(model, "layers.1.linear1")(x).shape == (2, 3, 16)


# --- a score in two parts -----------------------------------------------------------------------


@sites
@kinds
def test_the_parts_of_a_score_are_the_score(site: str, kind: str) -> None:
    model, x = residual(), images()
    where = site if kind == "marked" else getattr(model, site)
    head, tail = attrib.split(score(model, kind), where)
    h = head(x)
    assert relative(tail(h, x), model(x)[:, 1]) <= EXACT
    assert relative(h, hooked(model, site, x)[0]) <= EXACT  # it was given to a model that writes


@kinds
def test_the_tail_is_what_the_model_makes_of_another_value(kind: str) -> None:
    model, x = residual(), images()
    torch.manual_seed(2)
    h = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    around = F.relu(model.norm(model.first(x)))
    truth = model.behind(model.third(F.relu(h) + around))[:, 1]
    _, tail = attrib.split(score(model, kind), model.second)
    assert relative(tail(h, x), truth) <= EXACT


def test_a_name_in_functional_code_is_a_site() -> None:
    model, x = residual(), images()
    head, tail = attrib.split(attrib.target(model, 1), "mean")
    assert relative(tail(head(x) + 1, x), (model.last(head(x) + 1))[:, 1]) <= EXACT
    function = lambda x: attrib.tap("square", x.square()).sum(-1)
    gradient = attrib.layer(attrib.saliency, function, "square")(torch.randn(4))
    assert torch.equal(gradient, torch.ones(4))


class Computed(TorchDispatchMode):
    """Counts the convolutions that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.convolutions += "convolution" in str(func) and not args[0].is_meta
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("site", ["first", "norm", "second", "third"])
def test_only_what_is_behind_a_site_is_computed_again(site: str, smooth: bool) -> None:
    convolutions = {"first": 2, "norm": 2, "second": 2, "third": 0}[site]
    if site == "second" and not smooth:
        convolutions = 3  # what went around it was written to: the model runs as it is
    model, x = residual(smooth), images()
    _, tail = attrib.split(attrib.target(model, 1), site)
    h = hooked(model, site, x)[0]
    with torch.no_grad():
        tail(h, x)
    with torch.no_grad(), Computed() as computed:
        tail(h, x)
    assert computed.convolutions == convolutions


class Looking(nn.Module):
    """Code that wants numbers before the site, keeps them, and remembers what passed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()
        self.kept: Any = None
        self.register_buffer("buffer", torch.zeros(3, dtype=torch.float64))

    def forward(self, x: Tensor, how: str) -> Tensor:
        if how == "branch" and x.sum() > 0:
            x = 2 * x
        elif how == "item":
            x = x * float(x.max())
        elif how == "attribute":
            self.first.kept = x
        elif how == "buffer":
            self.buffer = x[0]
        elif how == "write":
            x = x.clone()
            x[:, 0] = 7.0
        elif how == "numpy":
            x = x + torch.from_numpy(x.detach().numpy())
        around = torch.relu_(x.clone()) if how == "relu_" else x
        return self.last(self.first(x) * around)


@pytest.mark.parametrize(
    "how", ["plain", "branch", "item", "attribute", "buffer", "write", "numpy", "relu_"]
)
def test_whatever_leads_to_a_site_the_tail_is_right_and_nothing_is_left(how: str) -> None:
    model, x = Looking().eval(), torch.rand(2, 3, dtype=torch.float64)
    f = attrib.target(lambda x: model(x, how), 1)
    marked = attrib.target(_Fixed(model, how), 1)
    h = torch.randn(2, 3, dtype=torch.float64)
    truth = attrib.split(f, model.first)[1](h, x)
    _, tail = attrib.split(marked, model.first)
    assert all(torch.equal(tail(h, x), truth) for _ in range(2))
    for value in (*vars(model.first).values(), model.buffer):
        assert not (isinstance(value, Tensor) and value.is_meta)


class Keeping(nn.Module):
    """Remembers the first thing that it was ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = x if self.kept is None else self.kept
        return 2 * x


def test_what_a_module_keeps_it_keeps_on_a_copy() -> None:
    model = nn.Sequential(Keeping(), nn.Linear(3, 3), nn.Linear(3, 2)).double().eval()
    h, x = torch.randn(2, 2, 3, dtype=torch.float64)
    _, tail = attrib.split(attrib.target(model, 1), "1")
    assert relative(tail(h, x), model[2](h)[:, 1]) <= EXACT
    assert "kept" not in vars(model[0]) or model[0].kept is None


class _Fixed(nn.Module):
    def __init__(self, model: nn.Module, how: str) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, self.how)


class Collecting(nn.Module):
    """Remembers all that it was ever given."""

    def __init__(self, collected: Any) -> None:
        super().__init__()
        self.collected = collected

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.collected, dict):
            self.collected["last"] = x
        elif isinstance(self.collected, set):
            self.collected.add(x)
        else:
            self.collected.append(x)
        return 2 * x


@pytest.mark.parametrize("kind", [list, dict, set])
def test_what_a_module_collects_it_collects_on_a_copy(kind: type) -> None:
    model = nn.Sequential(Collecting(kind()), nn.Linear(3, 3), nn.Linear(3, 2)).double().eval()
    x, h = torch.randn(2, 2, 3, dtype=torch.float64)
    _, tail = attrib.split(attrib.target(model, 1), "1")
    for _ in range(3):
        assert relative(tail(h, x), model[2](h)[:, 1]) <= EXACT
        attrib.activation(model, "1")(x)
    assert not model[0].collected


def test_what_code_elsewhere_collects_has_numbers_from_the_second_time_on() -> None:
    collected: list[Tensor] = []

    class Elsewhere(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            collected.append(2 * x)
            return collected[-1]

    model = nn.Sequential(Elsewhere(), nn.Linear(3, 3), nn.Linear(3, 2)).double().eval()
    x, h = torch.randn(2, 2, 3, dtype=torch.float64)
    _, tail = attrib.split(attrib.target(model, 1), "1")
    for _ in range(3):
        assert relative(tail(h, x), model[2](h)[:, 1]) <= EXACT
    assert not any(value.is_meta for value in collected[1:])


def test_what_draws_before_a_site_draws_the_same() -> None:
    model = nn.Sequential(
        nn.Linear(3, 9), nn.Dropout(), nn.Linear(9, 9), nn.Dropout(), nn.Linear(9, 2)
    )
    f, x = attrib.target(model, 1, stochastic=True), torch.randn(4, 3)
    head, tail = attrib.split(f, "2")
    torch.manual_seed(3)
    h = head(x)
    torch.manual_seed(3)
    found = tail(h, x)
    torch.manual_seed(3)
    assert torch.equal(found, f(x))


def test_a_model_that_is_left_early_is_not_left_half_done() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack: list[int] = []
            self.inner, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.stack.append(1)
            x = self.last(self.inner(x) * len(self.stack))
            self.stack.pop()
            return x

    model, x = Stack().eval(), torch.randn(2, 3)
    read = attrib.activation(model, "inner")
    assert all(torch.allclose(read(x), model.inner(x)) for _ in range(3))
    attrib.layer(attrib.integrated_gradients, attrib.target(model, 1), "inner")(x)
    assert model.stack == []


def test_hooks_of_the_user_see_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)).double().eval()
    x, seen = torch.randn(2, 3, dtype=torch.float64), []
    model[0].register_forward_hook(lambda module, args, out: seen.append(out))
    attrib.layer(attrib.saliency, attrib.target(model, 1), "1")(x)
    assert len(seen) == 2 and not any(value.is_meta for value in seen)


def test_sites_side_by_side_are_replaced_together() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words, self.places = nn.Embedding(9, 4), nn.Embedding(3, 4)
            self.last = nn.Linear(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.words(ids) + self.places(torch.arange(3))
            return self.last(torch.tanh(x)).sum(1)

    model = Sum().double().eval()
    ids, start = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.zeros(2, 3, dtype=torch.long)
    f = attrib.target(model, 0)
    words = attrib.layer(attrib.integrated_gradients, f, "words")(ids, start)
    assert relative(words.sum((1, 2)), f(ids) - f(start)) <= 1e-10
    head, tail = attrib.split(f, {"a": "words", "b": Site("places")})
    h = head(ids)
    h["b"] = h["b"].expand(2, 3, 4)
    with pytest.raises(attrib.AttribError, match="another shape"):
        tail(h, ids)


def test_a_site_behind_another_is_refused_where_it_would_hide_it() -> None:
    model, x = residual(), images()
    with pytest.raises(attrib.AttribError, match="behind another") as error:
        attrib.layer(attrib.saliency, attrib.target(model, 1), ["first", "third"])(x)
    assert error.value.code == "site.behind"


# --- methods ------------------------------------------------------------------------------------


def gradient_by_hand(model: Residual, x: Tensor) -> tuple[Tensor, Tensor]:
    h = model.second(F.relu(model.norm(model.first(x)))).detach().requires_grad_()
    around = F.relu(model.norm(model.first(x))).detach()
    out = model.behind(model.third(F.relu(h) + around))[:, 1]
    return h.detach(), torch.autograd.grad(out.sum(), h)[0]


@kinds
@pytest.mark.parametrize("recording", [False, True])
def test_activation_and_gradient_are_those_of_autograd(kind: str, recording: bool) -> None:
    model, x = residual(), images()
    h, gradient = gradient_by_hand(model, x)
    with torch.set_grad_enabled(recording):
        found = attrib.activation_and_gradient(score(model, kind), model.second)(x)
        assert relative(found[0], h) <= EXACT and relative(found[1], gradient) <= EXACT
        alone = attrib.layer(attrib.saliency, score(model, kind), model.second)(x)
        assert relative(alone, gradient) <= EXACT
        product = attrib.gradient_x_activation(score(model, kind), model.second)(x)
        assert relative(product, h * gradient) <= EXACT
    if not recording:
        assert not any(part.requires_grad for part in (*found, alone, product))


@pytest.mark.parametrize("recording", [False, True])
def test_sites_behind_each_other_get_their_whole_derivatives(recording: bool) -> None:
    model, x = residual(), images()
    f = attrib.target(model, 1)
    names = ["first", "norm", "second", "third", "last"]
    with torch.set_grad_enabled(recording):
        together = attrib.activation_and_gradient(f, names)(x)
        for place, name in enumerate(names):
            alone = attrib.activation_and_gradient(f, name)(x)
            assert relative(together[0][place], alone[0]) <= EXACT
            assert relative(together[1][place], alone[1]) <= EXACT


@pytest.mark.parametrize(
    "method",
    [
        attrib.integrated_gradients,
        attrib.deep_lift,
        attrib.input_x_gradient,
        lambda f: attrib.lrp(f),
    ],
)
def test_a_layer_method_is_the_method_on_the_rest_of_the_model(
    method: Callable[..., Any],
) -> None:
    torch.manual_seed(0)
    before, behind = nn.Linear(3, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2))
    model = nn.Sequential(before, behind).double().eval()
    x, start = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    attribute = method(attrib.target(behind, 1))
    if "baseline" in str(attribute.__signature__):
        truth = attribute(before(x), before(start.expand(4, 3)))
        found = attrib.layer(method, attrib.target(model, 1), "0")(x, start)
    else:
        truth = attribute(before(x))
        found = attrib.layer(method, attrib.target(model, 1), "0")(x)
    assert relative(found, truth) <= EXACT


def test_baselines_of_the_input_are_baselines_of_the_layer() -> None:
    torch.manual_seed(0)
    before, behind = nn.Linear(3, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 2))
    model = nn.Sequential(before, behind).double().eval()
    x, rows = (torch.randn(n, 3, dtype=torch.float64) for n in (4, 7))
    shap = lambda f: attrib.expected(attrib.deep_lift(f))
    found = attrib.layer(shap, attrib.target(model, 1), "0")(x, rows)
    assert relative(found, shap(attrib.target(behind, 1))(before(x), before(rows))) <= EXACT
    each = torch.tensor([0, 1, 1, 0])
    found = attrib.layer(shap, attrib.target(model, each), "0")(x, rows)
    assert relative(found, shap(attrib.target(behind, each))(before(x), before(rows))) <= EXACT


@pytest.mark.parametrize(
    ("index", "pick"),
    [
        ((1, 2, 3), lambda h: h[:, 1, 2, 3]),
        ((-1, slice(None), 2), lambda h: h[:, -1, :, 2].sum(-1)),
        ((slice(0, 3), slice(1, 2), slice(None)), lambda h: h[:, :3, 1:2].sum((1, 2, 3))),
        (lambda h: h.square().sum((1, 2, 3)), lambda h: h.square().sum((1, 2, 3))),
    ],
)
def test_a_neuron_is_a_score(index: Any, pick: Callable[[Tensor], Tensor]) -> None:
    model, x = residual(), images().requires_grad_()
    value = pick(model.second(F.relu(model.norm(model.first(x)))))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    f = attrib.neuron(model, "second", index)
    assert relative(f(x), value) <= EXACT
    assert relative(attrib.saliency(f)(x), gradient) <= EXACT


def test_a_neuron_is_one_of_one_tensor() -> None:
    lstm, x = nn.LSTM(3, 4, batch_first=True).double(), torch.randn(2, 5, 3).double()
    model = lambda x: lstm(x)[0].sum((1, 2))
    for site in (lstm, [lstm]):
        with pytest.raises(attrib.AttribError, match="leaf=0") as error:
            attrib.neuron(model, site, (1, 2))(x)
        assert error.value.code == "site.several"
    out, (_, cells) = lstm(x)
    found = attrib.neuron(model, Site(lstm, leaf=0), (1, 2))(x)
    assert relative(found, out[:, 1, 2]) <= EXACT
    cell = attrib.neuron(model, lstm, lambda parts: parts[1][1][0, :, 3])(x)
    assert relative(cell, cells[0, :, 3]) <= EXACT


def test_every_neuron_is_one_of_a_vmap() -> None:
    model, x = residual(), images()
    every = torch.vmap(lambda k: attrib.saliency(attrib.neuron(model, "last", k))(x))
    for k, gradient in enumerate(every(torch.arange(4))):
        assert relative(gradient, attrib.saliency(attrib.target(model, k))(x)) <= EXACT


def test_a_layer_explains_a_neuron_behind_it() -> None:
    model, x = residual(), images()
    f = attrib.neuron(model, "third", (1, 2, 3))
    found = attrib.layer(attrib.saliency, f, "second")(x)
    h = model.second(F.relu(model.norm(model.first(x)))).detach().requires_grad_()
    around = F.relu(model.norm(model.first(x))).detach()
    (truth,) = torch.autograd.grad(model.third(F.relu(h) + around)[:, 1, 2, 3].sum(), h)
    assert relative(found, truth) <= EXACT
    with pytest.raises(attrib.AttribError, match="never reached"):
        attrib.layer(attrib.saliency, attrib.neuron(model, "second", (0, 0, 0)), "third")(x)


# --- composition --------------------------------------------------------------------------------


METHODS: dict[str, Callable[[Any], Any]] = {
    "activation": lambda f: attrib.activation(f, "second"),
    "saliency": lambda f: attrib.layer(attrib.saliency, f, "second"),
    "integrated gradients": lambda f: attrib.layer(
        lambda f: attrib.integrated_gradients(f, steps=4), f, "second"
    ),
    "deep_lift": lambda f: attrib.layer(attrib.deep_lift, f, "second"),
    "several": lambda f: attrib.gradient_x_activation(f, {"a": "second", "b": "first"}),
    "neuron": lambda f: attrib.saliency(attrib.neuron(f.models[0], "second", (1, 2, 3))),
}
methods = pytest.mark.parametrize("name", METHODS)


def close(a: Any, b: Any, tolerance: float = EXACT) -> bool:
    return all(
        relative(p, q) <= tolerance
        for p, q in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    )


@methods
def test_vmap_is_the_loop(name: str) -> None:
    attribute, x = METHODS[name](attrib.target(residual(True), 1)), images(3)
    mapped = torch.vmap(lambda x: pytree.tree_map(lambda a: a[0], attribute(x[None])))(x)
    assert close(mapped, attribute(x))


@methods
def test_compiled_is_eager(name: str) -> None:
    attribute, x = METHODS[name](attrib.target(residual(True), 1)), images()
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(attribute, fullgraph=True, backend="aot_eager")
        assert close(compiled(x), attribute(x))


def test_a_structure_is_the_same_when_it_is_compiled() -> None:
    _, x = structured()
    torch.compiler.reset()

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keyword = Keyword()

        def forward(self, x: Tensor) -> Tensor:
            return self.keyword(hidden=x, scale=None)["h"]

    read = attrib.activation(Inner(), "keyword")
    with torch.no_grad():
        compiled = torch.compile(read, fullgraph=True, backend="aot_eager")(x)
    assert pytree.tree_structure(compiled) == pytree.tree_structure(read(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forward mode, in torch itself
@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("activation", "several")])
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    attribute, x = METHODS[name](attrib.target(residual(True), 1)), images()
    weight = torch.randn_like(attribute(x))
    loss = lambda x: (attribute(x) * weight).sum()
    slope = torch.func.grad(loss)(x)
    direction, step = torch.randn_like(x), 1e-6
    truth = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert abs((slope * direction).sum() - truth) <= 1e-6 * (slope * direction).abs().sum()
    tangent = torch.func.jvp(loss, (x,), (direction,))[1]
    assert abs(tangent - truth) <= 1e-6 * (slope * direction).abs().sum()


def test_parameters_of_a_functional_call_have_derivatives_too() -> None:
    model = residual(True)
    method = lambda f: _as_input(attrib.layer(attrib.deep_lift, f, model.third))
    check_derivatives(method, model, images())


def _as_input(attribute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An attribution as large as the input."""
    return lambda x: x * attribute(x).square().sum((1, 2, 3), keepdim=True)


# --- manners ------------------------------------------------------------------------------------


def state(model: nn.Module) -> list[Any]:
    return [
        (name, id(module), module.training, dict(vars(module)), list(module._forward_hooks))
        for name, module in model.named_modules()
    ]


@kinds
def test_nothing_is_left_behind(kind: str) -> None:
    model, x = residual(), images()
    before, shown = state(model), copy.deepcopy(model.state_dict())
    f = score(model, kind)
    attrib.layer(attrib.integrated_gradients, f, model.second)(x)
    model.last.forward = lambda h: 1 / 0
    with pytest.raises(ZeroDivisionError):
        attrib.layer(attrib.saliency, f, model.second)(x)
    with pytest.raises(ZeroDivisionError):
        attrib.activation_and_gradient(f, model.second)(x)
    del model.last.forward
    assert str(state(model)) == str(before)
    assert all(torch.equal(value, shown[name]) for name, value in model.state_dict().items())


def test_threads_do_not_see_what_modules_keep() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.inner(x)
            return 2 * self.kept

    model = nn.Sequential(Keeping(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double().eval()
    x = torch.randn(2, 3, dtype=torch.float64)
    plain, wrong = model(x), list[Any]()

    def explain() -> None:
        for _ in range(40):
            attrib.layer(attrib.saliency, attrib.target(model, 0), "1")(x)

    def predict() -> None:
        try:
            for _ in range(400):
                wrong.extend([1] * (not torch.equal(model(x), plain) or model[0].kept.is_meta))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=t) for t in (explain, predict)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


@kinds
def test_threads_do_not_see_each_other(kind: str) -> None:
    model, x = residual(), images()
    f = score(model, kind)
    truth, plain = attrib.layer(attrib.saliency, f, model.second)(x), model(x)
    wrong: list[str] = []

    def explain() -> None:
        for _ in range(10):
            found = attrib.layer(attrib.saliency, f, model.second)(x)
            wrong.extend(["attribution"] * (relative(found, truth) > EXACT))

    def predict() -> None:
        for _ in range(100):
            wrong.extend(["prediction"] * (not torch.equal(model(x), plain)))

    threads = [threading.Thread(target=t) for t in (explain, predict, explain, predict)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


class Viewed(nn.Module):
    """Insists on the memory layout of its images, behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = attrib.tap("h", self.first(x))
        return self.last(h.view(len(h), -1))


@pytest.mark.parametrize("where", ["first", "h"])
def test_a_model_that_views_its_images_is_called_once_for_a_site(where: str) -> None:
    model, x = Viewed().double().eval(), images()
    truth = model.first(x)
    weight = model.last.weight[1].reshape(4, 4, 4).expand_as(truth)
    for recording in (False, True):
        with torch.set_grad_enabled(recording):
            f = attrib.target(model, 1)
            activation, gradient = attrib.activation_and_gradient(f, where)(x)
            assert relative(activation, truth) <= EXACT
            assert relative(gradient, weight) <= EXACT
            assert relative(attrib.activation(model, where)(x), truth) <= EXACT
            found = attrib.layer(attrib.integrated_gradients, f, where)(x)
            assert relative(found, weight * (truth - model.first(0 * x))) <= EXACT
    with torch.no_grad():
        other = attrib.activation_patching(attrib.target(model, 1), where)(x, x.flip(0))
    assert relative(other, model(x)[:, 1] - model(x.flip(0))[:, 1]) <= EXACT or other.ndim == 1


def test_a_layer_has_the_targets_of_the_examples_it_is_asked_for() -> None:
    model, x = residual(), images(3)
    each = torch.tensor([0, 2, 1])
    method = attrib.layer(attrib.saliency, attrib.target(model, each), "last")
    found = attrib.smooth_grad(method, std=0.1, samples=4, chunk_size=4)(x)  # before any other call
    assert relative(found, torch.eye(4).double()[each]) <= EXACT


def test_a_layer_may_have_a_set_of_baselines() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, rows = torch.randn(2, 4).double(), torch.randn(5, 4).double()
    f = attrib.target(model, 1)
    games = lambda f: attrib.shapley_values(f, interventional=True)
    found = attrib.layer(games, f, "1")(x, rows)
    truth = model[2].weight[1] * (model[:2](x) - model[:2](rows).mean(0))
    assert relative(found, truth) <= EXACT


def test_an_encoder_with_padding_has_sites_without_gradients_too() -> None:
    torch.manual_seed(0)
    part = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(part, 2).double().eval()
    score = lambda out: out[:, 0].square().sum(-1)
    f, (x, other) = attrib.target(encoder, score), torch.randn(2, 3, 5, 8).double()
    mask = torch.arange(5) >= torch.tensor([[5], [3], [4]])
    found = {}
    for recording in (True, False):
        with torch.set_grad_enabled(recording):
            patched = attrib.activation_patching(f, "layers.0")(x, other, None, mask)
            integrated = attrib.layer(attrib.integrated_gradients, f, "layers.0")
            found[recording] = patched, integrated(x, other, None, mask)
    for graph, plain in zip(found[True], found[False], strict=True):
        # Differences of scores of order ten.
        assert (plain - graph).abs().max() <= 10 * EXACT
        assert plain.abs().max() > 1e-6


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # of the model alone
@pytest.mark.parametrize("method", ["deep_lift", "secant", "lrp"])
def test_an_encoder_with_padding_follows_rules_as_the_encoder_without_it(method: str) -> None:
    """Torch would cut padding off in tensors of rows of different lengths, which have no rules."""
    torch.manual_seed(0)
    part = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(part, 2).double().eval()
    f, x = attrib.target(encoder, lambda out: out[:, 0].square().sum(-1)), torch.randn(3, 5, 8)
    x, lengths = x.double(), [5, 3, 4]
    mask = torch.arange(5) >= torch.tensor(lengths)[:, None]

    def of(x: Tensor, mask: Tensor | None) -> Tensor:
        if method == "lrp":
            return attrib.lrp(f)(x, None, mask)
        if method == "deep_lift":
            return attrib.deep_lift(f)(x, 0, None, mask)
        return attrib.integrated_gradients(f, steps=3, quadrature="secant")(x, 0, None, mask)

    for recording in (True, False):
        with torch.set_grad_enabled(recording):
            found = of(x, mask)
            for row, length in enumerate(lengths):
                alone = of(x[row : row + 1, :length], None)
                assert relative(found[row, :length], alone[0]) <= 1e-10
                assert found[row, length:].abs().sum() == 0


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("method", ["conductance", "neuron_conductance", "activation_and_gradient"])
def test_a_site_that_does_not_have_the_examples_in_front_is_refused_in_words(
    method: str, recording: bool
) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.lstm(x)[0][:, -1])

    f, x = attrib.target(Recurrent().eval(), 1), torch.randn(2, 5, 3)
    options = ((4, 2),) if method == "neuron_conductance" else ()
    with torch.set_grad_enabled(recording), pytest.raises(attrib.AttribError) as error:
        getattr(attrib, method)(f, "lstm", *options)(x)  # its states have layers in front
    assert error.value.code == "site.batch"


@pytest.mark.parametrize("recording", [True, False])
def test_a_site_may_yield_one_number_for_every_example_of_many_batch_dimensions(
    recording: bool,
) -> None:
    f = lambda x: attrib.tap("h", x.square().sum(-1)).square()
    x = torch.randn(2, 4, 3).double()
    h = x.square().sum(-1)
    with torch.set_grad_enabled(recording):
        activation, gradient = attrib.activation_and_gradient(f, "h")(x)
        assert relative(activation, h) <= EXACT and relative(gradient, 2 * h) <= EXACT
        assert relative(attrib.conductance(f, "h", quadrature="secant")(x), h.square()) <= 1e-6
        neuron = attrib.neuron(f, "h", lambda h: h)
        assert relative(attrib.saliency(neuron)(x), 2 * x) <= EXACT
        elementwise = lambda x: attrib.tap("h", x.square())
        with pytest.raises(attrib.AttribError) as error:
            attrib.activation_and_gradient(elementwise, "h")(x[0])
        assert error.value.code == "score.shape"


def test_scripted_code_is_refused_as_a_site() -> None:
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is old
        scripted = torch.jit.script(plain)
    for where in ("0", dict(scripted.named_modules())["0"]):
        with pytest.raises(attrib.AttribError) as error:
            attrib.activation(scripted, where)(torch.randn(2, 3))
        assert error.value.code == "site.scripted"


def test_a_layer_of_what_is_behind_a_layer_is_a_layer() -> None:
    model, x = residual(), images()
    f = attrib.target(model, 1)
    for where in ("third", model.third):
        inner = partial(attrib.layer, attrib.integrated_gradients, site=where)
        found = attrib.layer(inner, f, "first")(x)
        head, tail = attrib.split(f, "first")
        h, start = head(x), head(torch.zeros_like(x))
        assert relative(found.flatten(1).sum(1), tail(h, x) - tail(start, x)) <= 1e-3
        alone = attrib.layer(attrib.saliency, f, where)(x)
        inner = partial(attrib.layer, attrib.saliency, site=where)
        assert relative(attrib.layer(inner, f, "first")(x), alone) <= EXACT


def test_a_model_that_changes_is_seen_as_it_is() -> None:
    model, x = residual(), images()
    _, tail = attrib.split(attrib.target(model, 1), "third")
    h = attrib.activation(model, "third")(x)
    model.last = nn.Linear(6, 4).double()
    assert relative(tail(h, x), model(x)[:, 1]) <= EXACT


def test_a_compiled_model_is_explained_by_what_it_was_compiled_from() -> None:
    model, x = residual(), images()
    truth = attrib.layer(attrib.deep_lift, attrib.target(model, 1), "second")(x)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    for site in ("second", model.second):
        found = attrib.layer(attrib.deep_lift, attrib.target(compiled, 1), site)(x)
        assert relative(found, truth) <= EXACT


def test_a_part_that_is_compiled_is_a_site() -> None:
    torch.compiler.reset()
    plain, last = nn.Sequential(nn.Linear(6, 5), nn.Tanh()).double(), nn.Linear(5, 2).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    model = nn.Sequential(torch.compile(plain, backend="eager"), last)
    f = attrib.target(model, 1)
    for where in (model[0], "0"):
        activation, gradient = attrib.activation_and_gradient(f, where)(x)
        assert relative(activation, plain(x)) <= EXACT
        assert relative(gradient, last.weight[1].expand(3, 5)) <= EXACT
    assert not model[0]._forward_hooks
    assert not plain._forward_hooks
    with pytest.raises(attrib.AttribError, match=r"inside of what torch\.compile calls as a whole"):
        attrib.activation(f, plain[0])(x)


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", [False, True])
def test_a_dead_branch_is_refused_by_name(recording: bool) -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dead, self.deaf, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.dead(x)
            return self.last(self.deaf(x))

    model, x = Dead().eval(), torch.randn(2, 3)
    f = attrib.target(model, 1)
    with torch.set_grad_enabled(recording):
        for attribute in (
            attrib.layer(attrib.saliency, f, "dead"),
            attrib.layer(attrib.feature_ablation, f, "dead"),
            attrib.gradient_x_activation(f, "dead"),
            attrib.conductance(f, "dead"),
            attrib.conductance(f, "dead", quadrature="secant"),
        ):
            with pytest.raises(attrib.AttribError, match=r"'dead'.*near names: 'deaf'") as error:
                attribute(x)
            assert error.value.code == "site.unused"
    with pytest.raises(attrib.AttribError, match="'Linear'; the model does not use") as error:
        attrib.layer(attrib.saliency, lambda x: model(x)[..., 1], model.dead)(x)
    assert error.value.code == "site.unused"
    model.last.register_forward_hook(lambda *_: None)  # which must be shown numbers
    with pytest.raises(attrib.AttribError, match=r"'dead'.*near names: 'deaf'"):
        attrib.layer(attrib.saliency, f, "dead")(x)


def test_calls_behind_each_other_are_refused_together() -> None:
    model, x = residual(), images()
    f = attrib.target(model, 1)
    for attribute in (
        attrib.layer(attrib.integrated_gradients, f, Site("relu", call="all")),
        attrib.conductance(f, Site("relu", call="all"), quadrature="secant"),
    ):
        with pytest.raises(attrib.AttribError, match="behind another"):
            attribute(x)


@pytest.mark.parametrize(
    ("site", "code", "words"),
    [
        (3, "site.type", "module or a name"),
        ([], "site.type", "at least one"),
        ("secnd", "site.unknown", "near names: 'second'"),
        (nn.ReLU(), "site.unreached", "never reached"),
        ("unused", "site.unreached", "'unused', a Linear.*near names"),
        (Site("second", batch_dim=9), "site.batch", "no dimension 9"),
        (Site("second", leaf="x"), "site.leaf", "nothing at leaf 'x'"),
        (Site("secnd", of="input"), "site.unknown", "near names"),
    ],
)
def test_a_site_that_is_none_is_refused(site: Any, code: str, words: str) -> None:
    model = residual()
    model.unused = nn.Linear(2, 2)
    with pytest.raises(attrib.AttribError, match=words) as error:
        attrib.activation(model, site)(images())
    assert error.value.code == code


def test_options_of_a_site_are_checked() -> None:
    for options, code in (
        ({"of": "inside"}, "site.of"),
        ({"call": -1}, "site.call"),
        ({"call": 1.0}, "site.call"),
        ({"leaf": 1.5}, "site.type"),
        ({"leaf": ("h", None)}, "site.type"),
        ({"batch_dim": 1.0}, "site.type"),
    ):
        with pytest.raises(attrib.AttribError) as error:
            Site("x", **options)
        assert error.value.code == code


def test_a_name_without_a_model_is_refused() -> None:
    with pytest.raises(attrib.AttribError, match="pass the module itself") as error:
        attrib.activation(lambda x: residual()(x), "second")(images())
    assert error.value.code == "site.unknown"


def test_examples_that_are_not_in_front_are_refused() -> None:
    model, x = structured()
    with pytest.raises(attrib.AttribError, match="batch_dim") as error:
        attrib.layer(attrib.saliency, attrib.target(model, 1), Site("lstm", leaf=(1, 0)))(x)
    assert error.value.code == "site.batch"
    with pytest.raises(attrib.AttribError, match="batch_dim"), torch.no_grad():
        attrib.activation_and_gradient(attrib.target(model, 1), Site("lstm", leaf=(1, 0)))(x)


def test_integers_need_a_baseline_of_their_own() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(attrib.AttribError) as error:
        attrib.layer(attrib.integrated_gradients, attrib.target(model, 0), "0")(ids)
    assert error.value.code == "baseline.missing"


def test_a_compiler_cannot_watch_a_module_of_an_unknown_model() -> None:
    model, x = residual(), images()
    attribute = attrib.layer(attrib.saliency, score(model, "closure"), model.second)
    torch.compiler.reset()
    with pytest.raises(Exception, match="cannot be watched by a compiler"):
        torch.compile(attribute, fullgraph=True, backend="eager")(x)


@pytest.mark.parametrize("wrapped", ["smooth", "lambda"])
def test_a_method_made_of_others_is_given_nothing_else_than_its_own(wrapped: str) -> None:
    # A method whose arguments are not known must not take the input for its baseline.
    torch.manual_seed(0)
    before, behind = nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2))
    model = nn.Sequential(before, behind).double().eval()
    x, start = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def method(f: Any) -> Any:
        inner = attrib.integrated_gradients(f)
        if wrapped == "lambda":
            return lambda x, *args: inner(x, *args)
        return attrib.smooth(inner, lambda x: x + 0, samples=2)

    truth = attrib.integrated_gradients(attrib.target(behind, 1))
    found = attrib.layer(method, attrib.target(model, 1), "0")
    if wrapped == "lambda":
        assert relative(found(x), truth(before(x))) <= EXACT
    else:
        assert relative(found(x, start), truth(before(x), before(start))) <= EXACT


def test_rows_of_a_baseline_that_goes_on_with_different_inputs_are_not_shared() -> None:
    # The baseline at the site is the same for all examples, what goes around it is not.
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x) + 3 * x))

    model = Around().double().eval()
    x = torch.randn(6, 3, dtype=torch.float64)
    f = attrib.target(model, 1)
    with torch.no_grad():
        together = attrib.layer(attrib.deep_lift, f, "first")(x)
        alone = torch.cat([attrib.layer(attrib.deep_lift, f, "first")(row[None]) for row in x])
    assert relative(together, alone) <= EXACT
