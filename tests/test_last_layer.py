"""Of a last linear layer, one output is computed, unless the model does anything else with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

import attrib

# torch says so itself, where it compiles and in forward mode.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning"
)

ROWS = 2048
CLASSES = 40


class Net(nn.Module):
    """One hidden layer; what is done around the last one is what the tests change."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 32), nn.Tanh())
        self.head = nn.Linear(32, CLASSES)
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


class Scaled(Net):
    def forward(self, x: Tensor) -> Any:
        return 2 * super().forward(x)


class Clamped(Net):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits.clamp_(-0.1, 0.1)


class OfTheSameWeights(Net):
    def forward(self, x: Tensor) -> Any:
        return torch.nn.functional.linear(self.body(x), self.head.weight, self.head.bias)


class Twice(Net):
    def forward(self, x: Tensor) -> Any:
        h = self.body(x)
        return self.head(h + self.head(h).mean(-1, keepdim=True))


class Written(Net):
    """Writes to what the last layer was given, when told to."""

    late = False

    def __init__(self) -> None:
        super().__init__()
        self.head.requires_grad_(False)  # or autograd would refuse it

    def forward(self, x: Tensor) -> Any:
        h = self.body(x).clone()
        logits = self.head(h)
        if self.late:
            with torch.no_grad():
                h.zero_()
        return logits


class Later(Net):
    """Does something with its outputs, when told to."""

    late = False

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits.relu_() if self.late else logits


class Swallowing(Net):
    """Does something with its outputs, when told to, and minds no error."""

    late = False

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        if self.late:
            try:
                if bool((logits > 0).any()):
                    logits = logits + 1
            except (RuntimeError, NotImplementedError):
                logits = logits - 1
        return logits


class Keeping(Net):
    def forward(self, x: Tensor) -> Any:
        self.kept = super().forward(x)
        return self.kept


class Listing(Net):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        self.kept[:] = [logits]
        return logits


class Counting(Net):
    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return super().forward(x)


class Frozen(Net):
    def forward(self, x: Tensor) -> Any:
        h = self.body(x)
        with torch.no_grad():
            fixed = self.head(h)
        return fixed + 0 * h.sum(-1, keepdim=True)


class Detached(Net):
    def forward(self, x: Tensor) -> Any:
        h = self.body(x)
        with torch.no_grad():
            return self.head(h)


class Checkpointed(Net):
    def forward(self, x: Tensor) -> Any:
        with set_checkpoint_early_stop(False):
            return checkpoint(super().forward, x, use_reentrant=False)


class Autocasting(Net):
    def forward(self, x: Tensor) -> Any:
        h = self.body(x)
        with torch.autocast("cpu", torch.bfloat16):
            return self.head(h)


class InPlace(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2))


class InPlaceLater(Later):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2))


class InDict(Net):
    def forward(self, x: Tensor) -> Any:
        return {"hidden": self.body(x), "logits": self.head(self.body(x))}


class Sequence(Net):
    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x.reshape(len(x), 2, 3).repeat(1, 1, 2)))


class Compiled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.compile(self.body, backend="eager")


ALIKE = (
    *(Net, Scaled, Clamped, OfTheSameWeights, Twice, Written, Later, Swallowing, Keeping, Listing),
    *(Counting, Checkpointed, InPlace, InPlaceLater, InDict, Compiled),
)


