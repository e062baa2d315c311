"""Runs one cell, a case with a method, and says what is wrong with the outcome."""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.utils._pytree as pytree
from torch import Tensor

import attrib

from . import models, snapshot
from .methods import Method, Problem

LONGEST_MESSAGE = 400

# What torch imports for a transform, the first time, changes the filters of warnings.
torch.vmap(torch.func.grad(torch.sin))(torch.ones(2))


@dataclass(frozen=True)
class Refused:
    """Right is an error of attrib, with this code and with words that match, after few calls."""

    code: str
    words: str
    kind: type[Exception] = ValueError
    calls: int = 0


@dataclass(frozen=True)
class Equals:
    """Right is the answer to a sane problem, changed by ``then(method, answer)``."""

    sane: Callable[[Method], Problem]
    then: Callable[[Method, Any], Any] = lambda method, answer: answer
    warns: tuple[type[Warning], ...] = ()
    loose: bool = False


@dataclass(frozen=True)
class Passes:
    """Right is that the exception of the model itself comes through, with a note."""

    exception: BaseException
    note: bool = False


@dataclass(frozen=True)
class Raises:
    """Right is an exception of Python or torch, whose words say what is wrong."""

    kind: type[BaseException]
    words: str


Right: TypeAlias = Refused | Equals | Passes | Raises


@dataclass(frozen=True)
class Case:
    """What is done, and what is right.

    Attributes:
        name: A name in words.
        group: values, inputs, baselines, targets, outputs, numbers, model, sites, maps, context.
        fault: Makes the problem.
        right: What is right, or a function of the method that says so.
        applies: Whether the case concerns a method.
        modes: Grad modes in which it is run.
        ignore: State that the fault itself changes.
    """

    name: str
    group: str
    fault: Callable[[], Problem]
    right: Right | Callable[[Method], Right]
    applies: Callable[[Method], bool] = lambda method: True
    modes: tuple[bool, ...] = (False, True)
    ignore: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """What happened, in a word, and what is wrong with it."""

    outcome: str
    complaints: tuple[str, ...]


def judge(case: Case, method: Method, grad: bool) -> Verdict:
    """Run a cell and compare the outcome, and all state, with what is right."""
    right = case.right(method) if callable(case.right) else case.right
    usual = _plain_answer(method, grad)
    problem = case.fault()
    watched = [problem.model, problem.x, problem.base, problem.args, problem.index, problem.score]
    watched += [problem.options, *problem.watch]
    result: Any = None
    error: BaseException | None = None
    if isinstance(right, Passes):
        vars(right.exception).pop("__notes__", None)
    with torch.set_grad_enabled(grad), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        seed()
        models.calls.clear()
        before = snapshot.take(watched)
        try:
            result = method.run(problem)
        except BaseException as raised:
            error = raised
        calls = len(models.calls)
        after = snapshot.take(watched)
        complaints = [f"left: {d}" for d in snapshot.differences(before, after, ignore=case.ignore)]
    outcome = _outcome(result, error)
    if isinstance(right, Equals):
        complaints += _judge_result(right, method, result, error, grad)
    else:
        complaints += _judge_error(right, error, outcome, calls)
    expected_warnings = right.warns if isinstance(right, Equals) else ()
    complaints += _judge_warnings(
        expected_warnings, [w.category for w in said], [str(w.message) for w in said]
    )
    complaints += _judge_canary(method, problem, grad, usual)
    return Verdict(outcome, tuple(complaints))


def plain(model: Any = None) -> Problem:
    """A correct call."""
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(3, 4, generator=generator)
    return Problem(models.Net() if model is None else model, x)


def seed() -> None:
    """What `torch.manual_seed` does for a CPU, without writing down the stack for other devices."""
    torch.default_generator.manual_seed(1)


def close(a: Any, b: Any, *, loose: bool = False) -> str:
    """How two trees differ; nothing if they are equal up to rounding."""
    left, left_spec = pytree.tree_flatten(a)
    right, right_spec = pytree.tree_flatten(b)
    if left_spec != right_spec:
        return f"structure {left_spec} for {right_spec}"
    return "".join(_leaf_differs(p, q, loose) for p, q in zip(left, right, strict=True))


