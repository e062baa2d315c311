"""Where windows are followed and where not, and what following leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import attrib
from attrib import games
from attrib.games._reach import incremental, recording
from attrib.games._reach.followed import Followed
from attrib.games._reach.tape import Tape
from attrib.games.ablation import all_but_one
from laws.state import changes, snapshot
from reach import (
    BASELINE,
    FOLLOWED,
    INCREMENTAL,
    X,
    conv,
    follow_always,
    game_of,
    head,
    left_out,
    ready,
)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    follow_always(monkeypatch)


class _Products(TorchDispatchMode):
    """Counts the products of convolutions and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.count += found.numel() * args[1][0].numel()
        elif func is torch.ops.aten.addmm.default:
            self.count += found.numel() * args[1].shape[1]
        return found


def _work_of(attribute: Callable[[], Tensor]) -> int:
    with _Products() as counter, torch.no_grad():
        attribute()
    return counter.count


class _Wide(nn.Module):
    """Large enough for windows to be worth following."""

    def __init__(self, mix: nn.Module) -> None:
        super().__init__()
        first = (conv(3, 32, padding=1), nn.ReLU(), mix, conv(32, 32, padding=1), nn.ReLU())
        self.model = nn.Sequential(*first, nn.MaxPool2d(4), nn.Flatten(), nn.Linear(32 * 64, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@pytest.mark.parametrize(("window", "stride", "times"), [(8, 4, 4), (2, 4, 15)])
def test_work_is_saved(window: int, stride: int, times: float) -> None:
    model, x = _Wide(nn.Identity()).eval(), torch.randn(1, 3, 32, 32)
    f = attrib.target(model, 1)
    groups = games.windows((window, window), stride)
    spent = _work_of(lambda: games.occlusion(f, (window, window), strides=stride)(x))
    one = _work_of(lambda: f(x))
    points = games.game(f, x, groups=groups).players
    assert spent < points * one / times + 3 * one
    found = games.occlusion(f, (window, window), strides=stride)(x)
    score: Any = lambda x: model(x)[:, 1]
    plain = games.occlusion(attrib.batched(score), (window, window), strides=stride)
    torch.testing.assert_close(found, plain(x), rtol=1e-3, atol=1e-5)
    assert found.abs().max() > 1e-3


class _Score(nn.Module):
    """A function of the outputs of a wide last layer."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 128), nn.Linear(128, 32)
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.last(self.first(x).relu()))


_COLUMNS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "one": (lambda y: y.select(1, 3), 1),
    "the last": (lambda y: y.select(dim=-1, index=-1), 1),
    "one by its number": (lambda y: y[:, 3], 1),
    "the last by its number": (lambda y: y[..., -1], 1),
    "a part of a row": (lambda y: y[:, 3:5].sum(1), 32),
    "two": (lambda y: y.select(1, 0) - y.select(1, 31).square(), 2),
    "one of several functions": (lambda y: y.softmax(1).select(1, 3), 32),
    "one, and all": (lambda y: y.select(1, 3) - y.logsumexp(1), 33),
    "one of what was overwritten": (lambda y: y.relu_().select(1, 3), 32),
    "a row": (lambda y: y.t().select(0, 3), 32),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", _COLUMNS)
def test_of_the_last_layer_only_what_the_score_takes_is_computed(name: str) -> None:
    score, columns = _COLUMNS[name]
    torch.manual_seed(0)
    model, x = _Score(score).double().eval(), torch.randn(16, 64).double()
    spent = _work_of(lambda: attrib.feature_ablation(attrib.target(model))(x))
    # The first layer is changed by one column; of the evaluation of x everything is computed.
    least = 64 * 16 * columns * 128
    assert least <= spent <= 1.15 * least + 3 * 16 * (64 + 34) * 128
    found = attrib.feature_ablation(attrib.target(model))(x)
    hidden = x[:, None] * (1 - torch.eye(64)).double()
    expected = model(x)[:, None] - torch.stack([model(rows) for rows in hidden])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mix", [nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 31, padding=15)])
def test_windows_that_reach_everything_are_not_followed(mix: nn.Module) -> None:
    model, x = _Wide(mix).eval(), torch.randn(1, 3, 32, 32)
    v = games.game(attrib.target(model, 1), x, groups=games.windows((8, 8), 4))
    assert incremental(v) is v


class _Odd(nn.Module):
    """A model of which one part does what cannot be followed."""

    def __init__(self, part: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = conv(2, 4), conv(4, 4), head()
        self.part, self.kept = part, None
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.part(self, self.first(x))).relu() * self.scale)


def _written_through_a_transpose(model: Any, y: Tensor) -> Tensor:
    y.transpose(2, 3).relu_()
    return y


def _written_through_a_slice(model: Any, y: Tensor) -> Tensor:
    y[:, :, ::2].mul_(0)
    return y


def _kept_for_later(model: Any, y: Tensor) -> Tensor:
    model.kept = y
    return y


def _drawing(model: Any, y: Tensor) -> Tensor:
    return y + torch.rand(())


def _data(model: Any, y: Tensor) -> Tensor:
    return y + torch.from_numpy(y.detach().numpy()).mean()


COLLECTED: list[Tensor] = []


def _collected(model: Any, y: Tensor) -> Tensor:
    COLLECTED.append(y)
    return y


def _branching(model: Any, y: Tensor) -> Tensor:
    return y.relu() if y.sum() > 0 else y.tanh()


def _listed(model: Any, y: Tensor) -> Tensor:
    return torch.stack([row * 2 for row in y])


ODD = {
    "a list": _listed,
    "a branch": _branching,
    "collected": _collected,
    "a transpose": _written_through_a_transpose,
    "a slice": _written_through_a_slice,
    "kept": _kept_for_later,
    "numpy": _data,
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_followed_is_evaluated_plainly(name: str) -> None:
    model = ready(lambda: _Odd(ODD[name]))
    with torch.no_grad():
        v = games.game(attrib.target(model, 1), X, BASELINE, groups=games.windows((3, 3), 2))
        found, expected = incremental(v)(left_out(v)), v(left_out(v))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    kept: Any = model.kept
    assert kept is None or not kept.is_meta


PUT_TOGETHER = ("shuffled channels", "gate", "spatial attention", "inverted")


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", sorted(FOLLOWED.keys() - set(PUT_TOGETHER)))
def test_nothing_is_put_together_before_the_head(name: str) -> None:
    v = game_of(ready(FOLLOWED[name]))
    *steps, head, select = INCREMENTAL._recorded(v).tape.steps
    assert steps and all(isinstance(step.run, Followed) for step in steps)
    assert not isinstance(head.run, Followed) and not isinstance(select.run, Followed)


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return 2 * y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return 2 * gradients[0]


def _in_half(model: Any, y: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model.second(torch.nn.functional.pad(y, (1, 1, 1, 1))).to(y.dtype)


def _into_a_new_tensor(model: Any, y: Tensor) -> Tensor:
    found = torch.zeros_like(y)
    found[:, :, 1:] = y[:, :, 1:]
    return found


UNKNOWN: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "own function": lambda model, y: _Twice.apply(y),
    "autocast": _in_half,
    "a number": lambda model, y: y * y.abs().max().item(),
    "a new tensor": _into_a_new_tensor,
    "no gradient": lambda model, y: y + torch.no_grad()(torch.tanh)(y),
    "random": lambda model, y: torch.nn.functional.dropout(y, 0.0, True),
    "nested": lambda model, y: torch.vmap(torch.tanh)(y),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", UNKNOWN)
def test_a_model_that_does_something_unknown_is_not_followed(name: str) -> None:
    v = game_of(ready(lambda: _Odd(UNKNOWN[name])))
    assert incremental(v) is v


@pytest.mark.usefixtures("eager")
def test_random_numbers_are_drawn_as_often_as_plainly() -> None:
    model = ready(lambda: _Odd(_drawing))
    with torch.no_grad():
        v = games.game(attrib.target(model, 1), X, BASELINE, groups=games.windows((3, 3), 2))
        state = torch.get_rng_state()
        assert incremental(v) is v
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.usefixtures("eager")
def test_hooks_and_train_mode_are_left_alone() -> None:
    seen: list[Tensor] = []
    model = ready(FOLLOWED["batch norm"])
    f = attrib.target(model, 1, stochastic=True)
    v = games.game(f, X, BASELINE, groups=games.windows((3, 3), 2))
    handle = model[0].register_forward_hook(lambda *parts: seen.append(parts[-1]))  # pyright: ignore
    assert incremental(v) is v
    handle.remove()
    assert incremental(v) is not v
    model.train()
    assert incremental(v) is v and not seen


@pytest.mark.usefixtures("eager")
def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    v = game_of(ready(FOLLOWED["sequential"]))
    runs = [step.run for step in INCREMENTAL._recorded(v).tape.steps]
    kept = sum(math.prod(run.shape) for run in runs if isinstance(run, Followed))
    monkeypatch.setattr(recording, "_MOST_KEPT", kept)
    assert incremental(v) is not v
    monkeypatch.setattr(recording, "_MOST_KEPT", kept - 1)
    assert incremental(v) is v


@pytest.mark.usefixtures("eager")
def test_compiled_parts_are_left_alone() -> None:
    model: Any = ready(FOLLOWED["sequential"])
    v = game_of(model)
    model[0].compile(backend="eager")
    assert incremental(v) is v


@pytest.mark.usefixtures("eager")
def test_a_model_keeps_its_state() -> None:
    def counting(model: Any, y: Tensor) -> Tensor:
        model.kept = (*(model.kept or ()), len(y))
        return y

    model: Any = ready(lambda: _Odd(counting))
    v = game_of(model)
    before, calls = snapshot(model, [X, BASELINE]), model.kept
    quicker = incremental(v)
    assert quicker is not v
    quicker(left_out(v))
    assert changes(before, snapshot(model, [X, BASELINE])) == [] and model.kept == calls


@pytest.mark.usefixtures("eager")
def test_threads_do_not_disturb_each_other() -> None:
    model = ready(FOLLOWED["residual"])
    f = attrib.target(model, 1)

    def explained(baseline: float) -> Tensor:
        with torch.no_grad():
            return games.occlusion(f, (3, 3), strides=2)(X, baseline)

    baselines = [0.0, 0.5, 1.0, -1.0] * 3
    expected = [explained(baseline) for baseline in baselines]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(explained, baselines), expected, strict=True):
            assert torch.equal(found, wanted)


class MineError(Exception):
    pass


@pytest.mark.usefixtures("eager")
def test_what_a_model_raises_is_raised() -> None:
    def refusing(model: Any, y: Tensor) -> Tensor:
        if model.kept:
            raise MineError("mine")
        return y

    model: Any = ready(lambda: _Odd(refusing))
    v = game_of(model)
    model.kept = True
    with pytest.raises(MineError, match="mine"):
        incremental(v)(left_out(v))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("error", [RuntimeError("lost"), torch.OutOfMemoryError("full")])
def test_a_failure_on_patches_is_made_up_for(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = game_of(ready(FOLLOWED["residual"]))
    quicker, widths = incremental(v), list[int]()
    played = Tape.played

    def failing(tape: Tape, chunk: Any, patches: Any) -> Tensor:
        widths.append(chunk.windows)
        if chunk.windows > 8:
            raise error
        return played(tape, chunk, patches)

    monkeypatch.setattr(Tape, "played", failing)
    torch.testing.assert_close(quicker(left_out(v)), v(left_out(v)), rtol=1e-12, atol=1e-12)
    # Out of memory, the chunk is halved; else all is evaluated as if nothing were known.
    assert (len(widths) > 1) == isinstance(error, torch.OutOfMemoryError)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("chunk_size", [1, 4, 7])
def test_no_more_windows_than_a_chunk_are_evaluated_at_once(
    chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = game_of(ready(FOLLOWED["sequential"]), chunk_size=chunk_size)
    quicker, widths, played = incremental(v), list[int](), Tape.played

    def noting(tape: Tape, chunk: Any, patches: Any) -> Tensor:
        widths.append(chunk.windows)
        return played(tape, chunk, patches)

    monkeypatch.setattr(Tape, "played", noting)
    quicker(left_out(v))
    assert sum(widths) == v.players + 1 and max(widths) == chunk_size


@pytest.mark.usefixtures("eager")
def test_coalitions_of_many_features_stay_small() -> None:
    seen = list[int]()

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done:
            raise attrib.Cancelled

    x = torch.randn(1, 1, 128, 128)
    model = nn.Sequential(conv(1, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        v = games.game(attrib.target(model.eval(), 1), x, groups=games.windows((1, 1)))
        quicker = incremental(v)
        assert quicker is not v
        with pytest.raises(attrib.Cancelled), attrib.progress(stop):
            list(quicker.over(all_but_one(v.players, v.device)))
    # A coalition has an entry for every feature: a chunk of many would be as large as their square.
    assert seen[-1] > 1 and seen[-1] * v.players < 2**21


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("context", [torch.inference_mode, torch.autograd.forward_ad.dual_level])
def test_other_modes_are_left_alone(context: Any) -> None:
    v = game_of(ready(FOLLOWED["sequential"]))
    with context():
        assert incremental(v) is v


@pytest.mark.usefixtures("eager")
def test_transforms_and_functions_of_one_example_are_evaluated_plainly() -> None:
    model = ready(FOLLOWED["sequential"])
    f = attrib.target(model, 1)
    groups = games.windows((4, 4), 3)
    with torch.no_grad():
        expected = games.feature_ablation(f, groups=groups)(X)
        each = torch.vmap(lambda x: games.feature_ablation(f, groups=groups)(x[None])[0])(X)
        single = games.feature_ablation(lambda x: model(x[None])[0, 1], groups=groups)(X[0])
    torch.testing.assert_close(each, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(single, expected[0], rtol=1e-10, atol=1e-12)
