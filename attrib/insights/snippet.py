"""The lines of Python that compute a result again: calls of attrib, and nothing of this package but
the study itself."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attrib.insights.explain import EXCHANGED, Explained
from attrib.insights.heads import is_site
from attrib.insights.registry import METHODS
from attrib.insights.study import Study, device_of, inputs_of, sample_of
from attrib.insights.task import Task, alike, baseline_choices, entered_places, follows
from attrib.insights.written import Part, joined, written_options

__all__ = ["snippet"]


def snippet(task: Task, found: Explained, request: Mapping[str, Any]) -> str:
    """A program that starts from the study, for what was explained, what came of it, and the
    message that asked for it."""
    study, role = task.study, found.role
    several = len(study.features) > 1
    parts = [
        Part(name, kind, leaf, f"x[{place}]" if several else "x", tuple(shape[leaf.ndim :]))
        for place, ((name, kind), leaf, shape) in enumerate(
            zip(study.features.items(), task.sample.leaves, found.shapes, strict=True)
        )
    ]
    options, before = written_options(task, parts)
    lines = [
        "import torch",
        "import attrib",
        "",
        f"model = study.models[{request['model'] or next(iter(study.models))!r}]",
        *_inputs(task, request),
        f"f = {_score(task)}",
        *_compared(task, role, request, parts),
        *_entered(task, role, parts),
        *before,
        f"attribution = {_call(task, role, options)}",
        *_shown(task, found, parts),
    ]
    return "\n".join(lines) + "\n"


def _inputs(task: Task, request: Mapping[str, Any]) -> list[str]:
    """The sample, edited if it was: ``x`` and further arguments, with a batch dimension."""
    study, index = task.study, request["sample"]
    labelled, parts = inputs_of(study.data[index])
    lines = [f"inputs{', label' * labelled} = study.data[{index}]"]
    plain = not isinstance(study.data[index][0] if labelled else study.data[index], tuple)
    sources = ["inputs"] if plain else [f"inputs[{place}]" for place in range(len(parts))]
    count = len(study.features)
    original = sample_of(study, index)
    sources[:count] = map(_tensor, sources, parts, original.leaves)
    for place, (name, kind) in enumerate(study.features.items()):
        if name not in request["edits"]:
            continue
        edit, leaf = request["edits"][name], original.leaves[place]
        fill = edit.get("fill", next(iter(baseline_choices(study, name))))
        given = _filled(study, name, fill, sources[place], sources[place])
        changed = f"study.features[{name!r}].edited({sources[place]}, {_written(edit)}, {given})"
        sources[place] = f"edited_{place}"
        lines.append(f"{sources[place]}, kept = {changed}")
        for more, value in enumerate(original.args):
            if kind.kind == "text" and follows(value, len(leaf)):
                lines.append(f"kept_{more} = {sources[count + more]}[..., kept]")
                sources[count + more] = f"kept_{more}"
    there = device_of(task.model)
    moved = "" if there in (None, original.leaves[0].device) else f".to({str(there)!r})"
    batch = [
        f"{source}[None]{moved}" if isinstance(value, Tensor) else source
        for source, value in zip(sources, (*original.leaves, *original.args), strict=True)
    ]
    lines.append(f"x = {joined(batch[:count])}")
    if len(batch) > count:
        lines.append(f"args = [{', '.join(batch[count:])}]")
    return lines


def _tensor(source: str, given: Any, leaf: Tensor) -> str:
    """An input as a tensor, if it is none."""
    return source if isinstance(given, Tensor) else f"torch.as_tensor({source}, dtype={leaf.dtype})"


def _written(value: Any) -> str:
    return json.dumps(value).replace("null", "None")


def _filled(study: Study, name: str, choice: str, leaf: str, like: str) -> str:
    """A baseline by its name, as large as an input."""
    value, given = baseline_choices(study, name)[choice], study.baselines.get(name)
    if isinstance(value, (int, float)):
        return f"torch.full_like({like}, {value!r})"
    if choice in study.features[name].choices() and value is study.features[name].choices()[choice]:
        source = f"study.features[{name!r}].choices()[{choice!r}]"
    else:
        source = f"study.baselines[{name!r}]" + f"[{choice!r}]" * isinstance(given, Mapping)
    made = f"{source}({leaf})" if callable(value) else source
    return f"torch.as_tensor({made}).to({like}).expand_as({like})"


def _score(task: Task) -> str:
    first, second = (_target(task, index) for index in task.pair)
    return first if task.pair[1] is None else f"attrib.contrast({first}, {second})"


def _target(task: Task, index: int | None) -> str:
    output = "" if task.study.output is None else ", output=study.output"
    if task.head.task == "classes":
        return f"attrib.target(model, {index}{output})"
    if task.head.task == "binary" and index == 0:  # the only logit speaks for the second class
        return f"attrib.target(model, lambda logit: -logit.reshape(len(logit)){output})"
    return f"attrib.target(model{output})"


def _compared(
    task: Task, role: str | None, request: Mapping[str, Any], parts: list[Part]
) -> list[str]:
    """The baseline, the baselines, or the samples that values are exchanged with."""
    study = task.study
    if role == "baseline" and not task.args.get("interventional"):
        filled = [
            _filled(study, part.name, task.baseline[part.name], f"{part.x}[0]", part.x)
            for part in parts
        ]
        return [f"baseline = {joined(filled)}"]
    several = task.method.call == "several"
    if not several and role is None:
        return []
    wanted = EXCHANGED if several else task.args["references"]
    labelled, inputs = inputs_of(study.data[request["sample"]])
    plain = len(inputs) == 1
    lines = [f"others = [study.data[i]{'[0]' * labelled} for i in {[*alike(task)][:wanted]}]"]
    stacks = [
        f"torch.stack([{_tensor('other' if plain else f'other[{k}]', inputs[k], part.leaf)} "
        "for other in others])"
        for k, part in enumerate(parts)
    ]
    if not several:
        return [*lines, f"baseline = {joined(stacks)}"]
    batch = [f"torch.cat([{part.x}, {rest}])" for part, rest in zip(parts, stacks, strict=True)]
    lines.append(f"x = {joined(batch)}")
    if task.sample.args:
        lines.append("args = [torch.cat([part] * (len(others) + 1)) for part in args]")
    return lines


def _entered(task: Task, role: str | None, parts: list[Part]) -> list[str]:
    """Token ids have no derivatives: the score of their embeddings."""
    names = ["x", *(["baseline"] if role is not None else [])]
    made = [
        f"study.features[{part.name!r}].embed({{}})"
        if part.kind.embed is not None and not is_site(part.kind.embed, task.model)
        else "{}"
        for part in parts
    ]
    lines: list[str] = []
    if any(code != "{}" for code in made):
        for name in names:
            own = [name] if len(parts) == 1 else [f"{name}[{k}]" for k in range(len(parts))]
            filled = [code.format(one) for code, one in zip(made, own, strict=True)]
            lines.append(f"{name} = {joined(filled)}")
    inside = entered_places(task)
    if not inside:
        return lines
    args = ", *args" * bool(task.sample.args)
    sites = [_module(task, parts[place]) for place in inside]
    lines.append("# Token ids have no derivatives, what the model makes of them has.")
    lines.append(f"head, tail = attrib.split(f, [{', '.join(sites)}])")
    if len(parts) == 1:
        behind, ids = "lambda h, ids, *args: tail([h], ids, *args)", "x"
        heads = [f"{name} = head({name}{args})[0]" for name in reversed(names)]
    else:
        own = [f"ids_{k}" if k in inside else f"h[{k}]" for k in range(len(parts))]
        rows = [f"ids_{k}" for k in inside]
        behind = (
            f"lambda h, {', '.join(rows)}, *args: tail([{', '.join(f'h[{k}]' for k in inside)}], "
            f"({', '.join(own)}), *args)"
        )
        ids = ", ".join(f"x[{k}]" for k in inside)
        heads = [
            f"{name} = ({', '.join(_entering(name, k, inside, args) for k in range(len(parts)))})"
            for name in reversed(names)
        ]
    return [*lines, f"f = attrib.batched({behind}, rows=[{ids}])", *heads]


def _entering(name: str, place: int, inside: list[int], args: str) -> str:
    if place not in inside:
        return f"{name}[{place}]"
    return f"head({name}{args})[{inside.index(place)}]"


def _module(task: Task, part: Part) -> str:
    site = part.kind.embed
    if isinstance(site, str):
        return repr(site)
    names = [name for name, module in task.model.named_modules() if module is site]
    return repr(names[0]) if names else f"study.features[{part.name!r}].embed"


def _call(task: Task, role: str | None, options: list[str]) -> str:
    """The call of the factory, and that of what it makes."""
    method = task.method
    parameters = list(inspect.signature(method.make).parameters)
    first = "f"
    if parameters[0] in ("attribute", "method"):
        base = f"attrib.{task.args[parameters[0]]}"
        first = f"{base}(f)" if parameters[0] == "attribute" else f"{base}, f"
    made = f"study.methods[{method.name!r}]"
    if METHODS.get(method.name) == method:
        made = f"attrib.{'games.' * (method.name == 'svarm')}{method.name}"
    data = ["x", *["baseline"] * (role in ("baseline", "baselines"))]
    given = ", ".join([*data, *["*args"] * bool(task.sample.args)])
    only = "[:1]" * (method.call == "several" and len(task.study.features) == 1)
    return f"{made}({', '.join([first, *options])})({given}){only}"


def _shown(task: Task, found: Explained, parts: list[Part]) -> list[str]:
    """What a card makes of attributions to channels and to embeddings."""
    if task.method.gives == "map":
        sizes = [tuple(leaf.shape) for leaf in found.leaves if leaf is not None]
        space = 2 if parts[0].kind.kind == "image" else 1
        larger = f"attrib.upsample(attribution, {sizes[0][-space:]})" if sizes else ""
        return [f"shown = {larger}  # as on the card"] if sizes and len(parts) == 1 else []
    if task.method.gives != "input":
        return []
    value = "attribution" if found.errors[0] is None else "attribution.value"
    names = [f"{value}[{k}]" if len(parts) > 1 else value for k in range(len(parts))]
    total = "mean" if found.grouped else "sum"
    shown = [
        f"{name}.{total}(1)"
        if part.kind.kind == "image" and part.leaf.ndim == 3
        else f"{name}.flatten(2).{total}(2)"
        if part.kind.kind == "text" and part.more
        else name
        for name, part in zip(names, parts, strict=True)
    ]
    return [] if shown == names else [f"shown = {joined(shown)}  # as on the card"]