def _leaf_differs(a: Any, b: Any, loose: bool) -> str:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return "" if a is None and b is None else f"{type(a).__name__} for {type(b).__name__}"
    if a.shape != b.shape:
        return f"shape {tuple(a.shape)} for {tuple(b.shape)}"
    if a.dtype != b.dtype and not loose:
        return f"dtype {a.dtype} for {b.dtype}"
    a, b = a.detach().double(), b.detach().double()
    if not torch.equal(a.isfinite(), b.isfinite()):
        return f"finite {a.isfinite().sum()} for {b.isfinite().sum()} of {b.numel()}"
    scale = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 0.0
    gap = (a - b)[b.isfinite()].abs().max().item() if b.isfinite().any() else 0.0
    # Differences of scores of order one lie behind every attribution.
    allowed = 0.06 * scale + 0.03 if loose else 1e-5 * scale + 1e-6
    return f"off by {gap:.2g} of {scale:.2g}" if gap > allowed else ""


def _outcome(result: Any, error: BaseException | None) -> str:
    if error is None:
        return "result"
    return getattr(error, "code", type(error).__name__)


def _judge_result(
    right: Equals, method: Method, result: Any, error: BaseException | None, grad: bool
) -> list[str]:
    if error is not None:
        return [f"refused with {type(error).__name__}: {error}"]
    complaints = [
        f"result: {problem}" for leaf in pytree.tree_leaves(result) for problem in _odd(leaf, grad)
    ]
    with torch.set_grad_enabled(grad), warnings.catch_warnings():
        warnings.simplefilter("ignore", attrib.NonFiniteWarning)
        sane = right.sane(method)
        seed()
        expected = right.then(method, method.run(sane))
    difference = close(result, expected, loose=right.loose)
    return complaints + [f"result: {difference}"] * bool(difference)


def _odd(leaf: Any, grad: bool) -> Iterator[str]:
    if not isinstance(leaf, Tensor):
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(leaf):
        yield "a tensor of a transform that is over"
    if leaf.requires_grad and not grad:
        yield "keeps a graph although gradients are off"
    if type(leaf) is not Tensor:
        yield f"is a {type(leaf).__name__}"


def _judge_error(
    right: Refused | Passes | Raises, error: BaseException | None, outcome: str, calls: int
) -> list[str]:
    if error is None:
        return ["accepted in silence"]
    said = f"{type(error).__name__} {outcome}: {error}"
    if isinstance(right, Passes):
        complaints = [f"not the exception of the model but {said}"] * (error is not right.exception)
        told = bool(getattr(error, "__notes__", ())) or sys.version_info < (3, 11)
        return complaints + ["no note says what was evaluated"] * (right.note and not told)
    if isinstance(right, Raises):
        fits = isinstance(error, right.kind) and re.search(right.words, str(error), re.IGNORECASE)
        return [f"not {right.kind.__name__} with {right.words!r} but {said}"] * (not fits)
    complaints: list[str] = []
    if not isinstance(error, attrib.AttribError) or not isinstance(error, right.kind):
        complaints.append(f"not an AttribError and {right.kind.__name__} but {said}")
    if outcome != right.code:
        complaints.append(f"code {outcome!r} instead of {right.code!r}")
    if not re.search(right.words, str(error), re.IGNORECASE):
        complaints.append(f"nothing like {right.words!r} in: {error}")
    if not re.match(r"[\w.\[\]']+: ", str(error)):
        complaints.append(f"does not begin with the argument: {error}")
    if len(str(error)) > LONGEST_MESSAGE or "tensor(" in str(error):
        complaints.append(f"too long, or shows a tensor: {error}")
    if calls > right.calls:
        complaints.append(f"the model was called {calls} times before the refusal")
    return complaints


def _judge_warnings(
    expected: tuple[type[Warning], ...], categories: list[type[Warning]], messages: list[str]
) -> list[str]:
    complaints = [
        f"warned: {category.__name__}: {message}"
        for category, message in zip(categories, messages, strict=True)
        if category not in expected
    ]
    return complaints + [f"no {kind.__name__}" for kind in expected if kind not in categories]


def _judge_canary(method: Method, problem: Problem, grad: bool, usual: Any) -> list[str]:
    """A correct call afterwards, with the same model where that is a plain one, answers as ever."""
    usable = models.is_plain(problem.model)
    with torch.set_grad_enabled(grad), warnings.catch_warnings():
        warnings.simplefilter("error")
        again = plain(problem.model if usable else None)
        seed()
        try:
            answer = method.run(again)
        except Exception as error:
            return [f"a plain call afterwards raises {type(error).__name__}: {error}"]
    difference = close(answer, usual)
    return [f"a plain call afterwards: {difference}"] * bool(difference)


@functools.cache
def _plain_answer(method: Method, grad: bool) -> Any:
    with torch.set_grad_enabled(grad):
        problem = plain()
        seed()
        return pytree.tree_map(lambda leaf: leaf.detach().clone(), method.run(problem))
