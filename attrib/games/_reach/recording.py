"""The evaluation in which nothing is hidden, recorded as a tape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attrib._deferred import draws, may_write
from attrib.games._reach.calls import Call, Layout, Value, in_a_row
from attrib.games._reach.operations import follow
from attrib.games._reach.patches import space_of
from attrib.games._reach.regions import Spans, boxed
from attrib.games._reach.tape import Run, Step, Tape, on_whole, pasting_of
from attrib.games._reach.updates import update
from attrib.games._reach.work import pasting, patch_work, update_work, work
from attrib.rules._operations import OPERATIONS, of_operator

__all__ = ["Recording"]


_MOST_KEPT = 2**27
"""Numbers that patches are cut from: of larger batches of larger models everything is evaluated."""


class _LostError(Exception):
    """Something happens that cannot be done again for windows."""


class Recording(TorchFunctionMode):
    """While it is active, in this thread alone, operations on stand-ins are recorded.

    A stand-in has a shape and no numbers, so that whatever escapes fails instead of going wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.plain = 0.0
        self.slots = 0
        self.kept = 0
        self.constants: list[tuple[Tensor, int]] = []
        self.surroundings = _surroundings()

    def begin(self, tensor: Tensor, spans: tuple[Spans, ...]) -> tuple[int, Tensor]:
        """The number of an input that windows change, and a stand-in for it."""
        self.slots += 1
        return self.slots, _stand_in(Value(tensor, self.slots, spans))

    def tape(self, result: Any) -> Tape | None:
        """What was recorded, as far as a result needs it."""
        value = _value(result)
        if value is None or any(tensor._version != version for tensor, version in self.constants):
            return None
        return Tape.leading_to(self.steps, self.whole(value), value.tensor, self.plain)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        parts, layout = in_a_row(args, kwargs)
        known = [_value(part) or part for part in parts]
        escaped = any(isinstance(part, Tensor) and part.is_meta for part in known)
        if escaped or draws(func, args, kwargs):
            raise _LostError
        name = _name(func)
        if name == "__hash__" or not any(isinstance(part, Value) for part in known):
            return func(*args, **kwargs)
        if name in _ASKED:
            args, kwargs = layout.passed([_real(part) for part in known])
            return func(*args, **kwargs)
        if "out" in kwargs or _surroundings() != self.surroundings:
            raise _LostError(name)
        return self.computed(func, parts, known, layout, may_write(func, args, kwargs))

    def computed(
        self, func: Any, parts: list[Any], known: list[Any], layout: Layout, writes: bool
    ) -> Any:
        """The result of a call with stand-ins, itself a stand-in."""
        operation = OPERATIONS.get(func) or of_operator(func)
        if operation is None or (writes and not isinstance(known[0], Value)):
            raise _LostError(func)
        real = [_real(part) for part in known]
        if writes:
            real[0] = real[0].clone()
        before = _versions(real)
        args, kwargs = layout.passed(real)
        result = func(*args, **kwargs)
        changed = [place for place, now in enumerate(_versions(real)) if now != before[place]]
        if changed not in ([], [0]):
            raise _LostError(func)
        if operation.name in _NEW:
            return result
        own = zip(known, before, strict=True)
        self.constants += [(part, count) for part, count in own if isinstance(part, Tensor)]
        if changed:
            call = Call(operation, func, known, layout, [real[0]], written=True)
            return self.overwritten(call, parts[0], result)
        for part, tensor in zip(parts, real, strict=True):
            if result is tensor and _value(part) is not None:
                return part  # nothing was done
        found = self.recorded(Call(operation, func, known, layout, _tensors(result), written=False))
        _note_sharing(found, [part for part in known if isinstance(part, Value)], real[0])
        stand_ins = [_stand_in(value) for value in found]
        return stand_ins[0] if isinstance(result, Tensor) else type(result)(stand_ins)

    def overwritten(self, call: Call, stand_in: Any, result: Any) -> Any:
        """A call that writes to a stand-in, which stands for something else from then on."""
        (written,), before = call.results, call.values[0]
        alike = written.shape == before.tensor.shape and written.dtype == before.tensor.dtype
        if before.shared or not alike or not (result is None or result is written):
            raise _LostError(call.function)
        (stand_in._attrib_reach,) = self.recorded(call)
        return None if result is None else stand_in

    def recorded(self, call: Call) -> list[Value]:
        """Note a call; of one column of a linear map, the map to that column alone."""
        self.plain += work(call)
        product = _product_of_column(call)
        if product is not None:
            (column,) = self.in_steps(product)
            # Unless another column is needed, too, nothing is left that needs the whole map.
            parts, layout = in_a_row((column, 1, 0), {})
            call = Call(OPERATIONS[torch.select], torch.select, parts, layout, call.results, False)
        return self.in_steps(call)

    def in_steps(self, call: Call) -> list[Value]:
        """Note a call: on patches, if it is known how and that costs less, or on whole tensors."""
        cost = work(call)
        missing = sum(pasting(value.tensor) for value in call.values if value.whole is None)
        followed = follow(call)
        if followed is not None:
            reach = followed.reach([value.spans or () for value in call.values])
            less = patch_work(call, followed, reach, cost)
            if less <= cost + missing:
                slots = [value.slot for value in call.values]
                return self.noted(followed, slots, call.results, less, reach.spans)
        origin = _origin_of_rows(call)
        if origin is not None:
            less = update_work(_rank(origin), call.results[0].numel())
            run = update(call, origin) if less <= cost + missing else None
            if run is not None:
                return self.noted(run, [origin.slot], call.results, less)
        slots = [self.whole(value) for value in call.values]
        found = self.noted(on_whole(call), slots, call.results, cost)
        if _is_unrolling(call):
            found[0].unrolled = call.values[0]
        if _is_map_of_rows(call):
            found[0].product = call
        return found

    def noted(
        self,
        run: Run,
        inputs: list[int],
        results: Sequence[Tensor],
        cost: float,
        spans: tuple[Spans, ...] | None = None,
    ) -> list[Value]:
        """Note a step."""
        found: list[Value] = []
        entries = 0.0
        for result in results:
            self.slots += 1
            found.append(Value(result, self.slots, spans, None if spans else self.slots))
            entries += result.numel() * (_part(spans, result) if spans else 1)
            self.kept += result.numel() if spans else 0
        if self.kept > _MOST_KEPT:
            raise _LostError
        self.steps.append(Step(run, inputs, [value.slot for value in found], cost, int(entries)))
        return found

    def whole(self, value: Value) -> int:
        """The number of all of a tensor."""
        if value.whole is None:
            cost = pasting(value.tensor)
            (pasted,) = self.noted(pasting_of(value.known), [value.slot], [value.tensor], cost)
            value.whole = pasted.slot
        return value.whole


