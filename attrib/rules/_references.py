"""Rules that compare a score with itself at a baseline: recorded there, replayed at the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from attrib._carriers import Carrier, Plain
from attrib._transforms import compiling, concrete
from attrib.errors import AttribValueError
from attrib.rules._flow import Call, Flow, Rule, where
from attrib.rules._repeats import Repeats
from attrib.rules._rows import UntoldRowsError

__all__ = ["OtherPathError", "Recording", "References", "Replaying"]


class OtherPathError(AttribValueError):
    """The score computed something else at the input than at the baseline."""


class References:
    """What the operations with a rule were called with at the baseline, in order.

    Attributes:
        repeated: Which rows the baseline was shortened to.
        calls: Name and inputs of each.
        used: How many of them have been asked for.
        choices: Conditions, indices and other numbers that came from the input without derivative.
        chosen: How many of them have been compared.
    """

    def __init__(self, repeated: Repeats | None = None) -> None:
        self.repeated = repeated
        self.calls: list[tuple[str, list[Tensor]]] = []
        self.used = 0
        self.choices: list[Any] = []
        self.pieces: dict[int, tuple[Tensor, Any]] = {}
        self.chosen = 0

    def next(self, call: Call) -> list[Tensor]:
        """The inputs of the same call at the baseline."""
        name = call.operation.name
        if self.used == len(self.calls):
            _refuse_path(f"one more {name}")
        recorded, inputs = self.calls[self.used]
        self.used += 1
        if self.repeated is not None and recorded == name and len(inputs) == len(call.inputs):
            lengthened = self.repeated.lengthened
            inputs = [lengthened(r, i) for r, i in zip(inputs, call.inputs, strict=True)]
        shapes = [tuple(tensor.shape) for tensor in call.inputs]
        if recorded != name or not _fit(inputs, call.inputs):
            _refuse_path(
                f"{name} of {shapes} where the baseline had {recorded} of "
                f"{[tuple(tensor.shape) for tensor in inputs]}"
            )
        return inputs

    def same(self, name: str, choice: Any) -> None:
        """A choice must be what it was at the baseline."""
        if self.repeated is not None:
            raise UntoldRowsError
        if self.chosen == len(self.choices):
            _refuse_path(f"one more choice by {name}")
        recorded = self.choices[self.chosen]
        self.chosen += 1
        if not _equal(recorded, choice):
            _refuse_choice(name, "another at x than at the baseline")

    def clear(self) -> None:
        """Let go of all tensors, some of which know the flow that knows them."""
        self.calls.clear()
        self.choices.clear()
        self.pieces.clear()

    def finish(self) -> None:
        """All of them must have been used."""
        if self.used < len(self.calls):
            _refuse_path(f"no {self.calls[self.used][0]}")


class _Comparing(Flow):
    """Follows what depends on the variables without a derivative."""

    def __init__(
        self,
        carrier: Carrier,
        variables: list[Tensor],
        rules: Mapping[Any, Rule],
        unknown: str,
        references: References,
    ) -> None:
        self.compares = unknown == "refuse"
        # Inside of vmap and of a compiler no number can be looked at.
        self.looks = all(concrete(leaf) for leaf in variables)
        self.shadows: dict[int, Tensor] = {}
        super().__init__(carrier, variables, rules, unknown)
        self.references = references

    def chosen(self, name: str, choice: Any) -> None:
        """Something that came from the variables without derivative decides what is computed."""

    def shadow(self, result: Tensor) -> None:
        """See `Flow`."""
        if self.compares and self.traced:
            self.shadows[id(result)] = result
        elif self.compares:
            own: Any = result
            own._attrib_shadows = (*getattr(result, "_attrib_shadows", ()), self)

    def left(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """See `Flow`."""
        if not self.compares or name in _VALUELESS:
            return
        parts = _parts((args, tuple(kwargs.values())))
        if not any(self.active(part) or self.shadowed(part) for part in parts):
            return
        if name in _DECIDING:
            self.decided(name, result)
        for part in _parts(args[:1] if result is None else result):
            if not self.active(part):
                self.shadow(part)

    def entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See `Flow`."""
        if self.compares:
            for part in _parts((args, tuple(kwargs.values()))):
                if self.shadowed(part) and not self.active(part):
                    self.decided(name, part)

    def decided(self, name: str, choice: Any) -> None:
        """A choice, which can only be accepted where it can be compared."""
        if not self.looks:
            _refuse_choice(
                name, "one that cannot be compared inside of torch.vmap or torch.compile"
            )
        self.chosen(name, choice)

    def shadowed(self, tensor: Tensor) -> bool:
        """Whether `shadow` was called with this very tensor."""
        if self.traced:
            return id(tensor) in self.shadows
        return any(flow is self for flow in getattr(tensor, "_attrib_shadows", ()))


class Recording(_Comparing):
    """At the baseline: everything as it is, with the inputs of calls that have a rule kept."""

    def __init__(
        self,
        variables: list[Tensor],
        rules: Mapping[Any, Rule],
        unknown: str,
        references: References,
    ) -> None:
        carrier = Plain(light=not torch.is_grad_enabled())
        super().__init__(carrier, variables, rules, unknown, references)

    def chosen(self, name: str, choice: Any) -> None:
        """See `_Comparing`."""
        copied = choice.detach().clone() if isinstance(choice, Tensor) else choice
        self.references.choices.append(copied)

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


class Replaying(_Comparing):
    """At the input: every rule is handed what its call was given at the baseline."""

    def chosen(self, name: str, choice: Any) -> None:
        """See `_Comparing`."""
        self.references.same(name, choice)

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


def _refuse_choice(name: str, why: str) -> NoReturn:
    raise AttribValueError(
        f"{name}: is given a condition, an index or a detached number that depends on x{where()}, "
        f"got {why}, and what that owes to x is unknown; write it by relu, maximum or the like, or "
        'take it for a constant by unknown="gradient"',
        code="rules.choice",
    )


def _refuse_path(what: str) -> None:
    raise OtherPathError(
        f"f: took another path at x than at the baseline, got {what}; the two are compared "
        "operation by operation, so branches and loops must not depend on the numbers in x",
        code="rules.path",
    )


def _parts(value: Any) -> list[Tensor]:
    """The tensors in nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _parts(part)]  # pyright: ignore[reportUnknownVariableType]
    return []


def _equal(first: Any, second: Any) -> bool:
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return type(first) is type(second) and first == second
    if first.shape != second.shape:
        return False
    return bool(((first == second) | ((first != first) & (second != second))).all())


# What Python decides by.
_DECIDING = frozenset(("__bool__", "__int__", "__index__", "__contains__")) | frozenset(
    ("is_nonzero", "equal", "allclose", "item", "tolist")
)
# Tensors as large as another, that hold nothing of it.
_VALUELESS = frozenset(
    ("empty_like", "new_empty", "new_empty_strided", "zeros_like", "ones_like", "full_like")
) | frozenset(("new_zeros", "new_ones", "new_full", "rand_like", "randn_like", "randint_like"))
