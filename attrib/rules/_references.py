"""Rules that compare a score with itself at a baseline: recorded there, replayed at the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attrib._carriers import Carrier, Plain
from attrib._transforms import compiling
from attrib.errors import AttribValueError
from attrib.rules._flow import Call, Flow, Rule

__all__ = ["OtherPathError", "Recording", "References", "Replaying"]


class OtherPathError(AttribValueError):
    """The score computed something else at the input than at the baseline."""


class References:
    """What the operations with a rule were called with at the baseline, in order.

    Attributes:
        calls: Name and inputs of each.
        used: How many of them have been asked for.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Tensor]]] = []
        self.used = 0

    def next(self, call: Call) -> list[Tensor]:
        """The inputs of the same call at the baseline."""
        name = call.operation.name
        if self.used == len(self.calls):
            _refuse_path(f"one more {name}")
        recorded, inputs = self.calls[self.used]
        self.used += 1
        shapes = [tuple(tensor.shape) for tensor in call.inputs]
        if recorded != name or not _fit(inputs, call.inputs):
            _refuse_path(
                f"{name} of {shapes} where the baseline had {recorded} of "
                f"{[tuple(tensor.shape) for tensor in inputs]}"
            )
        return inputs

    def finish(self) -> None:
        """All of them must have been used."""
        if self.used < len(self.calls):
            _refuse_path(f"no {self.calls[self.used][0]}")


class Recording(Flow):
    """At the baseline: everything as it is, with the inputs of calls that have a rule kept."""

    def __init__(
        self,
        variables: list[Tensor],
        rules: Mapping[Any, Rule],
        unknown: str,
        references: References,
    ) -> None:
        super().__init__(Plain(light=not torch.is_grad_enabled()), variables, rules, unknown)
        self.references = references

    def ruled(self, rule: Rule, call: Call) -> Any:
        """See `Flow`."""
        # What is compiled, or recorded for later derivatives, must not be written to afterwards.
        kept = [tensor.clone() if compiling() else tensor for tensor in call.inputs]
        self.references.calls.append((call.operation.name, kept))
        return call(*call.inputs)

    def overwritten(self, target: Tensor) -> None:
        """See `Flow`."""
        if compiling():
            return
        for _, inputs in self.references.calls:
            for place, tensor in enumerate(inputs):
                if _share(tensor, target):
                    inputs[place] = tensor.clone()


class Replaying(Flow):
    """At the input: every rule is handed what its call was given at the baseline."""

    def __init__(
        self,
        carrier: Carrier,
        variables: list[Tensor],
        rules: Mapping[Any, Rule],
        unknown: str,
        references: References,
    ) -> None:
        super().__init__(carrier, variables, rules, unknown)
        self.references = references

    def ruled(self, rule: Rule, call: Call) -> Any:
        """See `Flow`."""
        call.references = self.references.next(call)
        return rule(call, self.carrier)


def _share(first: Tensor, second: Tensor) -> bool:
    try:
        return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return True  # wrapped by a transform: better one copy too many


def _fit(references: list[Tensor], inputs: tuple[Tensor, ...]) -> bool:
    return len(references) == len(inputs) and all(
        a.shape == b.shape for a, b in zip(references, inputs, strict=True)
    )


def _refuse_path(what: str) -> None:
    raise OtherPathError(
        f"f: took another path at x than at the baseline, got {what}; the two are compared "
        "operation by operation, so branches and loops must not depend on the numbers in x",
        code="rules.path",
    )
