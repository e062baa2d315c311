"""The lines of Python that compute a result again."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from attrib._batched import baseline_of
from attrib.insights.plain import is_list
from attrib.insights.registry import options_of
from attrib.insights.special import REDUCERS
from attrib.insights.task import Task, baseline_choices

__all__ = ["snippet"]

# Options of which a line of code would not tell what they stand for.
_OPAQUE = {"unions", "index", "path", "similarity", "reshape", "perturb", "interventional"}


def snippet(task: Task, request: Mapping[str, Any]) -> str:
    """A program that starts from the study: calls of attrib where they are plain, else the message
    that was answered."""
    return _plain(task, request) if _is_plain(task, request) else _asked(request)


def _is_plain(task: Task, request: Mapping[str, Any]) -> bool:
    embedded = any(feature.embed is not None for feature in task.study.features.values())
    opaque = [name for name in _OPAQUE & set(options_of(task.method)) if task.args.get(name)]
    several = "references" in task.args and "interventional" not in task.args
    sets = several or task.method.call is not None
    known = task.method.group != "yours" and task.head.task == "classes"
    single = len(task.study.features) == 1 and not task.sample.args
    return known and single and not (embedded or opaque or sets or request["edits"])


def _plain(task: Task, request: Mapping[str, Any]) -> str:
    (name, feature), study = next(iter(task.study.features.items())), task.study
    item: Any = study.data[request["sample"]]
    labelled = isinstance(item, (tuple, list)) and len(item) == 2  # pyright: ignore[reportUnknownArgumentType]
    first, second = task.pair
    output = "" if study.output is None else ", output=study.output"
    target = f"attrib.target(model, {first}{output})"
    if second is not None:
        target = f"attrib.contrast({target}, attrib.target(model, {second}{output}))"
    lines = [
        "import torch",
        "import attrib",
        "",
        f"model = study.models[{request['model'] or next(iter(study.models))!r}]",
        f"x = study.data[{request['sample']}]{'[0]' * labelled}[None]",
        f"f = {target}",
    ]
    if f"groups.{name}" in task.args:
        grouping = task.args[f"groups.{name}"]
        lines.append(f"groups = study.features[{name!r}].groupings()[{grouping!r}](x[0])")
    call = _call(task, name)
    if "baseline" in call[1]:
        choice = task.baseline[name]
        value = baseline_choices(study, name)[choice]
        if isinstance(value, (int, float)):
            lines.append(f"baseline = {value!r}")
        elif choice in feature.choices():
            lines.append(f"baseline = study.features[{name!r}].choices()[{choice!r}](x[0])")
        else:
            lines.append(f"baseline = study.baselines[{name!r}]  # {choice}, for x[0]")
    return "\n".join([*lines, f"attribution = {''.join(call)}"]) + "\n"


def _call(task: Task, feature: str) -> tuple[str, str]:
    """The call of the factory, and that of what it makes."""
    method = task.method
    parameters = list(inspect.signature(method.make).parameters)
    options = [
        text
        for name, parameter in options_of(method).items()
        if (text := _option(name, parameter.default, task.args, feature))
    ]
    inner = "f"
    if parameters[0] in ("attribute", "method"):
        base = f"attrib.{task.args[parameters[0]]}"
        inner = f"{base}(f)" if parameters[0] == "attribute" else f"{base}, f"
    module = "attrib.games" if method.name == "svarm" else "attrib"
    made: Callable[..., Any] = method.make
    takes = method.grouped or _takes_baseline(made)
    return (
        f"{module}.{method.name}({', '.join([inner, *options])})",
        "(x, baseline)" * takes or "(x)",
    )


def _takes_baseline(make: Callable[..., Any]) -> bool:
    try:
        return baseline_of(make(torch.sum)) == "baseline"
    except TypeError:  # it needs more than a score: a layer, or another method
        return "baseline=0" in (make.__doc__ or "")


def _option(name: str, default: Any, args: Mapping[str, Any], feature: str) -> str | None:
    """An option that is not as it would be anyway."""
    if name in ("attribute", "method"):
        return None
    if name == "groups":
        return "groups=groups"
    if name in ("window", "strides"):
        value = args[f"{name}.{feature}"]
        return f"{name}={tuple(value)!r}"
    if name == "generator":
        return f"generator=torch.Generator().manual_seed({args['seed']})"
    value: Any = args.get(name)
    if name == "reduce":
        return None if REDUCERS[value] is default else f"reduce=attrib.{value}"
    if name == "composite" and value is not None:
        return f"composite=attrib.rules.{value}()"
    if value is None or value == default:
        return None
    return f"{name}={tuple(value) if is_list(value) else value!r}"


def _asked(request: Mapping[str, Any]) -> str:
    kept = ("sample", "model", "target", "method", "args", "baseline", "edits")
    message = {"v": 1, "id": "1", "type": "attribute", **{key: request[key] for key in kept}}
    text = json.dumps(message, ensure_ascii=True)
    return (
        "import json\n"
        "from attrib.insights.session import Session\n\n"
        "session = Session(study)\n"
        f"result = session.ask(json.loads({text!r}))\n"
        "session.close()\n"
    )
