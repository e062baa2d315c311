"""Of a last linear layer, only the output is computed that the score reads."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attrib._transforms import undisturbed
from attrib._tree import leaves
from attrib.types import Tree

__all__ = ["LastLayer"]

# Products of numbers that have to be saved for what it takes to put a stand-in into a model.
# Measured on a CPU, with 10 classes behind 64 hidden units: from 850 rows on.
_LEAST = 500_000

_LINEAR: Any = functional.linear
_PLAIN = (Tensor, nn.Parameter)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class LastLayer:
    """The linear layer that makes the outputs of a model, found by watching it once.

    From then on a stand-in takes its place, in new objects for the modules around it: it returns a
    tensor without numbers, and the output that is read is computed from what it was given, the same
    number up to rounding, with the same derivatives. Where the model turns out to do anything else
    with its outputs it is evaluated as it is, then and in future.

    Args:
        model: The model.
        index: Which output is read: an integer, a column of the layer, or several, of which those
            before the last are places in a sequence.
        evaluate: ``evaluate(x, args, instead=None)``, of the model or what is given in its place.
    """

    def __init__(
        self, model: nn.Module, index: int | tuple[int, ...], evaluate: Callable[..., Any]
    ) -> None:
        modules = list(model.modules())
        layers = [module for module in modules if isinstance(module, nn.Linear)]
        self._model = model
        self._index = index
        self._evaluate = evaluate
        self._saved = max([m.in_features * (m.out_features - 1) for m in layers], default=0)
        self._path: list[str] | None = None
        self._off = self._saved == 0 or any(map(_is_compiled, modules))

    def worthwhile(self, x: Tree) -> bool:
        """Whether it is known, or may be found out, that this saves time for such an input."""
        if self._off:
            return False
        first = next((leaf for leaf in leaves(x) if isinstance(leaf, Tensor)), None)
        if first is None or first.ndim == 0 or len(first) * self._saved < _LEAST:
            return False
        return first.is_cpu and not first.is_inference() and undisturbed(first)

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
        before = _versions((x, args))
        if self._path is None:
            watch = _Watch()
            with watch:
                result = self._evaluate(x, args)
            found = outputs(result)
            self._learn(watch, found)
            # A model that writes to its input could not be called again.
            self._off = self._off or _versions((x, args)) != before
            return select(found, self._index)
        try:
            return self._of_column(self._path, x, args, outputs, select)
        except Exception:  # whatever it is, the model by itself will say it, too
            if _versions((x, args)) != before:
                raise
        score = select(outputs(self._evaluate(x, args)), self._index)
        self._off = True
        return score

    def _learn(self, watch: _Watch, found: Tensor) -> None:
        made = watch.maker_of(found)
        path: Any = self._index if isinstance(self._index, tuple) else (self._index,)
        places = [] if made is None else _places(self._model, made)
        if made is None or len(places) != 1 or found.ndim != len(path) + 1:
            self._off = True
            return
        self._path = places[0].split(".") if places[0] else []
        self._saved = math.prod(found.shape[1:-1]) * made.shape[1] * (len(made) - 1)

    def _of_column(
        self,
        path: list[str],
        x: Tree,
        args: tuple[Any, ...],
        outputs: Callable[[Any], Tensor],
        select: Callable[[Tensor, Any], Tensor],
    ) -> Tensor:
        chain = _chain(self._model, path)
        if any(_has_hooks(module) for module in chain) or _hooked_everywhere():
            return select(outputs(self._evaluate(x, args)), self._index)
        stand_in = _stand_in_of(chain[-1])
        twins = _twins(chain, path, stand_in)
        result = self._evaluate(x, args, twins[0])
        found, given, own = outputs(result), stand_in.given, vars(stand_in)
        if given is None or found is not own.pop("result"):
            raise _NotLastError
        # Nobody wrote to it, or to what it will be computed from, or kept something on a module.
        if found._version or not given.unchanged() or any(map(_differ, twins[:-1], chain)):
            raise _NotLastError
        score = select(given.column(self._index), 0)
        # Nor may anybody keep it.
        kept = weakref.ref(found)
        result = found = None
        if kept() is not None:
            raise _NotLastError
        return score


class _NotLastError(RuntimeError):
    """A model does something else with its outputs."""

    def __init__(self) -> None:
        super().__init__(
            "the model now writes to its input, and does something with its outputs that it did "
            "not do before: build its score anew"
        )


class _Given(NamedTuple):
    """What a linear layer was called with."""

    tensors: list[Tensor]
    versions: list[int]
    recorded: bool

    def unchanged(self) -> bool:
        """Whether nothing was written to it."""
        return self.versions == [tensor._version for tensor in self.tensors]

    def column(self, index: int | tuple[int, ...]) -> Tensor:
        """One output of the layer for each example, ``(batch, 1)``."""
        rows, weight, *bias = self.tensors
        *places, column = index if isinstance(index, tuple) else (index,)
        with torch.set_grad_enabled(self.recorded):
            for place in places:
                rows = rows.select(1, place)
            return _LINEAR(rows, *[tensor.narrow(0, column, 1) for tensor in (weight, *bias)])


class _StandIn(nn.Linear):
    """Returns a tensor without numbers.

    Attributes:
        given: What it was called with, if it did.
    """

    given: _Given | None

    def forward(self, input: Tensor) -> Tensor:
        """The shape of what the layer returns; what it returns, where that is not a plain one."""
        own, bias = vars(self), self.bias
        own["given"] = _given(input, self.weight, bias)
        if own["given"] is None:
            return functional.linear(input, self.weight, bias)
        shape = (*input.shape[:-1], len(self.weight))
        own["result"] = torch.empty(shape, dtype=input.dtype, device="meta")
        return own["result"]


class _Watch(TorchFunctionMode):
    """Notes what linear layers return, and whether anything is done with it."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for part in _parts(args, kwargs or {}):
            self._made.pop(id(part), None)
        result = func(*args, **(kwargs or {}))
        if func is _LINEAR and not kwargs and _given(*args) is not None:
            self._made[id(result)] = weakref.ref(result), args[1]
        return result

    def maker_of(self, found: Any) -> Tensor | None:
        """The weight of the linear layer that made this, if nobody has looked at it."""
        made, weight = self._made.get(id(found), (None, None))
        return weight if made is not None and made() is found else None


