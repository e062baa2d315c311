"""The options of a call as Python: what the library takes for what a form holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from attrib.insights.features import Feature
from attrib.insights.plain import is_list
from attrib.insights.registry import options_of
from attrib.insights.special import REDUCERS
from attrib.insights.study import device_of
from attrib.insights.task import Task

__all__ = ["Part", "joined", "written_options"]


class Part(NamedTuple):
    """An input of the model.

    Attributes:
        name: That of the feature.
        kind: The feature.
        leaf: The input of the sample, without batch dimension.
        x: What it is called, with batch dimension.
        more: Further dimensions of what the method takes in its place, an embedding.
    """

    name: str
    kind: Feature
    leaf: Tensor
    x: str
    more: tuple[int, ...]


def joined(parts: Sequence[str]) -> str:
    """The only one, or a tuple of them."""
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def written_options(task: Task, parts: list[Part]) -> tuple[list[str], list[str]]:
    """The options that are not as they would be anyway, and the lines that they need before."""
    found: list[str] = []
    before: list[str] = []
    # The unions are made of the groups.
    for name, parameter in sorted(
        options_of(task.method).items(), key=lambda one: one[0] == "unions"
    ):
        if name in ("attribute", "method"):
            continue
        if name in _WRITTEN:
            text, lines = _WRITTEN[name](task, parts)
            before += lines
        else:
            value: Any = task.args.get(name)
            if name not in task.args or value is None or value == parameter.default:
                continue
            text = repr(tuple(value) if is_list(value) else value)
        if text:
            found.append(f"{name}={text}")
    return found, before


Written = tuple[str, list[str]]
"""The value of an option, if it has to be given, and the lines that it needs before."""


def _grouping(word: str) -> Callable[[Task, list[Part]], Written]:
    """Ids of groups, or of unions; no two inputs have one in common."""

    def written(task: Task, parts: list[Part]) -> Written:
        lines: list[str] = []
        names = [f"{word}_{k}" if len(parts) > 1 else word for k in range(len(parts))]
        offset = 0
        for name, part in zip(names, parts, strict=True):
            grouping = part.kind.groupings()[task.args[f"{word}.{part.name}"]]
            ids = grouping(part.leaf)
            lines.append(f"{name} = {grouping.code(part.leaf, f'{part.x}[0]')}{_moved(task, part)}")
            if offset:
                lines.append(f"{name} = torch.where({name} < 0, {name}, {name} + {offset})")
            offset = max(offset, offset + int(ids.max()) + 1)
        if word == "unions":
            return word, [*lines, *_unions(parts)]
        # An embedding has further dimensions, which belong to the token.
        wide = [
            f"{name}[..., None]" if part.more else name
            for name, part in zip(names, parts, strict=True)
        ]
        return joined(wide), lines

    return written


def _unions(parts: list[Part]) -> list[str]:
    """The union of every group."""
    pairs = [(f"_{k}" if len(parts) > 1 else "", part.x) for k, part in enumerate(parts)]
    fine, coarse = (
        "torch.cat([" + ", ".join(f"{w}{k}.expand({x}[0].shape).flatten()" for k, x in pairs) + "])"
        for w in ("groups", "unions")
    )
    return [
        f"fine, coarse = {fine}, {coarse}",
        "unions = torch.zeros(int(fine.max()) + 1, dtype=torch.long, device=fine.device)",
        "unions = unions.scatter(0, fine[fine >= 0], coarse[fine >= 0])",
    ]


def _boxes(word: str) -> Callable[[Task, list[Part]], Written]:
    def written(task: Task, parts: list[Part]) -> Written:
        boxes = [repr((*task.args[f"{word}.{part.name}"], *part.more)) for part in parts]
        return joined(boxes), []

    return written


def _site(word: str) -> Callable[[Task, list[Part]], Written]:
    def written(task: Task, parts: list[Part]) -> Written:
        site = task.args[word]
        return "" if site is None else f"model.get_submodule({site!r})", []

    return written


def _index(task: Task, parts: list[Part]) -> Written:
    index: Any = task.args["index"]
    if not is_list(index) or len(index) > 1:
        return repr(tuple(index) if is_list(index) else index), []
    site = f"model.get_submodule({task.args['site']!r})"
    args = ", *args" * bool(task.sample.args)
    shape = f"attrib.activation(f, {site})(x{args}).shape[1:]"
    return f"tuple(map(int, torch.unravel_index(torch.tensor({index[0]}), {shape})))", []


def _generator(task: Task, parts: list[Part]) -> Written:
    device = _device(task, parts[0])
    return f"torch.Generator({device}).manual_seed({task.args['seed']})", []


def _device(task: Task, part: Part) -> str:
    """Where the model is, if it is not where tensors are made."""
    there = device_of(task.model) or part.leaf.device
    return "" if there.type == "cpu" else repr(str(there))


def _moved(task: Task, part: Part) -> str:
    device = _device(task, part)
    return f".to({device})" if device else ""


def _reduce(task: Task, parts: list[Part]) -> Written:
    default = options_of(task.method)["reduce"].default
    word = task.args["reduce"]
    return "" if REDUCERS[word] is default else f"attrib.{word}", []


def _chosen(word: str, code: str) -> Callable[[Task, list[Part]], Written]:
    """An option that is left out, or written with the word that was chosen."""

    def written(task: Task, parts: list[Part]) -> Written:
        value = task.args[word]
        return "" if value is None else code.format(value), []

    return written


def _reshape(task: Task, parts: list[Part]) -> Written:
    if task.args["reshape"] is None:
        return "", []
    return "square", [
        "def square(h):  # tokens as a square of feature maps, without those before it",
        "    side = int(h.shape[1] ** 0.5)",
        "    return h[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))",
    ]


def _perturb(task: Task, parts: list[Part]) -> Written:
    return f"attrib.perturb.{task.args['perturb']}({task.args['amount']})", []


_WRITTEN: dict[str, Callable[[Task, list[Part]], Written]] = {
    "along": _site("along"),
    "composite": _chosen("composite", "attrib.rules.{}()"),
    "destinations": _site("destinations"),
    "generator": _generator,
    "groups": _grouping("groups"),
    "index": _index,
    "path": _chosen("path", "attrib.blur_path(50.0)"),
    "perturb": _perturb,
    "reduce": _reduce,
    "reshape": _reshape,
    "similarity": _chosen("similarity", "attrib.games.exponential_kernel(distance={!r})"),
    "site": _site("site"),
    "sites": _site("sites"),
    "sources": _site("sources"),
    "strides": _boxes("strides"),
    "unions": _grouping("unions"),
    "window": _boxes("window"),
}
"""What a call says for an option of which the form holds something else."""
