"""Relevance propagation as a flow: which rule each operation follows, and what goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._carriers import Carrier
from attrib._transforms import compiling
from attrib.rules._decompositions import LINEAR_IF
from attrib.rules._flow import Call, Flow, Rule, by_name
from attrib.rules._linear_maps import family, linear_map, mergeable, normalised
from attrib.rules._operations import OPERATIONS, Kind, Operation
from attrib.rules._origins import Origins
from attrib.rules._passing import passing, stops, uniform
from attrib.rules._relevance import absorbed, absorbing
from attrib.rules.composites import Table

__all__ = ["Relevance"]

# They put the entries of one tensor elsewhere.
_MOVED = """
    reshape reshape_as view view_as flatten unflatten ravel squeeze unsqueeze expand expand_as
    broadcast_to permute transpose swapaxes swapdims movedim moveaxis t adjoint flip fliplr flipud
    roll rot90 repeat tile repeat_interleave narrow select index_select gather take masked_select
    __getitem__ split split_with_sizes chunk tensor_split unbind clone contiguous unfold tril triu
    diagonal pixel_shuffle pixel_unshuffle channel_shuffle to type double float half bfloat16 cpu
    cuda positive pad constant_pad_nd
"""
_MOVES = frozenset(_MOVED.split())
# With constants, they change the units of every entry.
_UNITS = (
    "add",
    "sub",
    "subtract",
    "__add__",
    "__radd__",
    "__sub__",
    "__rsub__",
    "rsub",
    "neg",
    "mul",
)
_ENTRYWISE = ("activation", "elementwise")


class Relevance(Flow):
    """A flow in which a composite is followed.

    Args:
        carrier: As for `Flow`.
        variables: What the score is differentiated by.
        shares: For rules that give relevance to zeros: beside each variable, another whose gradient
            is such relevance. Relevance then is input times gradient plus this. It goes along as
            far as entries are only moved or have their units changed.
        table: The composite.
        unknown: As for `Flow`.
    """

    def __init__(
        self,
        carrier: Carrier,
        variables: list[Tensor],
        shares: list[Tensor],
        table: Table,
        unknown: str,
    ) -> None:
        self.notes: dict[tuple[str, int], tuple[Tensor, Any]] = {}
        super().__init__(carrier, variables, {**table.named, **table.functions}, unknown)
        if not self.traced:
            # Below a rule that gives relevance to zeros, everything depends on the shares alone.
            self.origins = Origins([*variables, *shares])
        self.table = table
        self.position = 0
        self.stopped = False
        for variable, share in zip(variables, shares, strict=False):
            self.note("share", variable, share)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        operation = by_name(name, func) if self.traced else OPERATIONS.get(func)
        first = args[0] if args else None
        share = self.noted("share", first) if isinstance(first, Tensor) else None
        if operation is None:
            return super().__torch_function__(func, types, args, kwargs)
        plain = operation.kind is Kind.LINEAR and not operation.inplace
        if plain and operation.name in self.rules and self.own_inputs(args, kwargs):
            result = self.changed(operation, self.rules[operation.name], args, kwargs)
        else:
            result = super().__torch_function__(func, types, args, kwargs)
        self.stopped = False
        if share is not None:
            self.follow(operation, args, kwargs, share, result)
        if operation.family in _ENTRYWISE or operation.name in _UNITS:
            self.descend(args, kwargs, result)
        return result

    def rule_for(self, call: Call) -> Rule | None:
        """See `Flow`."""
        name = call.operation.name
        own = self.rules.get(name)
        alone = own is None and len(call.inputs) == 1
        if name == "batch_norm" and alone and LINEAR_IF[name](*call.args, **call.kwargs):
            return self.merged(call)
        kind = family(call)
        if name == "mul" and len(call.inputs) == 2 and self.rules.get("product") is uniform():
            ancestor = self.ancestor(call.inputs)
            if ancestor is not None:
                return partial(_gated, ancestor)
        if kind is None:
            return super().rule_for(call)
        layer = linear_map(call)
        if layer is None:
            # The weight depends on x: a product, or a linear map of the weight.
            product = call.operation.kind is Kind.WEIGHTED and len(call.inputs) == 2
            return self.rules.get("product") if product else None
        place, self.position = self.position, self.position + 1
        for module, rule in self.table.modules:
            if any(layer.weight is parameter for parameter in module.parameters()):
                return rule
        return self.table.positions.get(place) or own or self.rules.get(kind)

    def ruled(self, rule: Rule, call: Call) -> Any:
        """See `Flow`."""
        call.shares = [self.noted("share", tensor) for tensor in call.inputs]
        result = rule(call, self.carrier)
        self.stopped = stops(rule)
        if self.stopped:
            self.note("stopped", result, True)
            return result
        if call.passed is not None:
            self.note("share", result, call.passed)
        if linear_map(call) is not None:
            self.note("layer", result, (call, rule))
        return result

    def changed(
        self,
        operation: Operation,
        own: Rule | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """See `Flow`."""
        if own is not None and linear_map(Call(operation, args, kwargs, self)) is not None:
            self.position += 1
        return super().changed(operation, own, args, kwargs)

    def merged(self, norm: Call) -> Rule | None:
        """A batch norm after a layer, as the rule of that layer with the weights of both."""
        before: Tensor = norm.args[0] if norm.args else norm.kwargs["input"]
        found = self.noted("layer", before)
        if found is None:
            return None
        layer, rule = found
        named = {name: value for name, value in norm.kwargs.items() if name != "input"}
        epsilon = absorbing(rule)
        if epsilon is not None and mergeable(layer, before, norm.args[1:], named):
            return partial(_after, epsilon, before if layer.plain is None else layer.plain)
        arguments = normalised(layer, before, norm.args[1:], named)
        if arguments is None:
            return None
        named = {
            name: value
            for name, value in layer.kwargs.items()
            if name not in ("input", "weight", "bias")
        }
        both = Call(layer.operation, arguments, named, self)
        both.shares = [self.noted("share", tensor) for tensor in both.inputs]
        return partial(_together, rule, both)

    def follow(
        self,
        operation: Operation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        share: Tensor,
        result: Any,
    ) -> None:
        """The share of a tensor goes where its entries go."""
        if operation.name in _UNITS:
            if len(self.own_inputs(args, kwargs)) == 1 and result.shape == share.shape:
                self.note("share", result, share)
        elif operation.name in _MOVES and not operation.inplace:
            # The identity of a module's backward hook is evaluated without recording.
            with torch.set_grad_enabled(self.recorded):
                moved = operation.function(share, *args[1:], **kwargs)
            if isinstance(result, Tensor):
                self.note("share", result, moved)
            else:
                for part, place in zip(result, moved, strict=True):
                    self.note("share", part, place)

    def descend(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Remember of which tensor another is a function, entry by entry.

        Activations that are written out, such as ``x * torch.sigmoid(x)``, are known by it.
        """
        inputs = self.own_inputs(args, kwargs)
        if not inputs or not isinstance(result, Tensor) or result is args[0]:
            return
        ancestor = self.ancestor(inputs)
        if ancestor is not None and ancestor.shape == result.shape:
            self.note("parent", result, (ancestor, _version(ancestor)))

    def ancestor(self, tensors: Sequence[Tensor]) -> Tensor | None:
        """The nearest tensor of which all of these are functions, entry by entry."""
        first, *others = (self.line(tensor) for tensor in tensors)
        for found in first:
            if all(any(found is other for other in line) for line in others):
                return found
        return None

    def line(self, tensor: Tensor) -> list[Tensor]:
        """A tensor and its ancestors."""
        line = [tensor]
        while (parent := self.noted("parent", line[-1])) is not None:
            if parent[1] != _version(parent[0]):
                break
            line.append(parent[0])
        return line

    def own_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The arguments that depend on the variables."""
        return [
            part
            for part in (*args, *kwargs.values())
            if isinstance(part, Tensor) and self.active(part)
        ]

    def mark(self, result: Any) -> None:
        """See `Flow`: what was held constant does not depend on the variables."""
        if not (isinstance(result, Tensor) and self.noted("stopped", result)):
            super().mark(result)

    def mark_written(self, target: Tensor) -> None:
        """See `Flow`."""
        if self.stopped:
            self.unmark(target)
            self.note("stopped", target, True)
            return
        base = target._base  # pyright: ignore[reportPrivateUsage]
        if base is not None:
            self.note("stopped", base, None)
        super().mark_written(target)

    def overwritten(self, target: Tensor) -> None:
        """See `Flow`."""
        super().overwritten(target)
        for name in ("share", "layer", "stopped", "parent"):
            self.note(name, target, None)

    def left(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """See `Flow`: what is made of constants is constant."""
        super().left(name, args, kwargs, result)
        parts = (*args, *kwargs.values())
        if any(self.noted("stopped", part) for part in parts if isinstance(part, Tensor)):
            for made in result if isinstance(result, (tuple, list)) else (result,):  # pyright: ignore[reportUnknownVariableType]
                if isinstance(made, Tensor):
                    self.note("stopped", made, True)

    def active(self, tensor: Tensor) -> bool:
        """See `Flow`."""
        return not self.noted("stopped", tensor) and super().active(tensor)

    def biased(self, call: Call) -> bool:
        """See `Flow`: a bias that is variable has its part in a rule."""
        return super().biased(call) and linear_map(call) is None

    def unmark(self, tensor: Tensor) -> None:
        """Forget that a tensor depends on the variables."""
        if self.traced:
            self.marked.pop(id(tensor), None)
        else:
            own: Any = tensor
            flows = getattr(tensor, "_attrib_flows", ())
            own._attrib_flows = tuple(flow for flow in flows if flow is not self)

    def note(self, name: str, tensor: Tensor, value: Any) -> None:
        """Remember something about a tensor, as it is now."""
        if self.traced:
            self.notes[name, id(tensor)] = (tensor, value)
        else:
            own: Any = tensor
            # On the tensor itself, so that none is kept alive.
            notes = getattr(tensor, "_attrib_notes", ())
            kept = [note for note in notes if note[0] is not self or note[1] != name]
            own._attrib_notes = (*kept, (self, name, _version(tensor), value))

    def noted(self, name: str, tensor: Any) -> Any:
        """What is remembered, unless the tensor has been written to since."""
        if self.traced:
            return self.notes.get((name, id(tensor)), (None, None))[1]
        for flow, own, version, value in getattr(tensor, "_attrib_notes", ()):
            if flow is self and own == name and (version == _version(tensor) or name == "stopped"):
                return value
        return None


def _together(rule: Rule, layer: Call, norm: Call, carrier: Carrier) -> Tensor:
    (before,) = norm.inputs
    result = rule(layer, carrier)
    norm.passed = layer.passed
    return carrier.carried(norm(carrier.frozen(before)), result)


def _after(epsilon: float, before: Tensor, norm: Call, carrier: Carrier) -> Tensor:
    """The same for a rule that is the gradient of the result but for what its epsilon absorbs."""
    return absorbed(norm(before), epsilon, carrier)


def _gated(ancestor: Tensor, call: Call, carrier: Carrier) -> Tensor:
    """A product that is a function of one number: all relevance passes."""
    value = call(*(carrier.frozen(tensor) for tensor in call.inputs))
    return passing(ancestor, carrier.frozen(ancestor), value, carrier)


def _version(tensor: Tensor) -> int:
    """How often a tensor has been written to."""
    return -1 if compiling() or tensor.is_inference() else tensor._version
