"""One worker, a queue that serves the last click first, and ways to stop."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from attrib._progress import progress
from attrib.errors import Cancelled
from attrib.insights.protocol import Failure

__all__ = ["Job", "Listener", "Worker"]

_LOG = logging.getLogger("attrib.insights")

RANKS = {"click": 0, "visible": 1, "idle": 2}

Emit = Callable[[dict[str, Any]], None]
"""Takes a header that may hold arrays."""


@dataclass(eq=False)
class Listener:
    """Who waits for a job."""

    client: str
    id: str
    emit: Emit
    slot: str | None = None


@dataclass(eq=False)
class Job:
    """Something to compute, once for all who asked for it.

    Attributes:
        key: What makes two jobs the same.
        run: Computes a terminal message; it may tell more on the way.
        phase: What the progress is called.
        listeners: Who waits for it.
    """

    key: Any
    run: Callable[[Emit], dict[str, Any]]
    phase: str
    listeners: list[Listener] = field(default_factory=list[Listener])
    rank: tuple[int, int] = (1, 0)
    started: float | None = None


class Worker:
    """Runs jobs one after another in a thread of its own.

    Args:
        waiting: How many jobs of one client may wait; eight times as many in all.
        seconds: The longest time for a job.
        failed: From an exception to a terminal message.
    """

    def __init__(
        self, waiting: int, seconds: float, failed: Callable[[BaseException], dict[str, Any]]
    ) -> None:
        self._limit, self._seconds, self._failed = waiting, seconds, failed
        self._queue: list[tuple[tuple[int, int], Job]] = []
        self._jobs: dict[Any, Job] = {}
        self._condition = threading.Condition(threading.RLock())
        self._count = itertools.count(1)
        self._running: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="attrib-insights", daemon=True)
        self._thread.start()

    def submit(self, job: Job, listener: Listener, priority: str) -> None:
        """Put a job into the queue, or join one that is the same.

        Raises:
            Failure: If too many jobs wait already, or the worker was closed.
        """
        with self._condition:
            if self._closed:
                raise Failure("busy", "the server is closing")
            if listener.slot is not None:
                self._leave(lambda one: one.client == listener.client and one.slot == listener.slot)
            same = self._jobs.get(job.key)
            if same is None:
                self._check_room(listener.client)
                self._jobs[job.key] = same = job
            same.listeners.append(listener)
            if same is not self._running:
                number = next(self._count)
                # Clicks are served last first, all else in its order.
                same.rank = (RANKS[priority], -number if priority == "click" else number)
                heapq.heappush(self._queue, (same.rank, same))
            self._condition.notify()
        self._tell_waiting()

    def cancel(self, client: str, id: str | None) -> None:
        """Stop waiting for a job, or for all; it ends once nobody waits for it any more."""
        with self._condition:
            self._leave(lambda one: one.client == client and id in (None, one.id))

    def close(self, timeout: float = 5.0) -> None:
        """End the running job, forget the others, and wait for the thread to end."""
        with self._condition:
            self._closed = True
            self._leave(lambda one: True)
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        with self._condition:
            return bool(self._jobs) or self._running is not None

    def _check_room(self, client: str) -> None:
        waiting = [job for job in self._jobs.values() if job is not self._running]
        mine = sum(any(one.client == client for one in job.listeners) for job in waiting)
        if mine >= self._limit or len(waiting) >= 8 * self._limit:
            raise Failure("busy", "too many computations are waiting", hint="try again in a moment")

    def _leave(self, who: Callable[[Listener], bool]) -> None:
        left: list[Listener] = []
        for job in list(self._jobs.values()):
            gone = [one for one in job.listeners if who(one)]
            left += gone
            job.listeners = [one for one in job.listeners if one not in gone]
            if gone and not job.listeners:
                del self._jobs[job.key]
        for one in left:
            _send(one, {"type": "cancelled"})

    def _work(self) -> None:
        while True:
            with self._condition:
                job = self._next()
                while job is None and not self._closed:
                    self._condition.wait()
                    job = self._next()
                if job is None:
                    return
                self._running = job
            # Whatever a model sets in context variables stays in the job.
            message = contextvars.Context().run(self._run, job)
            with self._condition:
                self._running = None
                if self._jobs.get(job.key) is job:
                    del self._jobs[job.key]
                waiting, job.listeners = job.listeners, []
            for one in waiting:
                _send(one, message)
            self._tell_waiting()

    def _next(self) -> Job | None:
        while self._queue:
            rank, job = heapq.heappop(self._queue)
            # A job that was asked for again, or that nobody wants any more, is still in the queue.
            if self._jobs.get(job.key) is job and job.rank == rank:
                return job
        return None

    def _run(self, job: Job) -> dict[str, Any]:
        job.started = time.monotonic()
        last = [-1.0]

        def watch(done: int, total: int) -> None:
            now = time.monotonic()
            spent = now - (job.started or now)
            if not job.listeners:
                raise Cancelled
            if spent > self._seconds:
                raise Failure("limit", f"stopped after {self._seconds:g} seconds")
            if now - last[0] < 0.05 and done < total:
                return
            last[0] = now
            eta = spent * (total - done) / done if done else None
            told = {"done": done, "total": total, "eta": eta, "phase": job.phase}
            self._broadcast(job, {"type": "progress", **told, "waiting": 0})

        try:
            with progress(watch), torch.no_grad():
                watch(0, 0)
                return job.run(lambda message: self._broadcast(job, message))
        except Cancelled:
            return {"type": "cancelled"}
        except BaseException as error:  # also what a model may raise to end the process
            return self._failed(error)

    def _broadcast(self, job: Job, message: dict[str, Any]) -> None:
        with self._condition:
            listeners = list(job.listeners)
        for one in listeners:
            _send(one, message)

    def _tell_waiting(self) -> None:
        with self._condition:
            waiting = sorted(
                (job for job in self._jobs.values() if job is not self._running),
                key=lambda job: job.rank,
            )
            told = [(one, place) for place, job in enumerate(waiting) for one in job.listeners]
            ahead = self._running is not None
        for one, place in told:
            message = {"done": 0, "total": 0, "eta": None, "phase": "queue"}
            _send(one, {"type": "progress", **message, "waiting": place + ahead})


def _send(listener: Listener, message: dict[str, Any]) -> None:
    try:
        listener.emit({**message, "id": listener.id})
    except Exception:  # one who cannot be told any more must not stop the others
        _LOG.exception("a front end cannot be reached")
