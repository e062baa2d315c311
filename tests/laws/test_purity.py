"""A call leaves nothing behind, and says the same every time and in every thread."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import attrib
from laws.methods import Law, MethodInfo, Sample, every, such_that
from laws.networks import data, few, kinds, network, seeds
from laws.state import changes, nothing_kept, snapshot


def sample(kind: str, seed: int = 0, batch: tuple[int, ...] = (3,)) -> Sample:
    return Sample(
        data(kind, seed, batch=batch),
        data(kind, seed + 1, batch=batch),
        data(kind, seed + 2, batch=(2,)),
    )


class _Broken(Exception):
    pass


@every()
@few
@given(kind=kinds, seed=seeds)
def test_a_call_changes_nothing(info: MethodInfo, kind: str, seed: int) -> None:
    model, drawn = network(kind, seed), sample(kind, seed)
    drawn.x.requires_grad_()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    f = attrib.target(model, torch.tensor([0, 2, 1]))
    before = snapshot(model, drawn)
    info(f, drawn)
    info(lambda x: model(x)[..., 0], drawn)
    with torch.no_grad():
        info(f, drawn)
        info(lambda x: model(x)[..., 0], drawn)
    info.factory(f)(*info.arguments(drawn))  # without a generator
    assert changes(before, snapshot(model, drawn)) == []


@every()
def test_a_model_that_writes_to_its_input_writes_to_a_copy(info: MethodInfo) -> None:
    model, drawn = network("gelu"), sample("gelu")
    kept = [t.clone() for t in drawn]

    def overwriting(x: Tensor) -> Tensor:
        x.mul_(2)
        return model(x)[..., 0]

    found = info(overwriting, drawn)
    assert all(map(torch.equal, drawn, kept))
    expected = info(lambda x: model(2 * x)[..., 0], drawn)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every()
@pytest.mark.parametrize("error", [_Broken, KeyboardInterrupt])
@pytest.mark.parametrize("call", [0, 1])
def test_the_exception_of_a_model_passes_through_and_leaves_nothing_behind(
    info: MethodInfo, error: type[BaseException], call: int
) -> None:
    model, drawn = network("gelu"), sample("gelu")
    left = [call]

    def broken(module: nn.Module, args: Any, result: Tensor) -> Tensor:
        if left[0] == 0:
            raise error("of the model")
        left[0] -= 1
        return result

    handle = model[2].register_forward_hook(broken)
    options = {"chunk_size": 1} if info.chunked else {}
    f = attrib.target(model, 0)
    before = snapshot(model, drawn)
    try:
        info(f, drawn, **options)
    except BaseException as raised:
        assert type(raised) is error
        assert raised.args == ("of the model",)
    else:
        assert left[0] == 1 - 1, "the model was called once only"
    assert changes(before, snapshot(model, drawn)) == []
    handle.remove()
    expected = info(attrib.target(network("gelu"), 0), drawn)
    assert torch.equal(info(f, drawn), expected)


class _FailAt:
    """Counts operators, and fails at one of them."""

    def __init__(self, position: int | None) -> None:
        super().__init__()
        self.position, self.seen = position, 0

    def count(self) -> None:
        self.seen += 1
        if self.seen - 1 == self.position:
            raise _Broken


class _FailAtFunction(_FailAt, TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count()
        return func(*args, **(kwargs or {}))


class _FailAtKernel(_FailAt, TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count()
        return func(*args, **(kwargs or {}))


# At every operator of a short call: of a longer one at every fifth, shifted from method to method.
LONG = 60


@every()
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "no_grad"])
@pytest.mark.parametrize("mode", [_FailAtFunction, _FailAtKernel])
def test_a_failure_at_any_operator_leaves_nothing_behind(
    info: MethodInfo, mode: Callable[[int | None], Any], recorded: bool
) -> None:
    if mode is _FailAtKernel and Law.VMAP not in info.laws:
        pytest.skip("refuses to choose by numbers that another mode may replace")
    model, drawn = network("tanh"), sample("tanh", batch=(2,))
    f = attrib.target(model, 0)

    def call(position: int | None) -> int:
        counter = mode(position)
        with torch.set_grad_enabled(recorded), counter:
            info(f, drawn)
        return counter.seen

    expected = info(f, drawn)
    before = snapshot(model, drawn)
    count = call(None)
    assert count > 3
    positions = range(count) if count <= LONG else [*range(LONG // 2), *range(LONG // 2, count, 5)]
    for position in positions:
        with pytest.raises(_Broken):
            call(position)
        assert changes(before, snapshot(model, drawn)) == [], f"after failing at {position}"
    assert torch.equal(info(f, drawn), expected)


@every()
@few
@given(kind=kinds, seed=seeds)
def test_the_same_seed_gives_the_same_bits(info: MethodInfo, kind: str, seed: int) -> None:
    f, drawn = attrib.target(network(kind, seed), 0), sample(kind, seed)
    assert torch.equal(info(f, drawn, seed=seed), info(f, drawn, seed=seed))
    torch.manual_seed(seed)
    first = info.factory(f)(*info.arguments(drawn))
    torch.manual_seed(seed)
    torch.testing.assert_close(
        info.factory(f)(*info.arguments(drawn)), first, rtol=0, atol=0, equal_nan=False
    )


@such_that(lambda info: info.seeded)
def test_another_seed_gives_other_draws(info: MethodInfo) -> None:
    f, drawn = attrib.target(network("gelu"), 0), sample("gelu")
    assert not torch.equal(info(f, drawn, seed=0), info(f, drawn, seed=1))
    attribute = info.factory(f)
    first = attribute(*info.arguments(drawn))
    assert torch.equal(attribute(*info.arguments(drawn)), first)
    torch.rand(())
    assert not torch.equal(attribute(*info.arguments(drawn)), first)


@such_that(lambda info: info.seeded)
def test_a_generator_makes_fresh_draws_at_every_call(info: MethodInfo) -> None:
    f, drawn = attrib.target(network("gelu"), 0), sample("gelu")
    attribute = info.attribute(f)
    first, second = (attribute(*info.arguments(drawn)) for _ in range(2))
    assert not torch.equal(first, second)


@every()
def test_four_threads_say_what_one_says(info: MethodInfo) -> None:
    model = network("conv")
    f = attrib.target(model, 0)
    shared = info.factory(f)
    drawn = [sample("conv", seed) for seed in range(4)]
    serial = [(info(f, d), shared(*info.arguments(d))) for d in drawn]
    before = snapshot(model, [t for d in drawn for t in d])

    def many(place: int) -> list[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        d = drawn[place]
        return [(info(f, d), shared(*info.arguments(d))) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for (own, common), found in zip(serial, pool.map(many, range(4)), strict=True):
            assert all(torch.equal(a, own) and torch.equal(b, common) for a, b in found)
    assert changes(before, snapshot(model, [t for d in drawn for t in d])) == []


@every()
@pytest.mark.parametrize("marked", [False, True], ids=["unmarked", "marked"])
def test_nothing_is_kept_in_memory(info: MethodInfo, marked: bool) -> None:
    model, drawn = network("gelu"), sample("gelu")
    f = attrib.target(model, 0) if marked else lambda x: model(x)[..., 0]
    shared = info.factory(f)
    info(f, drawn)  # nodes and weights are cached once
    shared(*info.arguments(drawn))
    with nothing_kept():
        for _ in range(10):
            info(f, drawn)
            shared(*info.arguments(drawn))


@every()
def test_a_model_can_be_copied_and_pickled_after_a_call(info: MethodInfo) -> None:
    model, drawn = network("attention"), sample("attention")
    before = len(pickle.dumps(model))
    info(attrib.target(model, 0), drawn)
    assert len(pickle.dumps(model)) == before
    assert torch.equal(copy.deepcopy(model)(drawn.x), model(drawn.x))
