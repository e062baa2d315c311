"""Scores: one number per example out of anything a model takes and returns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrib

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
W = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


class Model(nn.Module):
    """Logits of five classes, in whatever form."""

    def __init__(self, form: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.weight = nn.Parameter(W.clone())
        self.form = form
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.form(F.linear(x, self.weight).tanh())


LOGITS = F.linear(X, W).tanh()


@pytest.mark.parametrize("index", [0, 3, -1, -5, torch.tensor(2), torch.tensor(-2), (4,)])
def test_an_integer_selects_a_class(index: Any) -> None:
    place = int(index[0]) if isinstance(index, tuple) else int(index)
    assert torch.equal(attrib.target(Model(), index)(X), LOGITS[:, place])
    assert torch.equal(attrib.target(lambda x: Model()(x), index)(X), LOGITS[:, place])


def test_a_numpy_integer_is_an_integer() -> None:
    np = pytest.importorskip("numpy")
    assert torch.equal(attrib.target(Model(), np.int64(2))(X), LOGITS[:, 2])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_a_tensor_selects_one_class_for_each_example(dtype: torch.dtype) -> None:
    index = torch.tensor([4, 0, 2, 2]).to(dtype)
    expected = LOGITS[torch.arange(4), index.long()]
    assert torch.equal(attrib.target(Model(), index)(X), expected)


def test_negative_entries_of_a_tensor_count_from_the_end() -> None:
    index = torch.tensor([-1, 0, -5, 2])
    expected = LOGITS[torch.arange(4), index]
    assert torch.equal(attrib.target(Model(), index)(X), expected)


def test_a_tensor_without_dimensions_is_an_integer_that_vmap_can_map() -> None:
    model = Model()
    found = torch.vmap(lambda i: attrib.target(model, i)(X))(torch.arange(5))
    assert torch.equal(found, LOGITS.T)


def test_a_tuple_selects_from_the_last_dimensions() -> None:
    dense = lambda logits: torch.stack([logits, -logits], 1)[..., None]  # (batch, 2, 5, 1)
    assert torch.equal(attrib.target(Model(dense), (1, 3, 0))(X), -LOGITS[:, 3])
    assert torch.equal(attrib.target(Model(dense), (0, -1, -1))(X), LOGITS[:, -1])


def test_a_function_selects_anything() -> None:
    expected = LOGITS.amax(-1)
    assert torch.equal(attrib.target(Model(), lambda logits: logits.amax(-1))(X), expected)
    both = Model(lambda logits: {"a": logits, "b": 2 * logits})
    found = attrib.target(both, lambda out: out["b"].amax(-1))(X)
    assert torch.equal(found, 2 * expected)


@pytest.mark.parametrize("form", [lambda y: y[:, 0], lambda y: y[:, :1]])
def test_one_number_per_example_needs_no_index(form: Callable[[Tensor], Tensor]) -> None:
    assert torch.equal(attrib.target(Model(form))(X), LOGITS[:, 0])
    assert torch.equal(attrib.target(Model(form))(X[:1]), LOGITS[:1, 0])


class Named(NamedTuple):
    loss: Tensor | None
    logits: Tensor


@dataclass
class Record:
    logits: Tensor
    hidden: Tensor


class ModelOutput(OrderedDict[str, Any]):
    """What the transformers library returns, in short."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


