"""What surrounds a call: threads, cancellation, faults at any moment, an optimising interpreter."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import attrib
from laws.state import nothing_kept

from . import models, snapshot
from .battery import close, plain, seed
from .cases import HESSIANS, by_rules
from .methods import METHODS, Method, Problem

EVERY = pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
# A check reports what a method raises instead of raising it.
RAISING = [method for method in METHODS if method.name != "saliency, checked"]
SWEPT = pytest.mark.parametrize("method", RAISING, ids=[method.name for method in RAISING])
# They look at operations too, though not by rules of their own.
LOOKING = ("guided_grad_cam", "attention_maps", "attention_rollout", "gradient_rollout")
CHUNKED = [method for method in METHODS if method.knows("chunk_size")]
ROOT = Path(attrib.__file__).parent

Prepared = tuple[Problem, snapshot.State]


def prepare() -> Prepared:
    """A correct call, and the state before it."""
    problem = plain()
    return problem, state(problem)


def state(problem: Problem) -> snapshot.State:
    """All that a call could change."""
    return snapshot.take([problem.model, problem.x])


def run(method: Method, problem: Problem) -> Any:
    """The answer, with the same draws every time."""
    seed()
    return method.run(problem)


def bits(tree: Any) -> list[bytes]:
    """Every bit of an answer."""
    leaves = [leaf for leaf in pytree.tree_leaves(tree) if leaf is not None]
    return [leaf.detach().contiguous().view(torch.uint8).numpy().tobytes() for leaf in leaves]


# Threads.


@EVERY
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_four_threads_with_one_model_get_what_one_gets(method: Method, grad: bool) -> None:
    problem = plain()
    with torch.set_grad_enabled(grad):
        expected = run(method, problem)
    seed()
    before = state(problem)
    wrong: list[Any] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        # Grad mode belongs to the thread.
        with torch.set_grad_enabled(grad):
            for _ in range(8):
                try:
                    difference = close(method.run(problem), expected)
                except Exception as error:
                    difference = repr(error)
                wrong.extend([difference] * bool(difference))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert snapshot.differences(before, state(problem)) == []


def test_four_threads_with_one_attribution_get_what_one_gets() -> None:
    problem = plain()
    attribute = attrib.integrated_gradients(problem.target(), steps=5)
    inputs = [problem.x + shift for shift in range(4)]
    found: dict[int, Any] = {}

    def work(place: int) -> None:
        for _ in range(20):
            found[place] = attribute(inputs[place], 0.1 * place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, x in enumerate(inputs):
        assert close(found[place], attribute(x, 0.1 * place)) == ""


# Cancellation.


@EVERY
def test_a_monitor_that_raises_at_any_report_leaves_nothing(method: Method) -> None:
    with torch.no_grad():
        # The first call of all imports parts of torch, which set warning filters of their own.
        expected = run(method, plain())
        problem, before = prepare()
        reports: list[tuple[int, int]] = []
        with attrib.progress(lambda done, total: reports.append((done, total))):
            run(method, problem)
        for stop in range(len(reports)):
            left = [stop]
            cancelled = attrib.Cancelled("enough")

            def monitor(
                done: int, total: int, left: list[int] = left, error: Any = cancelled
            ) -> None:
                if left[0] == 0:
                    raise error
                left[0] -= 1

            seed()
            with pytest.raises(attrib.Cancelled) as raised, attrib.progress(monitor):
                method.run(problem)
            assert raised.value is cancelled
            assert snapshot.differences(before, state(problem), ignore=frozenset({"rng"})) == []
        # Nobody watches any more.
        seen = len(reports)
        assert close(run(method, problem), expected) == ""
        assert len(reports) == seen


@pytest.mark.parametrize("method", CHUNKED, ids=[method.name for method in CHUNKED])
def test_methods_with_chunks_report_from_none_to_all(method: Method) -> None:
    reports: list[tuple[int, int]] = []
    with torch.no_grad(), attrib.progress(lambda done, total: reports.append((done, total))):
        run(method, plain())
    assert reports[0][0] == 0
    assert reports[-1][0] == reports[-1][1] > 0


# Faults at any moment.


class Injected(Exception):
    """A fault of the machine."""


class FailingAt(TorchFunctionMode):
    """Raises at one call of a torch function, and counts them."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.count, self.error = at, 0, Injected("here")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # The exit of torch's own context manager is no place for a fault: nobody could undo it.
        self.count += func is not torch._C._set_grad_enabled
        if self.count == self.at and func is not torch._C._set_grad_enabled:
            raise self.error
        return func(*args, **(kwargs or {}))