def _built(kind: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return kind().double().eval()


def _x() -> Tensor:
    return torch.randn(ROWS, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _logits(model: Any, x: Tensor) -> Tensor:
    result = model(x.clone())
    return result["logits"] if isinstance(result, dict) else result


def _layers(call: Callable[[], Any]) -> list[Any]:
    """The shapes of the weights that a call multiplies by."""
    with torch.profiler.profile(record_shapes=True) as profile:
        call()
    events = [e for e in profile.events() if e.name in ("aten::addmm", "aten::linear")]
    return [e.input_shapes[1] for e in events if e.name == "aten::linear"]


@pytest.mark.parametrize("kind", ALIKE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("index", [0, 7, -1])
def test_scores_and_gradients_are_those_of_the_model(kind: Any, index: int) -> None:
    model, x = _built(kind), _x()
    f = attrib.target(model, index)
    for turn in range(4):
        if turn == 2 and hasattr(model, "late"):
            model.late = True
        x.requires_grad_()
        expected = _logits(model, x)[:, index]
        (slope,) = torch.autograd.grad(expected.sum(), x)
        x = x.detach()
        found = attrib.gradient.score_of(f)(x)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(attrib.saliency(f)(x), slope, rtol=1e-12, atol=1e-14)


def _sequence() -> Any:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 32), nn.Tanh())
    return nn.Sequential(body, nn.Sequential(nn.Identity(), nn.Linear(32, CLASSES))).double()


@pytest.mark.parametrize("index", [0, 7, -1])
def test_one_output_is_computed(index: int) -> None:
    model, x = _sequence(), _x()
    f = attrib.target(model, index)
    with torch.no_grad():
        assert _layers(lambda: f(x)) == [[32, 6], [1, 32]]
    torch.testing.assert_close(f(x), model(x)[:, index], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", [1, 8])
def test_a_few_rows_are_not_worth_it(rows: int) -> None:
    model = _built(Net)
    f, x = attrib.target(model, 3), _x()[:rows]
    f(x)
    assert [CLASSES, 32] in _layers(lambda: f(x))


def test_positions_of_sequences() -> None:
    model, x = _sequence(), _x().reshape(512, 4, 6)
    for index in ((1, 5), (0, -1), (-1, 0)):
        f = attrib.target(model, index)
        expected = model(x)[:, index[0], index[1]]
        torch.testing.assert_close(f(x), expected, rtol=1e-12, atol=1e-14)
        assert [1, 32] in _layers(lambda f=f: f(x))
    for index in ((4, 0), (0, CLASSES)):
        with pytest.raises(attrib.AttribError, match="out of range"):
            attrib.target(model, index)(x)


def test_all_derivatives_are_those_of_the_model() -> None:
    model, x = _sequence(), _x()
    f = attrib.target(model, 3)

    def of(score: Callable[[Tensor], Tensor]) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(score(leaf).sum(), leaf, create_graph=True)
        variables = [leaf, *model.parameters()]
        found = torch.autograd.grad(first.square().sum(), variables, allow_unused=True)
        return [first, *(torch.zeros(1) if g is None else g for g in found)]

    assert [1, 32] in _layers(lambda: of(f))
    for one, other in zip(of(f), of(lambda x: model(x)[:, 3]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_layer_without_gradients_stays_so() -> None:
    x = _x()
    frozen, detached = (attrib.target(_built(kind), 3) for kind in (Frozen, Detached))
    for _ in range(3):
        assert attrib.saliency(frozen)(x).abs().max() == 0
        assert not detached(x.clone().requires_grad_()).requires_grad


def test_a_model_with_a_precision_of_its_own() -> None:
    model, x = _built(Autocasting).float(), _x().float()
    f = attrib.target(model, 3)
    for _ in range(3):
        assert f(x).dtype == torch.bfloat16
        torch.testing.assert_close(f(x), model(x)[:, 3])


@pytest.mark.parametrize("kind", [Keeping, Listing, Counting], ids=lambda kind: kind.__name__)
def test_what_a_model_keeps_is_what_it_keeps(kind: Any) -> None:
    model, x = _built(kind), _x()
    f = attrib.target(model, 3)
    for turn in range(1, 4):
        found = f(x)
        kept = getattr(model, "kept", None)
        for outputs in kept if isinstance(kept, list) else [kept]:
            assert outputs is None or torch.equal(outputs[:, 3], found)
        assert kind is not Counting or model.calls == turn


def test_hooks_see_the_layer() -> None:
    model, x, seen = _sequence(), _x(), []
    f, head = attrib.target(model, 3), model[1][1]
    handle = head.register_forward_hook(lambda m, args, out: seen.append((m, out.sum())))
    f(x)
    handle.remove()
    assert [m for m, _ in seen] == [head]
    assert torch.equal(seen[0][1], model(x).sum())
    everywhere = nn.modules.module.register_module_forward_hook(
        lambda m, args, out: seen.append((m, out)) if m is head else None
    )
    f(x)
    everywhere.remove()
    assert len(seen) == 2


def test_another_head_is_seen() -> None:
    model, x = _sequence(), _x()
    f = attrib.target(model, 3)
    f(x)
    for classes in (CLASSES, 30):
        model[1][1] = nn.Linear(32, classes).double()
        torch.testing.assert_close(f(x), model(x)[:, 3], rtol=1e-12, atol=1e-14)
    model[1][1] = nn.Linear(32, 2).double()
    with pytest.raises(attrib.AttribError, match="out of range"):
        f(x)


class Squared(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).square()


def test_another_kind_of_layer_is_called() -> None:
    model, x = _sequence(), _x()
    model[1][1] = Squared(32, CLASSES).double()
    torch.testing.assert_close(attrib.target(model, 3)(x), model(x)[:, 3], rtol=1e-12, atol=1e-14)
    model = _sequence()
    model[1].forward = lambda x: model[1][1](x) * 2
    torch.testing.assert_close(attrib.target(model, 3)(x), model(x)[:, 3], rtol=1e-12, atol=1e-14)


def test_an_index_out_of_range_is_refused() -> None:
    model, x = _sequence(), _x()
    for index in (CLASSES, -CLASSES - 1):
        f = attrib.target(model, index)
        for _ in range(3):
            with pytest.raises(attrib.AttribError, match="out of range"):
                f(x)


def test_errors_of_the_model_come_through() -> None:
    model, x = _sequence(), _x()
    f = attrib.target(model, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        f(x[:, :5])


def test_a_model_that_is_one_layer() -> None:
    model = nn.Linear(6, 200)
    x = _x().float()
    f = attrib.target(model, 3)
    f(x)
    torch.testing.assert_close(f(x), model(x)[:, 3])
    assert [1, 6] in _layers(lambda: f(x))


def test_inside_of_transforms_and_autocast() -> None:
    model, x = _sequence().float(), _x().float()
    f = attrib.target(model, 3)
    f(x)
    expected = model(x)[:, 3]
    torch.testing.assert_close(torch.vmap(lambda row: f(row[None])[0])(x), expected)
    torch.testing.assert_close(torch.func.jvp(f, (x,), (x,))[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(f(x), model(x)[:, 3])
    with torch.inference_mode():
        torch.testing.assert_close(f(x), model(x)[:, 3])
    torch.testing.assert_close(f(x), expected)


def test_modules_are_as_they_were() -> None:
    model, x = _built(Net), _x()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    f = attrib.target(model, 3)
    for _ in range(3):
        attrib.saliency(f)(x)
    for name, module in model.named_modules():
        assert all(vars(module)[key] is value for key, value in before[name].items())


def test_what_is_made_of_the_outputs_is_made() -> None:
    model, x = _sequence(), _x()
    f = attrib.target(model, 3, output=lambda logits: logits.softmax(-1))
    torch.testing.assert_close(f(x), model(x).softmax(-1)[:, 3], rtol=1e-12, atol=1e-14)
    with pytest.raises(attrib.AttribError):
        attrib.target(model, ())(x)
