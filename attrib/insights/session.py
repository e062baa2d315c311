"""The engine behind every front end: messages in, messages out, whatever carries them."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrib._map import out_of_memory
from attrib.errors import AttribError
from attrib.insights import payload, tables
from attrib.insights.jobs import Emit, Job, Listener, Workers
from attrib.insights.overview import overview
from attrib.insights.plain import pathless
from attrib.insights.predictions import choose
from attrib.insights.protocol import Failure, parse
from attrib.insights.reports import files
from attrib.insights.snippet import snippet
from attrib.insights.study import Study
from attrib.insights.workbench import Limits, Workbench

__all__ = ["Session"]

_LOG = logging.getLogger("attrib.insights")
_HERE = str(Path(__file__).parent)


class Session:
    """Answers the messages of one or several front ends about one study.

    Args:
        study: The study.
        limits: How much work may be asked for.
        debug: Send tracebacks to the front end; else they are in the log only.

    Example:
        >>> import torch
        >>> from attrib import insights
        >>> from attrib.insights.session import Session
        >>> data, features = [(torch.ones(2), 0)], {"row": insights.tabular(["a", "b"])}
        >>> study = insights.Study(models=torch.nn.Linear(2, 3), data=data, features=features)
        >>> session = Session(study)
        >>> reply = session.ask({"v": 1, "id": "1", "type": "attribute", "sample": 0,
        ...                      "method": "saliency"})
        >>> reply["type"], reply["features"]["row"]["values"].shape
        ('result', (2,))
        >>> session.close()
    """

    def __init__(self, study: Study, *, limits: Limits | None = None, debug: bool = False) -> None:
        self._bench = Workbench(study, limits or Limits())
        self._debug = debug
        chosen = self._bench.limits
        self.workers = Workers(
            chosen.workers, chosen.waiting, chosen.seconds, chosen.memory_bytes, self._failed
        )
        self._runs: dict[str, Callable[[dict[str, Any], Emit], dict[str, Any]]] = {
            "init": self._init,
            "query": self._query,
            "attribute": self._attribute,
            "predict": self._predict,
            "cost": self._cost,
            "overview": lambda message, tell: overview(self._bench, message, tell),
            "values": lambda message, tell: tables.values(self._bench, message),
            "curves": lambda message, tell: tables.curves(self._bench, message),
            "convergence": lambda message, tell: tables.convergence(self._bench, message),
            "export": lambda message, tell: files(self._bench, message),
        }

    def handle(self, data: bytes | str | Mapping[str, Any], emit: Emit) -> None:
        """Answer a message: `emit` gets headers that may hold arrays, the last one terminal.

        It is called in this thread and in those of the workers, and must not block.
        """
        try:
            message = parse(data)
        except Failure as failure:
            emit({**self._failed(failure), "id": _id_of(data)})
            return
        client, id = message["client"], message["id"]
        if message["type"] == "cancel":
            self.workers.cancel(client, message["job"])
            emit({"type": "ok", "id": id})
            return
        try:
            if message["type"] == "attribute" and self._bench.cached(message):
                emit({**self._attribute(message, emit), "id": id})
                return
            self._submit(message, Listener(client, id, emit, message.get("slot")))
        except Exception as error:
            emit({**self._failed(error), "id": id})

    def ask(self, data: bytes | str | Mapping[str, Any], timeout: float = 600) -> dict[str, Any]:
        """Answer a message and wait for the terminal reply.

        Raises:
            TimeoutError: If there is none in time.
        """
        done = threading.Event()
        replies: list[dict[str, Any]] = []

        def emit(message: dict[str, Any]) -> None:
            replies.append(message)
            if message["type"] not in ("progress", "partial"):
                done.set()

        self.handle(data, emit)
        if not done.wait(timeout):
            raise TimeoutError
        return replies[-1]

    def cancel(self, client: str, id: str | None = None) -> None:
        """Stop waiting for one message of a client, or for all."""
        self.workers.cancel(client, id)

    def close(self) -> None:
        """End the threads of the workers."""
        self.workers.close()

    @property
    def bytes(self) -> int:
        """How much memory the results take that are kept."""
        return self._bench.cache.bytes

    def _submit(self, message: dict[str, Any], listener: Listener) -> None:
        kind = message["type"]
        run = self._runs[kind]
        mine = ("id", "client", "slot", "priority")
        key = json.dumps({k: v for k, v in message.items() if k not in mine}, sort_keys=True)
        phase = {"query": "predictions", "init": "predictions", "attribute": "attribution"}
        # What a page asks for beside attributions is short, and someone waits for it.
        brief = "priority" not in message
        job = Job(key, lambda tell: run(message, tell), phase.get(kind) or kind, brief)
        self.workers.submit(job, listener, message.get("priority", "click"))

    def _init(self, message: dict[str, Any], tell: Emit) -> dict[str, Any]:
        study = self._bench.study
        heads: dict[str, Any] = {}
        for model in study.models if len(study.data) else ():
            try:
                heads[model] = self._bench.predictions.head(model)
            except Exception as error:  # its predictions say so
                _LOG.warning("model %r: %s", model, error)
                heads[model] = None
        return self._bench.catalogue.config(heads, self._bench.limits, self._debug)

    def _query(self, message: dict[str, Any], tell: Emit) -> dict[str, Any]:
        bench = self._bench
        model = bench.model(message["model"])
        query = {**message, "model": model}
        chosen, counts = choose(bench.study, bench.predictions, query, bench.mass)
        first = message["offset"]
        shown = chosen[first : first + message["limit"]]
        bench.predictions.of(shown)
        notices: list[dict[str, Any]] = []
        if message["sort"].endswith("mass"):
            text = "sorted by the attributions computed so far; others come last"
            notices.append({"kind": "info", "message": text, "feature": None})
        return {
            "type": "samples",
            "total": len(bench.study.data),
            "matched": len(chosen),
            "offset": first,
            "limit": message["limit"],
            "rows": [bench.shown(index, model) for index in shown],
            "counts": counts,
            "notices": notices,
        }

    def _attribute(self, message: dict[str, Any], tell: Emit) -> dict[str, Any]:
        started = time.perf_counter()
        outcome = self._bench.outcome(message)
        if message["change"]:
            outcome = self._bench.changed(outcome)
        model, sample = self._bench.model(message["model"]), message["sample"]
        rule, edited = message["target"], bool(message["edits"])
        shown = payload.result(
            outcome.task, outcome.found, rule, model=model, sample=sample, edited=edited
        )
        if message["change"]:
            silent = [name for name, one in shown["features"].items() if one is None]
            text = "no difference: there is nothing of it, or not as many entries as before"
            shown["notices"] += [payload.notice("info", text, name) for name in silent]
        if not edited:
            mass = sum(one["absolute"] for one in shown["features"].values() if one is not None)
            self._bench.mass[model, sample] = mass
        return {
            **shown,
            "seconds": time.perf_counter() - started,
            "cached": outcome.cached,
            "change": message["change"],
            "snippet": snippet(outcome.task, outcome.found, message),
        }

    def _predict(self, message: dict[str, Any], tell: Emit) -> dict[str, Any]:
        bench, study = self._bench, self._bench.study
        sample = bench.sample(message["sample"])
        edited = bench.edited(sample, message["edits"])
        changed = bench.predictions.of_sample(edited)
        pairs = [(bench.row(message["sample"]), "original"), (changed, "predictions")]
        told = {
            word: [
                payload.prediction(study, model, one, sample.label)
                for model, one in zip(study.models, found, strict=True)
            ]
            for found, word in pairs
        }
        features = payload.view(study, edited)
        return {"type": "prediction", "sample": message["sample"], **told, "features": features}

    def _cost(self, message: dict[str, Any], tell: Emit) -> dict[str, Any]:
        model = self._bench.model(message["model"])
        passes = self._bench.catalogue.cost(message["method"], model, message["args"])
        return {"type": "cost", "passes": passes}

    def _failed(self, error: BaseException) -> dict[str, Any]:
        """An exception in words; its traceback is in the log."""
        field = hint = code = None
        message = str(error)
        if isinstance(error, Failure):
            kind, field, hint, code = error.kind, error.field, error.hint, error.code
        elif isinstance(error, AttribError):
            kind, code = "value", error.code
            first = message.partition(":")[0]
            field = first if first.isidentifier() else None
        else:
            _LOG.error("a computation failed", exc_info=error)
            kind, message, hint = _unexpected(error)
        told = {"kind": kind, "message": pathless(message)[:1000], "field": field}
        details = "".join(traceback.format_exception(error)) if self._debug else None
        return {"type": "error", **told, "hint": hint, "code": code, "details": details}


def _unexpected(error: BaseException) -> tuple[str, str, str | None]:
    if isinstance(error, Exception) and (isinstance(error, MemoryError) or out_of_memory(error)):
        return "memory", "there is not enough memory", "lower the chunk size, or choose fewer steps"
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and frames[-1].filename.startswith(_HERE)
    return "internal" if ours else "model", f"{type(error).__name__}: {error}", None


def _id_of(data: Any) -> str:
    """The id of a message that was refused, if it has one."""
    try:
        given = json.loads(data) if isinstance(data, (bytes, str)) else data
        id = given["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return id[:64] if isinstance(id, str) else ""
