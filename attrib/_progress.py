"""Who watches a computation: a progress bar, a callback, a way to cancel."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

from attrib._checks import check_callable
from attrib._transforms import compiling

__all__ = ["Monitor", "monitored", "progress", "report"]

Monitor = Callable[[int, int], object]
"""``monitor(done, total)``, called before the first point and after every chunk."""

_monitor: ContextVar[Monitor | None] = ContextVar("attrib_monitor", default=None)


@contextmanager
def progress(callback: Monitor | None = None) -> Generator[None, None, None]:
    """Watch every attribution computed inside of the ``with`` block, in this thread.

    Args:
        callback: ``callback(done, total)`` in points of the outermost computation, called before
            its first point, after every chunk, and while a chunk is itself a long computation. It
            stops the computation by raising `attrib.Cancelled` (or anything else). ``None`` shows a
            bar (needs ``tqdm``, the extra ``attrib[progress]``).

    Raises:
        AttribTypeError: If the callback is not callable.
        ImportError: If tqdm is not installed and there is no callback.

    Example:
        >>> import torch, attrib
        >>> seen = []
        >>> f = lambda x: x.square().sum(-1)
        >>> attribute = attrib.integrated_gradients(f, steps=4, chunk_size=2)
        >>> with attrib.progress(lambda done, total: seen.append((done, total))):
        ...     _ = attribute(torch.ones(1, 3))
        >>> seen
        [(0, 4), (2, 4), (4, 4)]
    """
    if callback is not None:
        check_callable(callback, "callback", "pass a function of (done, total)")
        with _watched_by(callback):
            yield
        return
    from tqdm.auto import tqdm

    with tqdm(unit="point", leave=False) as bar, _watched_by(partial(_show, bar)):
        yield


def report(done: int, total: int) -> None:
    """Tell the monitor, if there is one, how far the computation is; it may raise to stop it."""
    if not compiling() and (monitor := _monitor.get()) is not None:
        monitor(done, total)


def monitored(done: int, total: int) -> AbstractContextManager[None]:
    """Inside, another computation is a part of this one: it reports as this one."""
    monitor = None if compiling() else _monitor.get()
    if monitor is None:
        return nullcontext()
    return _watched_by(lambda _done, _total: monitor(done, total))


@contextmanager
def _watched_by(monitor: Monitor) -> Generator[None, None, None]:
    token = _monitor.set(monitor)
    try:
        yield
    finally:
        _monitor.reset(token)


def _show(bar: Any, done: int, total: int) -> None:
    if done == 0 or bar.total != total:
        bar.reset(total=total)
    bar.update(done - bar.n)
