"""Of a linear layer at the end of a sequence of modules, only the output that a score reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attrib._transforms import undisturbed
from attrib.types import Tree

__all__ = ["LastLayer"]

# Products of numbers that have to be saved for what it takes to look. Measured on a CPU, with 10
# classes behind 64 hidden units.
_LEAST = 500_000

_FORWARD: Any = {
    nn.Sequential: vars(nn.Sequential)["forward"],
    nn.Linear: vars(nn.Linear)["forward"],
}
_PLAIN = (Tensor, nn.Parameter)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class LastLayer:
    """A plain `nn.Linear` at the end of plain `nn.Sequential` modules, or a model that is one.

    What these do is known without a look at what they return: the modules before it are called one
    after another, as ever, and of the layer the output alone is computed that is read, the same
    number up to rounding, with the same derivatives.

    Args:
        model: The model; any other one is evaluated as it is.
        index: Which output is read: an integer, a column of the layer, or several, of which those
            before the last are places in a sequence.
        evaluate: ``evaluate(x, args, instead=None)``, of the model or what is given in its place.
    """

    def __init__(
        self, model: nn.Module, index: int | tuple[int, ...], evaluate: Callable[..., Any]
    ) -> None:
        self._model = model
        self._index = index
        self._evaluate = evaluate

    def worthwhile(self, x: Tree) -> bool:
        """Whether this is such a model, and saves time for such an input."""
        if type(self._model) not in _FORWARD or not isinstance(x, Tensor) or x.ndim < 2:
            return False
        layer = _chain(self._model)[-1]
        if type(layer) is not nn.Linear:
            return False
        saved = len(x) * layer.in_features * (layer.out_features - 1)
        return saved >= _LEAST and undisturbed(x) and _is_plain(x)

    def read(
        self,
        x: Tree,
        args: tuple[Any, ...],
        outputs: Callable[[Any], Tensor],
        select: Callable[[Tensor, Any], Tensor],
    ) -> Tensor:
        """``select(outputs(evaluate(x, args)), index)``, an output of the model.

        Args:
            x: What the model is called with.
            args: What else it is called with.
            outputs: Finds the outputs in what it returned.
            select: Takes one of them.
        """
        *around, layer = _chain(self._model)
        if args or not all(map(_as_ever, (*around, layer))):
            return select(outputs(self._evaluate(x, args)), self._index)

        def before(rows: Any) -> Any:
            for sequence in around:
                *modules, _ = sequence._modules.values()
                for module in modules:
                    rows = module(rows)
            return rows

        rows = self._evaluate(x, args, before)
        column = self._column(layer, rows)
        if column is None:
            return select(outputs(layer(rows)), self._index)
        return select(column, 0)

    def _column(self, layer: Any, rows: Any) -> Tensor | None:
        """One output of the layer for each example, ``(batch, 1)``."""
        *places, column = self._index if isinstance(self._index, tuple) else (self._index,)
        tensors = [rows, *(t for t in (layer.weight, layer.bias) if t is not None)]
        if not all(map(_is_plain, tensors)) or len({tensor.dtype for tensor in tensors}) > 1:
            return None
        if rows.ndim != len(places) + 2 or torch.is_autocast_enabled("cpu"):
            return None
        if layer.bias is not None and layer.bias.shape != layer.weight.shape[:1]:
            return None
        sizes = (*rows.shape[1:-1], len(layer.weight))
        if not all(-n <= i < n for i, n in zip((*places, column), sizes, strict=True)):
            return None
        for place in places:
            rows = rows.select(1, place)
        return functional.linear(rows, *[tensor.narrow(0, column, 1) for tensor in tensors[1:]])


def _chain(model: Any) -> list[Any]:
    """A model, its last module, the last module of that, as long as they are sequences."""
    chain = [model]
    while type(chain[-1]) is nn.Sequential and len(chain[-1]._modules) > 0:  # pyright: ignore
        chain.append(next(reversed(chain[-1]._modules.values())))  # pyright: ignore
    return chain


def _as_ever(module: Any) -> bool:
    """Whether nobody has changed what such a module does, or sees it."""
    everywhere: Any = torch.nn.modules.module
    return (
        _forward_of(module) is _FORWARD[type(module)]
        and getattr(module, "_compiled_call_impl", None) is None
        and not any(getattr(module, name) for name in _HOOKS)
        and not everywhere._has_any_global_hook()
    )


def _forward_of(module: Any) -> Any:
    own: Any = module.forward
    return getattr(own, "__func__", None)


def _is_plain(tensor: Any) -> bool:
    return type(tensor) in _PLAIN and tensor.is_cpu and not tensor.is_inference()
