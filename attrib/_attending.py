"""Seeing attention as it is computed, however it is spelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrib._taps import TAP, Place, Tapping, tap
from attrib._transforms import compiling, constant, seen_by_compilers
from attrib.errors import AttribValueError
from attrib.rules._decompositions import DECOMPOSITIONS, LINEAR_IF
from attrib.rules._flow import by_name
from attrib.rules._operations import OPERATIONS, of_operator
from attrib.rules._refusals import refuse_compiled, where

__all__ = ["ATTENTION", "Attending"]

ATTENTION = "attention weights"
"""The name under which attention weights pass a tap. No module has one with a space in it."""


class Attending(TorchFunctionMode):
    """While it is active, in this thread alone, attention is computed step by step, and its weights
    pass a tap before they multiply the values.

    Args:
        opening: The labels of what enters (true) or leaves (false) the modules that are asked for;
            none if all are.

    Attributes:
        passing: A mode to be put around this one, which sees what passes.
        count: How many attentions were seen.
    """

    def __init__(self, opening: Mapping[str, bool]) -> None:
        super().__init__()
        self.opening = opening
        self.depth = 0 if opening else 1
        self.passing = Tapping([*opening, ATTENTION], self.passes)
        self.count = 0
        self.traced = compiling()
        if self.traced:
            _show_operations()
        # What came out of a softmax, and what went on in its place; both are kept alive, so that
        # no other tensor gets their ids.
        self.weights: dict[int, Tensor] = {}
        self.tapped: dict[int, Tensor] = {}
        self.fused = False
        self.rows: tuple[int, ...] | None = None

    def passes(self, place: Place, tensor: Tensor) -> Tensor:
        """Something passes a tap."""
        if place.name == ATTENTION:
            self.count += 1
        elif place.leaf == 0:
            self.depth += 1 if self.opening[place.name] else -1
        return tensor

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if compiling() and not self.traced:
            refuse_compiled()
        kwargs = dict(kwargs or {})
        if func is TAP:
            unasked = not self.depth and args[1].startswith(ATTENTION)
            return args[0] if unasked else func(*args, **kwargs)
        name = self.name_of(func)
        if name in _FAST_PATHS:
            _refuse_fast_path()
        if self.traced and name == "unflatten":
            func = torch.unflatten  # a compiler cannot follow the method of the same name
        if name in (_SCALED_DOT_PRODUCT, _MULTI_HEAD):
            return self.taken_apart(name, args, kwargs)
        if name in _PRODUCTS:
            factors = [kwargs.pop(own) for own in _FACTORS if own in kwargs]
            return func(*self.attended(name, (*args, *factors)), **kwargs)
        result = func(*args, **kwargs)
        if self.depth and isinstance(result, Tensor) and self.gives(result, name, args, kwargs):
            self.weights[id(result)] = result
        return result

    def name_of(self, func: Any) -> str:
        """The canonical name of an operation."""
        own = getattr(func, "__name__", "")
        known = by_name(own, func) if self.traced else OPERATIONS.get(func)
        operation = known or (None if self.traced else of_operator(func))
        return own if operation is None else operation.name

    def taken_apart(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a fused attention computes."""
        before = self.fused, self.rows
        if name == _MULTI_HEAD:
            query, heads = args[0], args[4]
            self.rows = (query.shape[1], heads) if query.ndim == 3 else (heads,)
        self.fused = True
        try:
            with self:
                result = DECOMPOSITIONS[name](*args, **kwargs)
        finally:
            self.fused, self.rows = before
        if result is NotImplemented:
            _refuse_dropout()
        return result

    def gives(
        self, result: Tensor, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Whether a call may have given the weights of an attention."""
        first = args[0] if args else kwargs.get("input")
        if name == "softmax":
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return isinstance(first, Tensor) and dim in (-1, first.ndim - 1)
        if name in ("mul", "where"):  # such as a mask of heads
            factors = (*args, *kwargs.values())
            return any(id(arg) in self.weights and arg.shape == result.shape for arg in factors)
        if id(first) not in self.weights:
            return False
        if name in _DROPOUT and not LINEAR_IF["dropout"](*args, **kwargs):
            _refuse_dropout()
        return name in _DROPOUT or name in _KEEPING

    def attended(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of a product; if it is that of weights and values, with tapped weights."""
        if name == "einsum" and len(args) == 2 and isinstance(args[1], (tuple, list)):
            args = (args[0], *cast("Sequence[Any]", args[1]))
        place = next((place for place, arg in enumerate(args) if id(arg) in self.weights), None)
        if place is None or not (_summed(args, place) if name == "einsum" else place == 0):
            return args
        # Fewer dimensions are no attention, but a mixture of rows of a table.
        if not self.fused and any(isinstance(arg, Tensor) and arg.ndim < 3 for arg in args):
            return args
        return (*args[:place], self.through_tap(args[place]), *args[place + 1 :])

    def through_tap(self, weights: Tensor) -> Tensor:
        """The weights; another time that they are used, the same."""
        if id(weights) not in self.tapped:
            shape = weights.shape
            shown = weights if self.rows is None else weights.reshape(*self.rows, *shape[-2:])
            passed = tap(ATTENTION, shown)
            self.tapped[id(weights)] = passed if self.rows is None else passed.reshape(shape)
        return self.tapped[id(weights)]

    def check(self, modules: Sequence[object]) -> None:
        """Refuse a model without attention."""
        if self.count:
            return
        place = f" inside of {', '.join(dict.fromkeys(map(str, modules)))}" if modules else ""
        raise AttribValueError(
            f"model: no attention was seen{place}, got neither scaled_dot_product_attention nor a "
            "softmax over the last dimension that is multiplied with values; name the weights in "
            f"the model: weights = attrib.tap({ATTENTION!r}, weights)",
            code="attention.missing",
        )


@constant
def _show_operations() -> None:
    seen_by_compilers(OPERATIONS)


def _summed(args: tuple[Any, ...], place: int) -> bool:
    """Whether an `einsum` of two operands sums over the last dimension of this one and a dimension
    of the other."""
    inputs, _, output = str(args[0]).replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) != 2:
        return False
    last = operands[place - 1][-1:]
    return last.isalpha() and last in operands[2 - place] and last not in output


def _refuse_dropout() -> NoReturn:
    raise AttribValueError(
        f"model: its attention draws dropout{where()}, got training mode; call model.eval()",
        code="attention.dropout",
    )


def _refuse_fast_path() -> NoReturn:
    """A compiler does not tell `torch.nn` modules that a mode is active, for which they would leave
    it."""
    raise AttribValueError(
        "model: takes the fast path of torch.nn.TransformerEncoderLayer, which hides its attention,"
        " got a compiler under torch.no_grad(); compile without it, or call "
        "torch.backends.mha.set_fastpath_enabled(False)",
        code="attention.fused",
    )


_FAST_PATHS = ("_transformer_encoder_layer_fwd", "_native_multi_head_attention")
_SCALED_DOT_PRODUCT, _MULTI_HEAD = "scaled_dot_product_attention", "multi_head_attention_forward"
_PRODUCTS, _FACTORS = frozenset({"matmul", "bmm", "einsum"}), ("input", "other", "mat2")
_DROPOUT = frozenset({"dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout"})
# What may be done to weights before they multiply the values.
_KEEPING = frozenset(
    {"to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous", "clone"}
    | {"view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze"}
    | {"expand", "expand_as", "__getitem__", "narrow", "masked_fill", "nan_to_num"}
)