def _stand_in(value: Value) -> Tensor:
    found: Any = torch.empty(value.tensor.shape, dtype=value.tensor.dtype, device="meta")
    found._attrib_reach = value
    return found


def _value(part: Any) -> Value | None:
    """What a stand-in stands for."""
    return getattr(part, "_attrib_reach", None) if isinstance(part, Tensor) else None


def _real(part: Any) -> Any:
    return part.tensor if isinstance(part, Value) else part


def _versions(parts: Iterable[Any]) -> list[int]:
    """How often tensors have been written to."""
    return [part._version if isinstance(part, Tensor) else 0 for part in parts]


def _tensors(result: Any) -> list[Tensor]:
    """The tensors that an operation returned, if it returned nothing else."""
    parts: list[Any] = list(result) if isinstance(result, (tuple, list)) else [result]  # pyright: ignore[reportUnknownArgumentType]
    if not all(isinstance(part, Tensor) for part in parts):
        raise _LostError
    return parts


def _note_sharing(found: Sequence[Value], inputs: Sequence[Value], first: Any) -> None:
    """Note which tensors share the memory of an input, or of its copy."""
    own = [value.tensor for value in inputs] + ([first] if isinstance(first, Tensor) else [])
    storages = {tensor.untyped_storage().data_ptr() for tensor in own}
    views = [v for v in found if v.tensor.untyped_storage().data_ptr() in storages]
    for value in [*views, *(inputs if views else ())]:
        value.shared = True