def sweep(method: Method, grad: bool, points: int | None) -> Iterator[str]:
    """Let the k-th torch function fail, for every k or for some; say what is wrong afterwards."""
    with torch.set_grad_enabled(grad):
        # The first call of all imports parts of torch, which set warning filters of their own.
        expected = run(method, plain())
        problem, before = prepare()
        with FailingAt(0) as counting:
            run(method, problem)
        stride = 1 if points is None else max(1, counting.count // points)
        for at in range(1, counting.count + 1, stride):
            with FailingAt(at) as failing:
                try:
                    run(method, problem)
                    yield f"{at}: swallowed"
                except Injected as error:
                    if error is not failing.error:
                        yield f"{at}: another exception"
                except Exception as error:
                    yield f"{at}: masked by {error!r}"
            left = snapshot.differences(before, state(problem), ignore=frozenset({"rng"}))
            yield from (f"{at}: {name}" for name in left)
        difference = close(run(method, problem), expected)
        if difference:
            yield f"the next call: {difference}"


@SWEPT
def test_a_fault_at_any_operation_comes_through_and_leaves_nothing(method: Method) -> None:
    assert list(sweep(method, grad=False, points=12)) == []


@pytest.mark.slow
@SWEPT
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_a_fault_at_every_operation_comes_through_and_leaves_nothing(
    method: Method, grad: bool
) -> None:
    assert list(sweep(method, grad, points=None)) == []


class Limited(nn.Module):
    """A machine with memory for so many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.net, self.rows = models.Net(), rows
        self.seen: list[int] = []
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.rows:
            raise torch.OutOfMemoryError(f"{len(x)} rows")
        self.seen.append(len(x))
        return self.net(x)


# The two ends of a segment are more than fits here.
SHRINKING = [method for method in CHUNKED if "secant" not in method.name]


@pytest.mark.parametrize("method", SHRINKING, ids=[method.name for method in SHRINKING])
def test_out_of_memory_the_automatic_chunks_shrink_until_they_fit(method: Method) -> None:
    if method.name == HESSIANS:
        pytest.skip("its chunks are rows of the backward pass, not of the model")
    inner = {"smooth": 6, "expected": 9, "per_target integrated_gradients": 6}
    limit = inner.get(method.name, 3)  # what a single point needs
    options = {"chunk_size": "auto"}
    with torch.no_grad():
        expected = run(method, plain())
        found = run(method, Problem(Limited(limit), plain().x, options=options))
    assert close(found, expected) == ""


def test_out_of_memory_with_chunks_of_the_users_own_is_the_users() -> None:
    f = attrib.target(Limited(5), 1)
    for chunk_size in (2, None):
        with torch.no_grad(), pytest.raises(torch.OutOfMemoryError, match=r"(6|150) rows"):
            attrib.integrated_gradients(f, chunk_size=chunk_size)(plain().x)


def test_out_of_memory_for_a_single_point_is_not_retried_for_ever() -> None:
    f = attrib.target(Limited(2), 1)
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError, match="3 rows"):
        attrib.integrated_gradients(f)(plain().x)


# What a model keeps.


class Keeping(nn.Module):
    """Stores its last activation, as many do for their own analysis."""

    def __init__(self) -> None:
        super().__init__()
        self.net = models.Net()
        self.kept: Tensor | None = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.net(x)
        return self.kept


@EVERY
def test_what_a_model_stores_without_gradients_is_an_ordinary_tensor(method: Method) -> None:
    if method.name == HESSIANS:
        pytest.skip("second derivatives need torch.func, whose tensors a model then sees")
    model = Keeping()
    with torch.no_grad():
        method.run(Problem(model, plain().x))
    assert model.kept is not None
    assert not torch.is_inference(model.kept)
    assert model.kept.detach().clone().numpy().dtype == "float32"


@EVERY
def test_a_model_is_pickled_as_before(method: Method) -> None:
    problem = plain()
    before = pickle.dumps(problem.model)
    method.run(problem)
    assert pickle.dumps(problem.model) == before


@EVERY
def test_calls_in_a_row_keep_no_tensor_alive(method: Method) -> None:
    problem = plain()
    for _ in range(3):
        method.run(problem)
    with nothing_kept():
        for _ in range(5):
            method.run(problem)


@EVERY
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_the_same_seed_gives_the_same_bits(method: Method, grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        assert bits(run(method, plain())) == bits(run(method, plain()))


# Compiled models.


@pytest.mark.slow
# The compiler itself looks at the gradients of tensors that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_a_compiled_model_gives_what_the_model_gives(grad: bool) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    before = snapshot.take([model])
    with torch.set_grad_enabled(grad):
        for method in METHODS:
            if by_rules(method) or method.name in LOOKING:
                with pytest.raises(attrib.AttribError, match="compiled") as refusal:
                    run(method, plain(compiled))
                assert refusal.value.code == "rules.compiled", method.name
            else:
                difference = close(run(method, plain(compiled)), run(method, plain(model)))
                assert difference == "", method.name
    # The compiler has a context of its own, and writes notes on parameters.
    ignore = frozenset({"rng", "context variables", "attributes"})
    assert snapshot.differences(before, snapshot.take([model]), ignore=ignore) == []


# An optimising interpreter.


def test_attrib_says_nothing_with_assert_or_debug() -> None:
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        found += [
            n.lineno for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "__debug__"
        ]
        assert found == [], path.name


def outcomes(*arguments: str) -> dict[str, Any]:
    """Every outcome of the battery in a fresh interpreter."""
    paths = [str(ROOT.parent), str(Path(__file__).parents[1])]
    found = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(found.stdout)


def test_an_optimising_interpreter_finds_nothing_wrong() -> None:
    names = ["integrated_gradients", "deep_lift", "conductance", "kernel_shap"]
    optimised = outcomes("-O", "-m", "faults", *names)
    assert len(optimised) > 250 * len(names)
    assert [cell for cell, (_, complaints) in optimised.items() if complaints] == []
