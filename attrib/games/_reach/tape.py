"""What was computed while nothing was hidden, to be computed again for windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib.games._reach.calls import Call
from attrib.games._reach.operations import entry_by_entry
from attrib.games._reach.patches import Chunk, Known, Patch, pasted
from attrib.games._reach.work import STEP

__all__ = ["Step", "Tape", "on_whole", "pasting_of"]

Run = Callable[[Chunk, list[Any]], list[Any]]
"""``run(chunk, inputs)``: from patches, or whole tensors ``(windows, ...)``, to others."""


class Step(NamedTuple):
    """One operation.

    Attributes:
        run: What is done.
        inputs: The numbers of what it takes.
        outputs: The numbers of what it makes.
        work: What it costs for one window.
        entries: How many numbers it makes for one window.
    """

    run: Run
    inputs: list[int]
    outputs: list[int]
    work: float
    entries: int


@dataclass(frozen=True, eq=False)
class Tape:
    """Operations, each of which something behind it needs.

    Attributes:
        steps: The operations, in order.
        result: The number of the result.
        value: The result while nothing is hidden.
        plain: What one evaluation costs without patches.
    """

    steps: list[Step]
    result: int
    value: Tensor
    plain: float

    @classmethod
    def leading_to(cls, steps: list[Step], result: int, value: Tensor, plain: float) -> Tape:
        """The operations without those of which nothing is needed."""
        needed, kept = {result}, list[Step]()
        for step in reversed(steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                kept.append(step)
        return cls(kept[::-1], result, value, plain)

    def work(self, windows: int, together: int) -> float:
        """What so many windows cost, the evaluation that was recorded among them."""
        calls = -(-windows // together) * len(self.steps)
        return self.plain + windows * sum(step.work for step in self.steps) + calls * STEP

    @property
    def entries(self) -> int:
        """The most numbers that a step makes for one window."""
        return max(step.entries for step in self.steps)

    def played(self, chunk: Chunk, patches: Mapping[int, Patch]) -> Tensor:
        """The result, ``(windows, examples)``.

        Args:
            chunk: How many windows and examples.
            patches: What they make of the inputs, by number.
        """
        last = {slot: place for place, step in enumerate(self.steps) for slot in step.inputs}
        made: dict[int, Any] = dict(patches)
        for place, (run, inputs, outputs, *_) in enumerate(self.steps):
            results = run(chunk, [made[slot] for slot in inputs])
            made.update(zip(outputs, results, strict=True))
            for slot in {*inputs, *outputs}:
                if slot != self.result and last.get(slot, -1) <= place:
                    del made[slot]  # needed no more
        return made[self.result]


def pasting_of(known: Known) -> Run:
    """From a patch to the whole tensor."""
    return lambda chunk, inputs: [pasted(known, inputs[0], chunk)]


def on_whole(call: Call) -> Run:
    """The operation itself on whole tensors."""
    by_rows = _is_by_rows(call)

    def again(*tensors: Tensor) -> tuple[Tensor, ...]:
        result = call.again(call.places, tensors)
        return (result,) if isinstance(result, Tensor) else tuple(result)

    def run(chunk: Chunk, inputs: list[Any]) -> list[Any]:
        if by_rows:
            # `torch.vmap` costs as much as a small kernel, and refuses some normalisations.
            found = again(inputs[0].flatten(0, 1))
            return [found[0].unflatten(0, (chunk.windows, -1))]
        return list(torch.vmap(again)(*inputs))

    return run


_BY_ROWS = ("batch_norm", "group_norm", "instance_norm", "linear")
"""Operations whose first argument has rows that do not interact, if it has two dimensions."""


def _is_by_rows(call: Call) -> bool:
    if call.places != [0] or len(call.results) != 1:
        return False
    dims = call.values[0].tensor.ndim
    return (dims > 0 and entry_by_entry(call)) or (dims > 1 and call.operation.name in _BY_ROWS)