def _is_unrolling(call: Call) -> bool:
    """Whether the rows of the result are all entries of the input, one behind another."""
    if call.operation.name not in ("flatten", "reshape", "view") or call.places != [0]:
        return False
    (result,), (value,) = call.results, call.values
    return value.spans is not None and result.ndim == 2 and len(result) == len(value.tensor)


def _is_map_of_rows(call: Call) -> bool:
    return call.operation.name == "linear" and call.places == [0] and call.results[0].ndim == 2


def _origin_of_rows(call: Call) -> Value | None:
    """Of a linear map of rows, the value of which there are patches."""
    if not _is_map_of_rows(call):
        return None
    value = call.values[0]
    return value.unrolled if value.spans is None else value


def _product_of_column(call: Call) -> Call | None:
    """The linear map to one column, if one column of a linear map is all that a call takes."""
    product = call.values[0].product if call.places == [0] else None
    index = None if product is None else _column(call)
    if product is None or index is None:
        return None
    own = product.bound("input", "weight", "bias")
    weight, bias = own["weight"], own.get("bias")
    if weight.ndim != 2 or not (bias is None or bias.shape == weight.shape[:1]):
        return None
    kept = slice(index % len(weight), index % len(weight) + 1)
    bias = None if bias is None else bias[kept]
    parts, layout = in_a_row((own["input"], weight[kept], bias), {})
    column = F.linear(own["input"].tensor, weight[kept], bias)
    return Call(product.operation, F.linear, parts, layout, [column], False)


def _column(call: Call) -> int | None:
    """Which column of rows a call takes, if it takes one."""
    if call.operation.name == "select":
        named = call.bound("input", "dim", "index")
        return named["index"] if named["dim"] in (1, -1) else None
    found: Any = call.parts[1] if call.operation.name == "__getitem__" else None
    match found:
        case (rows, int(index)) if rows is Ellipsis or (
            isinstance(rows, slice) and rows == slice(None)
        ):
            return None if isinstance(index, bool) else index
        case _:
            return None


def _rank(value: Value) -> int:
    """How many entries of an example a patch has."""
    return round(_part(value.spans or (), value.tensor) * math.prod(value.tensor.shape[1:]))


def _part(spans: tuple[Spans, ...], tensor: Tensor) -> float:
    """What part of a tensor is in the boxes around spans."""
    space = space_of(tensor)
    return math.prod(box.size for box in boxed(spans, space)) / math.prod(space)


def _surroundings() -> tuple[bool, bool]:
    """What changes the meaning of operations."""
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")


def _name(func: Any) -> str:
    return func.__self__.__name__ if func.__name__ == "__get__" else func.__name__


_ASKED = frozenset(
    [
        *("shape", "ndim", "dtype", "layout", "device", "names", "itemsize", "nbytes", "size"),
        *(
            "requires_grad",
            "is_leaf",
            "is_sparse",
            "is_quantized",
            "is_nested",
            "is_meta",
            "is_cpu",
        ),
        *("is_cuda", "is_mps", "is_xpu", "is_mkldnn", "dim", "ndimension", "numel", "nelement"),
        *("stride", "storage_offset", "is_contiguous", "is_floating_point", "is_complex"),
        *("is_signed", "is_inference", "element_size", "get_device", "__len__"),
    ]
)
"""Questions that do not ask for the numbers in a tensor."""

_NEW = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor")
"""Operations that make new tensors, which depend on no number."""
