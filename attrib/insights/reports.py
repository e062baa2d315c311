"""Results that leave the session: one self-contained page, JSON, NPZ."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attrib._checks import check_choice
from attrib._progress import monitored, report
from attrib.errors import AttribValueError
from attrib.insights import assets, payload
from attrib.insights.features.measures import as_numbers
from attrib.insights.protocol import Failure, Message, pack
from attrib.insights.snippet import snippet
from attrib.insights.study import Study
from attrib.insights.workbench import Limits, Outcome, Workbench

__all__ = ["export", "files", "page"]

FORMATS = {"html": "text/html", "json": "application/json", "npz": "application/octet-stream"}


def export(
    study: Study | Mapping[str, Any],
    path: str | Path,
    *,
    samples: Iterable[int] | None = None,
    methods: Iterable[Any] | None = None,
    targets: Any = "pred",
    model: str | None = None,
) -> Path:
    """Write results to a file: a page that needs no network and no server, or numbers.

    Args:
        study: What is to be explained, or the arguments of `Study`.
        path: Where to; ``.html`` makes a page, ``.json`` and ``.npz`` hold the numbers.
        samples: Which; the first six if left out.
        methods: Names of methods, or pairs of a name and options ``("lime", {"samples": 200})``;
            the default method if left out.
        targets: ``"pred"``, ``"label"``, ``"top2"`` to ``"top5"``, or a list of classes.
        model: The name of a model; all of them if left out.

    Returns:
        The path.

    Raises:
        AttribValueError: If the ending is unknown, or there is no such sample, method or option.
        Exception: Whatever a model raises.

    Example:
        >>> import tempfile, torch
        >>> from attrib import insights
        >>> data, features = [(torch.ones(2), 0)], {"row": insights.tabular(["a", "b"])}
        >>> study = insights.Study(models=torch.nn.Linear(2, 3), data=data, features=features)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = insights.export(study, folder + "/report.json", methods=["saliency"])
        ...     "saliency" in path.read_text()
        True
    """
    import torch

    found = Study(**study) if isinstance(study, Mapping) else study
    path = Path(path)
    check_choice(path.suffix[1:], "path", list(FORMATS))
    bench = Workbench(found, Limits())
    chosen = list(range(min(6, len(found.data)))) if samples is None else list(samples)
    asked = [bench.catalogue.default()] if methods is None else [_asked(m) for m in methods]
    request = {
        "format": path.suffix[1:],
        "samples": chosen,
        "methods": asked,
        "targets": targets,
        "model": model,
        "estimate": False,
    }
    try:
        with torch.no_grad():
            written = files(bench, request)
    except Failure as failure:
        raise AttribValueError(f"export: refused, got {failure}", code="export.refused") from None
    path.write_bytes(written["data"].tobytes())
    return path


def files(bench: Workbench, request: Mapping[str, Any]) -> dict[str, Any]:
    """The file that a message asks for, or how large it will be."""
    kind = request["format"]
    outcomes = _outcomes(bench, request)
    data = _WRITE[kind](bench, request, outcomes)
    return {
        "type": "file",
        "name": f"attrib.{kind}",
        "mime": FORMATS[kind],
        "bytes": len(data),
        "data": None if request["estimate"] else np.frombuffer(data, np.uint8),
    }


def page(config: Message, rows: Sequence[Message], results: Sequence[Message]) -> str:
    """A page with the front end and everything it can be asked for."""
    told = {
        "v": 1,
        "config": _record(config),
        "rows": [_record(row) for row in rows],
        "results": [_record(result) for result in results],
    }
    boot = (
        'mount(document.getElementById("attrib"), frozenHost(JSON.parse('
        'document.getElementById("attrib-data").textContent)));\n'
    )
    lines = assets.bundle().splitlines(keepends=True)
    script = "".join(line for line in lines if not line.startswith("export ")) + boot
    script = script.replace("</script", "<\\/script")
    style = assets.text("app.css")
    return _PAGE.format(
        title=html.escape(str(config.header["study"]["name"])),
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        style=style,
        data=_escaped(json.dumps(told, allow_nan=False, separators=(",", ":"))),
        script=script,
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<div id="attrib"></div>
<script type="application/json" id="attrib-data">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def _escaped(text: str) -> str:
    """Text that ends no element, whatever it says, and means the same in JSON strings."""
    characters = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
    characters |= {"\u2028": "\\u2028", "\u2029": "\\u2029"}
    return text.translate(str.maketrans(characters))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _record(message: Message) -> dict[str, Any]:
    buffers = [base64.b64encode(buffer).decode() for buffer in message.buffers]
    return {"header": message.header, "buffers": buffers}


def _asked(method: Any) -> dict[str, Any]:
    pair: Any = (method, {}) if isinstance(method, str) else method
    return {"method": pair[0], "args": dict(pair[1]), "baseline": {}}


Outcomes = list[tuple[str, int, Any, Outcome]]


def _outcomes(bench: Workbench, request: Mapping[str, Any]) -> Outcomes:
    """Every result of the file, with its model, sample and target."""
    models = list(bench.study.models) if request["model"] is None else [request["model"]]
    asked = [
        (bench.model(model), sample, target, method)
        for sample in request["samples"]
        for model in models
        for target in _targets(bench, bench.model(model), sample, request["targets"])
        for method in request["methods"]
    ]
    found: Outcomes = []
    for done, (model, sample, target, method) in enumerate(asked):
        report(done, len(asked))
        one: dict[str, Any] = {"args": {}, "baseline": {}, **method, "edits": {}}
        with monitored(done, len(asked)):
            outcome = bench.outcome({**one, "model": model, "sample": sample, "target": target})
        found.append((model, sample, target, outcome))
    report(len(asked), len(asked))
    return found


def _targets(bench: Workbench, model: str, sample: int, rule: Any) -> list[Any]:
    if isinstance(rule, (list, tuple)):
        return list(rule)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if rule in ("pred", "label"):
        return [rule]
    if not (isinstance(rule, str) and rule.startswith("top") and rule[3:].isdecimal()):
        raise Failure(
            "field", "targets: must be pred, label, top1 to top5 or classes", field="targets"
        )
    bench.sample(sample)
    bench.row(sample)
    found = bench.predictions.known(model, sample)
    classes = [index for index, *_ in found.top[: int(rule[3:])]] if found is not None else []
    return list(classes) or ["pred"]


def _html(bench: Workbench, request: Mapping[str, Any], outcomes: Outcomes) -> bytes:
    heads = {model: bench.predictions.known_head(model) for model in bench.study.models}
    config = bench.catalogue.config(heads, bench.limits, False)
    rows: list[dict[str, Any]] = [
        {
            "type": "samples",
            "total": len(request["samples"]),
            "matched": len(request["samples"]),
            "offset": 0,
            "limit": len(request["samples"]),
            "rows": [bench.shown(sample)],
            "counts": {},
            "notices": [],
        }
        for sample in request["samples"]
    ]
    results = [
        {
            **payload.result(
                outcome.task, outcome.found, rule, model=model, sample=sample, edited=False
            ),
            "seconds": 0.0,
            "cached": True,
            "snippet": snippet(outcome.task, outcome.found, outcome.request),
        }
        for model, sample, rule, outcome in outcomes
    ]
    packed = [[pack({**one, "id": ""}) for one in part] for part in (rows, results)]
    return page(pack({**config, "id": ""}), *packed).encode()


def _json(bench: Workbench, request: Mapping[str, Any], outcomes: Outcomes) -> bytes:
    entries: list[dict[str, Any]] = []
    for model, sample, rule, outcome in outcomes:
        told = payload.result(
            outcome.task, outcome.found, rule, model=model, sample=sample, edited=False
        )
        kept = ("sample", "model", "method", "args", "baseline", "target", "score", "base", "sum")
        values = {
            name: None if leaf is None else _nested(as_numbers(leaf))
            for name, leaf in zip(bench.study.features, outcome.found.leaves, strict=True)
        }
        entries.append({**{key: told[key] for key in (*kept, "gap", "shares")}, "values": values})
    document = {"version": 1, "study": bench.study.name, "results": entries}
    return json.dumps(pack(document).header, allow_nan=False).encode()


def _nested(numbers: Any) -> Any:
    # Lists, and not a buffer: the file is to be read by anything.
    return numbers.tolist()


def _npz(bench: Workbench, request: Mapping[str, Any], outcomes: Outcomes) -> bytes:
    arrays: dict[str, Any] = {}
    for model, sample, _, outcome in outcomes:
        first, second = outcome.task.pair
        target = "output" if first is None else f"{first}" + f"-{second}" * (second is not None)
        for name, leaf in zip(bench.study.features, outcome.found.leaves, strict=True):
            if leaf is not None:
                key = f"{sample}/{model}/{outcome.task.method.name}/{target}/{name}"
                arrays[key] = leaf.numpy()
    written = io.BytesIO()
    np.savez_compressed(written, allow_pickle=False, **arrays)
    return written.getvalue()


_WRITE = {"html": _html, "json": _json, "npz": _npz}