STRUCTURES: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "tuple of one": (lambda y: (y,), None),
    "list of one": (lambda y: [y], None),
    "tuple with extras": (lambda y: (y, None, "text"), None),
    "dict of one": (lambda y: {"scores": y}, None),
    "dict with logits": (lambda y: {"hidden": -y, "logits": y}, None),
    "namedtuple": (lambda y: Named(None, y), None),
    "dataclass": (lambda y: Record(y, -y), None),
    "model output": (lambda y: ModelOutput(hidden=-y, logits=y), None),
    "key": (lambda y: {"a": -y, "b": y}, "b"),
    "attribute": (lambda y: Record(-y, y), "hidden"),
    "position": (lambda y: (-y, y), 1),
    "position from the end": (lambda y: [-y, y], -1),
    "position in a dict": (lambda y: ModelOutput(a=-y, b=y), 1),
    "function": (lambda y: {"a": [-y, y]}, lambda out: out["a"][1]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_output_is_found_in_any_structure(name: str) -> None:
    form, output = STRUCTURES[name]
    assert torch.equal(attrib.target(Model(form), 2, output=output)(X), LOGITS[:, 2])
    expected = LOGITS.softmax(-1)[:, 2]
    assert torch.equal(attrib.prob(Model(form), 2, output=output)(X), expected)


@pytest.mark.parametrize(
    ("form", "output", "code"),
    [
        (lambda y: (y, y), None, "model.output"),
        (lambda y: {"a": y, "b": y}, None, "model.output"),
        (lambda y: None, None, "model.output"),
        (lambda y: y.tolist(), None, "model.output"),
        (lambda y: {"a": y}, "b", "output.unknown"),
        (lambda y: (y,), 1, "output.unknown"),
        (lambda y: y.argmax(-1), None, "model.output_dtype"),
        (lambda y: y.to(torch.complex64), None, "model.output_dtype"),
    ],
)
def test_an_output_that_is_not_clear_is_refused(form: Any, output: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as refusal:
        attrib.target(Model(form), 0, output=output)(X)
    assert refusal.value.code == code


def test_x_is_passed_as_the_model_takes_it() -> None:
    class Pair(nn.Module):
        def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
            return scale * (a - 2 * b)

    a, b = torch.randn(4, 3), torch.randn(4, 3)
    expected = (a - 2 * b)[:, 1]
    f = attrib.target(Pair(), 1)
    assert torch.equal(f(a, b), expected)
    assert torch.equal(f((a, b)), expected)
    assert torch.equal(f([a, b]), expected)
    assert torch.equal(f({"b": b, "a": a}), expected)
    assert torch.equal(f((a, b), 3.0), 3 * expected)
    assert torch.equal(f({"b": b}, a), expected)


def test_prob_and_log_prob_are_softmax_and_its_logarithm() -> None:
    p = LOGITS.softmax(-1)
    index = torch.tensor([4, 0, 2, 2])
    rows = torch.arange(4)
    assert torch.equal(attrib.prob(Model(), 3)(X), p[:, 3])
    assert torch.equal(attrib.prob(Model(), index)(X), p[rows, index])
    torch.testing.assert_close(attrib.log_prob(Model(), 3)(X), p[:, 3].log())
    torch.testing.assert_close(attrib.log_prob(Model(), index)(X), p[rows, index].log())
    dense = lambda logits: logits[..., None].expand(-1, -1, 2)  # classes in dimension 1
    found = attrib.prob(Model(dense), (3, 1), dim=1)(X)
    torch.testing.assert_close(found, p[:, 3])


def test_a_log_probability_is_exact_where_the_probability_vanishes() -> None:
    f = attrib.log_prob(nn.Identity(), 0)
    x = torch.tensor([[-200.0, 0.0]])
    assert float(f(x)) == -200
    assert torch.equal(attrib.saliency(f)(x), torch.tensor([[1.0, -1.0]]))


def test_a_contrast_is_a_difference() -> None:
    model = Model()
    f, g = attrib.target(model, 1), attrib.target(model, 4)
    assert torch.equal(attrib.contrast(f, g)(X), LOGITS[:, 1] - LOGITS[:, 4])
    plain = attrib.contrast(lambda x: f(x), g)
    assert torch.equal(plain(X), LOGITS[:, 1] - LOGITS[:, 4])


PER_TARGET: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "saliency": (attrib.saliency, ()),
    "input_x_gradient": (attrib.input_x_gradient, ()),
    "integrated_gradients": (lambda f: attrib.integrated_gradients(f, steps=6), (0.5,)),
    "expected_gradients": (
        lambda f: attrib.expected_gradients(f, samples=4),
        (torch.zeros(2, 3),),
    ),
    "smooth_grad": (lambda f: attrib.smooth_grad(attrib.saliency(f), 0.1, samples=4), ()),
}


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "no_grad"])
@pytest.mark.parametrize("name", PER_TARGET)
def test_per_target_is_a_loop_over_targets(name: str, recorded: bool) -> None:
    method, extra = PER_TARGET[name]
    model = Model()
    targets = [3, 0, -1]
    with torch.set_grad_enabled(recorded):
        expected = torch.stack([method(attrib.target(model, t))(X, *extra) for t in targets])
        for chosen in (targets, tuple(targets), torch.tensor(targets)):
            for chunk_size in (None, 1, 2, "auto"):
                attribute = attrib.per_target(method, model, chosen, chunk_size=chunk_size)
                torch.testing.assert_close(attribute(X, *extra), expected)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "no_grad"])
@pytest.mark.parametrize("name", ["saliency", "input_x_gradient", "integrated_gradients"])
def test_per_target_needs_one_forward_pass_for_all_targets(name: str, recorded: bool) -> None:
    method, extra = PER_TARGET[name]
    model = Model()
    with torch.set_grad_enabled(recorded):
        attrib.per_target(method, model, range(5))(X, *extra)
        assert model.calls == 1
        attrib.per_target(method, model, range(5), chunk_size=2)(X, *extra)
        assert model.calls == 1 + 3
        for index in range(5):
            method(attrib.target(model, index))(X, *extra)
        assert model.calls == 1 + 3 + 5


def test_per_target_takes_structures_and_functions() -> None:
    model = Model(lambda y: (y, -y))
    found = attrib.per_target(attrib.saliency, model, [1, 2], output=1)(X)
    expected = torch.stack([attrib.saliency(attrib.target(model, i, output=1))(X) for i in (1, 2)])
    torch.testing.assert_close(found, expected)
    log_probabilities = attrib.per_target(
        attrib.saliency, lambda x: Model()(x).log_softmax(-1), [1, 2]
    )(X)
    expected = torch.stack([attrib.saliency(attrib.log_prob(Model(), i))(X) for i in (1, 2)])
    torch.testing.assert_close(log_probabilities, expected)