def _given(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Given | None:
    """The arguments of a linear layer, if they are those of a plain one."""
    tensors = [rows, weight] if bias is None else [rows, weight, bias]
    if not all(map(_is_plain, tensors)) or rows.ndim < 2 or weight.ndim != 2:
        return None
    if any(tensor.dtype != rows.dtype for tensor in tensors) or torch.is_autocast_enabled("cpu"):
        return None
    return _Given(tensors, [tensor._version for tensor in tensors], torch.is_grad_enabled())


def _is_plain(tensor: Any) -> bool:
    return type(tensor) in _PLAIN and tensor.is_cpu and not tensor.is_inference()


def _versions(tree: Tree) -> list[int]:
    """How often has been written to each of the tensors."""
    tensors = [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def _parts(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterable[Any]:
    """The arguments of a function, and what is in lists among them."""
    part: Any
    for part in (*args, *kwargs.values()):
        yield from part if isinstance(part, (tuple, list)) else (part,)


def _places(model: nn.Module, weight: Tensor) -> list[str]:
    """Where in a model there are linear layers with this weight."""
    named: Any = model.named_modules
    return [
        name
        for name, module in named(remove_duplicate=False)
        if _is_linear(module) and module.weight is weight
    ]


def _is_linear(module: Any) -> bool:
    own: Any = getattr(module, "forward", None)
    return getattr(own, "__func__", None) is vars(nn.Linear)["forward"]


def _chain(model: nn.Module, path: list[str]) -> list[nn.Module]:
    """The modules on the way to a layer, and the layer."""
    chain: list[Any] = [model]
    for name in path:
        chain.append(chain[-1]._modules[name])
    return chain


def _stand_in_of(layer: nn.Module) -> _StandIn:
    stand_in = object.__new__(_StandIn)
    vars(stand_in).update(vars(layer), given=None)
    return stand_in


def _twins(chain: list[nn.Module], path: list[str], last: nn.Module) -> list[nn.Module]:
    """New objects for the modules of a chain, which have everything in common with them but the
    next one in the chain."""
    twins = [last]
    for module, name in zip(chain[-2::-1], path[::-1], strict=True):
        twin = object.__new__(type(module))
        own = vars(twin)
        own.update(vars(module))
        own["_modules"] = {**own["_modules"], name: twins[0]}
        twins.insert(0, twin)
    return twins


def _differ(twin: nn.Module, module: nn.Module) -> bool:
    """Whether something was kept on a twin, or on the module itself."""
    own, theirs = vars(twin), vars(module)
    return len(own) != len(theirs) or any(
        value is not theirs.get(name) for name, value in own.items() if name != "_modules"
    )


def _has_hooks(module: nn.Module) -> bool:
    own = vars(module)
    return any(own[name] for name in _HOOKS)


def _hooked_everywhere() -> bool:
    modules: Any = torch.nn.modules.module
    return modules._has_any_global_hook()


def _is_compiled(module: nn.Module) -> bool:
    """Whether a compiler would follow whoever watches into a module, and compile it again."""
    own: Any = module
    return "_orig_mod" in own._modules or own._compiled_call_impl is not None
