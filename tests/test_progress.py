"""Progress is seen from outside, and what is seen can be stopped."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attrib

X = torch.randn(2, 3)


def f(x: Tensor) -> Tensor:
    return x.sin().sum(-1)


def seen_by(attribute: Callable[..., Any], *args: Any) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    with attrib.progress(lambda done, total: seen.append((done, total))):
        attribute(X, *args)
    return seen


def test_a_callback_hears_of_the_start_and_of_every_chunk() -> None:
    attribute = attrib.integrated_gradients(f, steps=7, chunk_size=3)
    assert seen_by(attribute) == [(0, 7), (3, 7), (6, 7), (7, 7)]
    attribute = attrib.smooth_grad(attrib.saliency(f), 0.1, samples=4, chunk_size=2)
    assert seen_by(attribute) == [(0, 4), (2, 4), (4, 4)]
    attribute = attrib.guided_ig(f, steps=3)
    assert seen_by(attribute) == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_gradient_has_no_progress() -> None:
    assert seen_by(attrib.saliency(f)) == []


@pytest.mark.parametrize(
    ("attribute", "args"),
    [
        (
            attrib.smooth_grad(
                attrib.integrated_gradients(f, steps=6, chunk_size=2), 0.1, samples=3, chunk_size=1
            ),
            (),
        ),
        (
            attrib.expected(attrib.guided_ig(f, steps=4), chunk_size=1),
            (torch.zeros(3, 3),),
        ),
        (attrib.integrated_hessians(f, steps=3, chunk_size=1), ()),
    ],
    ids=["smooth", "expected", "hessians"],
)
def test_the_progress_of_nested_computations_is_that_of_the_outermost(
    attribute: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    seen = seen_by(attribute, *args)
    assert {total for _, total in seen} == {3}
    assert seen[0] == (0, 3) and seen[-1] == (3, 3)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 4, "the inner computations report as well, so that they can be cancelled"


def test_adaptive_steps_report_level_by_level() -> None:
    attribute = attrib.integrated_gradients(f, steps=50, tol=1e-4)
    seen = seen_by(attribute)
    assert seen[0][0] == 0 and all(done <= total for done, total in seen)


@pytest.mark.parametrize("error", [attrib.Cancelled, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_callback_that_raises_stops_the_computation(
    error: type[BaseException], after: int
) -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return f(x)

    def stop(done: int, total: int) -> None:
        if done == after:
            raise error("enough")

    attribute = attrib.integrated_gradients(counted, steps=9, chunk_size=1)
    with pytest.raises(error, match="enough"), attrib.progress(stop):
        attribute(X)
    assert len(calls) == after
    attribute(X)  # and nobody is watching any more
    assert len(calls) == after + 9


def test_a_long_inner_computation_can_be_cancelled() -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return f(x)

    heard: list[int] = []

    def stop(done: int, total: int) -> None:
        heard.append(done)
        if len(calls) == 5:
            raise attrib.Cancelled

    inner = attrib.integrated_gradients(counted, steps=100, chunk_size=1)
    attribute = attrib.smooth_grad(inner, 0.1, samples=2, chunk_size=1)
    with pytest.raises(attrib.Cancelled), attrib.progress(stop):
        attribute(X)
    assert len(calls) == 5 and max(heard) == 0


def test_the_watch_ends_with_the_block_however_it_ends() -> None:
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError), attrib.progress(lambda d, t: seen.append(d)):
        raise ZeroDivisionError
    attrib.integrated_gradients(f)(X)
    assert seen == []


def test_blocks_may_be_nested() -> None:
    outer: list[int] = []
    inner: list[int] = []
    attribute = attrib.integrated_gradients(f, steps=2, chunk_size=1)
    with attrib.progress(lambda d, t: outer.append(d)):
        with attrib.progress(lambda d, t: inner.append(d)):
            attribute(X)
        attribute(X)
    assert outer == inner == [0, 1, 2]


def test_another_thread_is_not_watched() -> None:
    seen: list[int] = []
    attribute = attrib.integrated_gradients(f, steps=3)
    with attrib.progress(lambda d, t: seen.append(d)):
        thread = threading.Thread(target=attribute, args=(X,))
        thread.start()
        thread.join()
    assert seen == []


def test_being_watched_does_not_change_the_result() -> None:
    attribute = attrib.integrated_gradients(f, steps=9, chunk_size=2)
    with attrib.progress(lambda done, total: None):
        watched = attribute(X)
    assert torch.equal(watched, attribute(X))


def test_without_a_callback_a_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    with attrib.progress():
        attrib.integrated_gradients(f, steps=8, chunk_size=2)(X)
        attrib.smooth_grad(attrib.saliency(f), 0.1, samples=3, chunk_size=1)(X)
    shown = capsys.readouterr()
    assert "0/8" in shown.err and "0/3" in shown.err
    assert shown.out == ""


def test_without_tqdm_the_bar_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="tqdm"), attrib.progress():
        pass


def test_a_callback_is_a_function() -> None:
    with pytest.raises(TypeError, match="callback: ") as refusal, attrib.progress(3):
        pass
    assert isinstance(refusal.value, attrib.AttribError)