def test_per_target_has_derivatives_in_a_training_loop() -> None:
    model = Model()
    attrib.per_target(attrib.saliency, model, [0, 4])(X).square().sum().backward()
    found = model.weight.grad
    model.weight.grad = None
    sum(attrib.saliency(attrib.target(model, i))(X).square().sum() for i in (0, 4)).backward()
    torch.testing.assert_close(found, model.weight.grad)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str, str]] = {
    "too large": (lambda: attrib.target(Model(), 5), ValueError, "target.range", "5 is out of"),
    "too small": (lambda: attrib.target(Model(), -6), ValueError, "target.range", r"\[-5, 4\]"),
    "entry too large": (
        lambda: attrib.target(Model(), torch.tensor([0, 1, 2, 9])),
        ValueError,
        "target.range",
        "9 is out of range for a model with 5 outputs",
    ),
    "too many entries": (
        lambda: attrib.target(Model(), torch.zeros(3).long()),
        ValueError,
        "target.shape",
        "examples",
    ),
    "missing": (lambda: attrib.target(Model()), ValueError, "target.missing", "index: missing"),
    "tuple too long": (
        lambda: attrib.target(Model(), (0, 0, 0)),
        ValueError,
        "target.shape",
        "expected",
    ),
    "dense output": (
        lambda: attrib.target(Model(lambda y: y[..., None]), 0),
        ValueError,
        "target.shape",
        "a tuple of 2 integers",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_index_that_does_not_fit_the_output_is_refused(name: str) -> None:
    make, kind, code, text = BAD[name]
    for call in (lambda f: f(X), lambda f: attrib.saliency(f)(X)):
        with pytest.raises(kind, match=text) as refusal:
            call(make())
        assert isinstance(refusal.value, attrib.AttribError)
        assert refusal.value.code == code


@pytest.mark.parametrize("index", [1.0, "3", True, torch.tensor([0.5]), [0, 1]])
def test_an_index_of_another_type_is_refused_before_the_model_is_called(index: Any) -> None:
    model = Model()
    with pytest.raises(TypeError, match="index: ") as refusal:
        attrib.target(model, index)
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == "target.type" and model.calls == 0


def test_an_index_with_two_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="index: ") as refusal:
        attrib.target(Model(), torch.zeros(4, 1).long())
    assert isinstance(refusal.value, attrib.AttribError)


def test_no_targets_and_fractions_of_targets_are_refused() -> None:
    for targets in ([], [0.5], torch.tensor([0.5]), torch.zeros(2, 2).long()):
        with pytest.raises(TypeError, match="targets: ") as refusal:
            attrib.per_target(attrib.saliency, Model(), targets)
        assert isinstance(refusal.value, attrib.AttribError)


TRAINING = {
    "batch norm": nn.BatchNorm1d(3),
    "dropout": nn.Dropout(0.5),
    "random relu": nn.RReLU(),
}


@pytest.mark.parametrize("name", TRAINING)
def test_a_model_in_train_mode_whose_score_depends_on_it_is_refused(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), TRAINING[name]).train()
    with pytest.raises(ValueError, match="module '1' is in train mode") as refusal:
        attrib.saliency(attrib.target(model, 0))(X)
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == "model.training"
    attrib.saliency(attrib.target(model.eval(), 0))(X)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_norm_without_statistics_mixes_examples_and_is_refused(training: bool) -> None:
    norm = nn.BatchNorm1d(3, track_running_stats=False)
    model = nn.Sequential(nn.Linear(3, 3), norm).train(training)
    with pytest.raises(ValueError, match="module '1' has no statistics") as refusal:
        attrib.saliency(attrib.target(model, 0))(X)
    assert isinstance(refusal.value, attrib.AttribError)
    assert refusal.value.code == "model.statistics"
    alone = nn.Sequential(nn.InstanceNorm1d(3), nn.Flatten(), nn.Linear(9, 3)).eval()
    attrib.saliency(attrib.target(alone, 0))(X[..., None].expand(-1, 3, 3))


def test_a_model_in_train_mode_whose_score_does_not_care_is_accepted() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Dropout(0.0), nn.ReLU()).train()
    attrib.saliency(attrib.target(model, 0))(X)
    assert model.training


def test_a_random_score_is_explained_when_it_is_asked_for() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    assert attrib.saliency(attrib.target(model, 0, stochastic=True))(X).shape == X.shape
    norm = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    with pytest.raises(attrib.AttribError):
        attrib.saliency(attrib.target(norm, 0, stochastic=True))(X)


@pytest.mark.parametrize("make", [attrib.target, attrib.prob, attrib.log_prob])
def test_a_model_is_callable(make: Any) -> None:
    with pytest.raises(TypeError, match="model: ") as refusal:
        make(W, 0)
    assert isinstance(refusal.value, attrib.AttribError)
