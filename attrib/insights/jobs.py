"""Workers, a queue that serves the last click first and every client in turn, and ways to stop."""

from __future__ import annotations

import contextvars
import itertools
import logging
import mmap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from attrib._progress import progress
from attrib.errors import Cancelled
from attrib.insights.protocol import Failure

__all__ = ["Job", "Listener", "Workers"]

_LOG = logging.getLogger("attrib.insights")

_PROCESS = Path("/proc/self/statm")

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
        brief: Whether it may run beside another job of the same client.
        listeners: Who waits for it.
        rank: Its place among the jobs of its client.
        lane: Who asked first, and whether it is brief; one job of a lane runs at a time.
    """

    key: Any
    run: Callable[[Emit], dict[str, Any]]
    phase: str
    brief: bool = False
    listeners: list[Listener] = field(default_factory=list[Listener])
    rank: tuple[int, int] = (1, 0)
    started: float | None = None
    lane: tuple[str, bool] = ("", False)


class Workers:
    """Run jobs in threads of their own: those of a client one after another, but for brief ones,
    and of several clients the one first that was served longest ago.

    Args:
        threads: How many jobs run at once.
        waiting: How many jobs of one client may wait; eight times as many in all.
        seconds: The longest time for a job.
        memory: By how many bytes the memory of the process may grow from the start of a job on,
            looked at between two chunks where the system tells (Linux), mapped files and devices
            aside. Jobs that run at once are counted together.
        failed: From an exception to a terminal message.
    """

    def __init__(
        self,
        threads: int,
        waiting: int,
        seconds: float,
        memory: float,
        failed: Callable[[BaseException], dict[str, Any]],
    ) -> None:
        self._limit, self._seconds, self._failed = waiting, seconds, failed
        self._memory = memory
        self._jobs: dict[Any, Job] = {}
        self._running: list[Job] = []
        self._served: dict[str, int] = {}
        self._condition = threading.Condition(threading.RLock())
        self._count = itertools.count(1)
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name="attrib-insights", daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

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
                same.lane = (listener.client, job.brief)
            same.listeners.append(listener)
            number = next(self._count)
            # Clicks are served last first, all else in its order.
            same.rank = (RANKS[priority], -number if priority == "click" else number)
            self._condition.notify_all()
        self._tell_waiting()

    def cancel(self, client: str, id: str | None) -> None:
        """Stop waiting for a job, or for all; it ends once nobody waits for it any more."""
        with self._condition:
            self._leave(lambda one: one.client == client and id in (None, one.id))

    def close(self, timeout: float = 5.0) -> None:
        """End the running jobs, forget the others, and wait for the threads to end."""
        with self._condition:
            self._closed = True
            self._leave(lambda one: True)
            self._condition.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            if threading.current_thread() is not thread:
                thread.join(max(0.0, end - time.monotonic()))

    @property
    def alive(self) -> bool:
        """Whether the threads run."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        with self._condition:
            return bool(self._jobs or self._running)

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs.values() if job not in self._running]

    def _check_room(self, client: str) -> None:
        waiting = self._waiting()
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
                self._running.append(job)
                self._served[job.lane[0]] = next(self._count)
            # Whatever a model sets in context variables stays in the job.
            message = contextvars.Context().run(self._run, job)
            with self._condition:
                self._running.remove(job)
                if self._jobs.get(job.key) is job:
                    del self._jobs[job.key]
                waiting, job.listeners = job.listeners, []
                self._forget_clients()
                self._condition.notify_all()  # for what waited for this lane
            for one in waiting:
                _send(one, message)
            self._tell_waiting()

    def _next(self) -> Job | None:
        taken = {job.lane for job in self._running}
        free = [job for job in self._waiting() if job.lane not in taken]
        return min(free, key=self._turn, default=None)

    def _turn(self, job: Job) -> tuple[int, tuple[int, int]]:
        return self._served.get(job.lane[0], 0), job.rank

    def _forget_clients(self) -> None:
        clients = {job.lane[0] for job in (*self._jobs.values(), *self._running)}
        self._served = {name: turn for name, turn in self._served.items() if name in clients}

    def _run(self, job: Job) -> dict[str, Any]:
        job.started, begun = time.monotonic(), _own_memory()
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
            if _own_memory() - begun > self._memory:
                grown = f"stopped after {self._memory / 2**30:.3f} GiB more memory"
                raise Failure("limit", grown, hint="lower the chunk size, or choose fewer steps")
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
            waiting = sorted(self._waiting(), key=self._turn)
            told = [(one, place) for place, job in enumerate(waiting) for one in job.listeners]
            ahead = len(self._running)
        for one, place in told:
            message = {"done": 0, "total": 0, "eta": None, "phase": "queue"}
            _send(one, {"type": "progress", **message, "waiting": place + ahead})


def _own_memory() -> int:
    """The memory of this process that belongs to no file, in bytes; always 0 where the system does
    not tell."""
    try:
        _, resident, shared, *_ = map(int, _PROCESS.read_text().split())
        return (resident - shared) * mmap.PAGESIZE
    except OSError:
        return 0


def _send(listener: Listener, message: dict[str, Any]) -> None:
    try:
        listener.emit({**message, "id": listener.id})
    except Exception:  # one who cannot be told any more must not stop the others
        _LOG.exception("a front end cannot be reached")
