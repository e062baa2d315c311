"""Which operations can be followed: they slide along dimensions, or take entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from attrib.games._reach.calls import Call, Value
from attrib.games._reach.followed import Followed
from attrib.games._reach.patches import Known, space_of
from attrib.games._reach.regions import Slide
from attrib.rules._decompositions import LINEAR_IF

__all__ = ["entry_by_entry", "follow"]

_nn: Any = F
_Local = Callable[[list[Tensor]], Tensor]


def follow(call: Call) -> Followed | None:
    """How an operation acts on patches; ``None`` if that is not known, or it mixes everything."""
    name, maker = call.operation.name, _maker(call)
    if maker is None or len(call.results) != 1 or any(v.spans is None for v in call.values):
        return None
    args, kwargs = call.arguments
    settled = name not in LINEAR_IF or LINEAR_IF[name](*args, **kwargs)
    return maker(call) if settled else None


def entry_by_entry(call: Call) -> bool:
    """Whether each entry of the result depends on one entry of the only tensor."""
    alone = sum(isinstance(part, (Tensor, Value)) for part in call.parts) == 1
    return alone and call.places == [0] and _maker(call) is _entrywise


def _maker(call: Call) -> Callable[[Call], Followed | None] | None:
    found = _MAKERS.get(call.operation.name)
    if found is None and call.operation.family in ("activation", "elementwise"):
        return _entrywise
    return found


def _entrywise(call: Call) -> Followed | None:
    """An operation on corresponding entries of tensors that broadcast."""
    return _aligned(call, side_by_side=False)


def _concatenated(call: Call) -> Followed | None:
    """Tensors with channels one behind another."""
    named, dims = call.bound("tensors", "dim"), call.results[0].ndim
    dim: int = named.get("dim", named.get("axis", 0)) % dims
    return _aligned(call, side_by_side=True) if dim == 1 and dims > 2 else None


def _by_channel(call: Call) -> Followed | None:
    """A function of its own for each channel."""
    if call.places != [0] or call.results[0].ndim < 3:
        return None
    return _aligned(call, side_by_side=False, only=1)


def _aligned(call: Call, *, side_by_side: bool, only: int | None = None) -> Followed | None:
    """An operation whose tensors and result have the same dimensions of space.

    Args:
        call: The call.
        side_by_side: Whether the tensors have channels of their own.
        only: So many of its arguments are such tensors; all by default.
    """
    result = call.results[0]
    space = space_of(result)
    places: list[int] = []
    sources: list[Known] = []
    for place, part in enumerate(call.parts[:only]):
        if isinstance(part, Value):
            source = part.known
        elif isinstance(part, Tensor) and part.ndim > 0:
            constant = _spread_out(part, result)
            if constant is None:
                return None
            if constant.numel() == math.prod(constant.shape[1 : -len(space)]) and not side_by_side:
                continue  # the same everywhere
            source = Known(constant.expand(*constant.shape[: -len(space)], *space))
        else:
            continue
        if source.tensor.ndim != result.ndim or source.space != space:
            return None
        places.append(place)
        sources.append(source)

    def local(pieces: list[Tensor]) -> Tensor:
        return call.again(places, pieces)

    slides = [Slide(1, 1, 1, 0, size) for size in space]
    return _followed(call, local, slides, places, sources)


def _spread_out(constant: Tensor, result: Tensor) -> Tensor | None:
    """A constant with the dimensions of a result."""
    if constant.ndim > result.ndim:
        return None
    view = constant.reshape((1,) * (result.ndim - constant.ndim) + constant.shape)
    space = zip(space_of(view), space_of(result), strict=True)
    fits = view.shape[0] in (1, len(result)) and all(own in (1, size) for own, size in space)
    return view if fits else None


def _padded(call: Call) -> Followed | None:
    """A frame of one number."""
    named = call.bound("input", "pad", "mode", "value")
    if call.operation.name == "constant_pad_nd":
        named["value"], named["mode"] = named.get("mode"), "constant"
    value, pad = named.get("value") or 0, list(named["pad"])
    result = call.results[0]
    space = space_of(result)
    before = [0] * (len(space) - len(pad) // 2) + pad[-2::-2]  # the last dimension comes first
    fits = call.places == [0] and len(before) == len(space) and min(pad) >= 0
    if named.get("mode", "constant") != "constant" or not fits:
        return None
    slides = [Slide(1, 1, 1, own, size) for own, size in zip(before, space, strict=True)]
    return _followed(call, lambda pieces: pieces[0], slides, fill=value)


def _convolved(call: Call) -> Followed | None:
    """A convolution."""
    name = call.operation.name
    dims = int(name[-2])
    named = call.bound("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    weight, bias, groups = named["weight"], named.get("bias"), named.get("groups", 1)
    stride, dilation = (_tuple(named.get(key, 1), dims) for key in ("stride", "dilation"))
    padding = named.get("padding", 0)
    kernel = tuple(weight.tensor.shape[2:] if isinstance(weight, Value) else weight.shape[2:])
    if padding == "same":
        # What is left over of an odd number comes behind.
        padding = [(k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True)]
    padding = 0 if padding == "valid" else padding
    function = getattr(_nn, name)

    def local(pieces: list[Tensor]) -> Tensor:
        return function(pieces[0], weight, bias, stride, 0, dilation, groups)

    return _slid(call, local, kernel, stride, dilation, _tuple(padding, dims))


def _largest(call: Call) -> Followed | None:
    """The largest of what slides past."""
    name = call.operation.name
    dims = int(name[-2])
    named = call.bound("input", "kernel_size", "stride", "padding", "dilation")
    kernel, stride = _kernel_and_stride(named, dims)
    padding, dilation = (
        _tuple(named.get("padding", 0), dims),
        _tuple(named.get("dilation", 1), dims),
    )
    function = getattr(_nn, name)

    def local(pieces: list[Tensor]) -> Tensor:
        return function(pieces[0], kernel, stride, 0, dilation)

    return _slid(call, local, kernel, stride, dilation, padding, -math.inf)


def _averaged(call: Call) -> Followed | None:
    """The mean of what slides past, in which the padding counts."""
    name = call.operation.name
    dims = int(name[-2])
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    named = call.bound(*names, "divisor_override")
    kernel, stride = _kernel_and_stride(named, dims)
    padding = _tuple(named.get("padding", 0), dims)
    if named.get("ceil_mode") or (any(padding) and not named.get("count_include_pad", True)):
        return None  # divided by another number at the border
    divisor = named.get("divisor_override")
    more = {} if divisor is None else {"divisor_override": divisor}
    function = getattr(_nn, name)

    def local(pieces: list[Tensor]) -> Tensor:
        return function(pieces[0], kernel, stride, **more)

    return _slid(call, local, kernel, stride, (1,) * dims, padding)


def _adapted(call: Call) -> Followed | None:
    """A pool to a size that divides that of its input."""
    dims, (first, *_) = int(call.operation.name[-2]), call.parts
    if not isinstance(first, Value) or first.tensor.ndim != dims + 2:
        return None
    pairs = list(zip(space_of(first.tensor), space_of(call.results[0]), strict=True))
    if any(size % parts for size, parts in pairs):
        return None
    kernel = tuple(size // parts for size, parts in pairs)
    function = getattr(_nn, call.operation.name.removeprefix("adaptive_"))
    still = (1,) * dims
    return _slid(
        call, lambda pieces: function(pieces[0], kernel), kernel, kernel, still, (0,) * dims
    )


def _slid(
    call: Call,
    local: _Local,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    fill: float = 0.0,
) -> Followed | None:
    """An operation that slides along the dimensions behind the channels."""
    result = call.results[0]
    if call.places != [0] or result.ndim != len(kernel) + 2:
        return None
    along = zip(kernel, stride, dilation, padding, space_of(result), strict=True)
    return _followed(call, local, [Slide(*each) for each in along], fill=fill)


def _followed(
    call: Call,
    local: _Local,
    slides: Sequence[Slide],
    places: Sequence[int] = (0,),
    sources: list[Known] | None = None,
    fill: float = 0.0,
) -> Followed:
    changed = [isinstance(call.parts[place], Value) for place in places]
    given = [call.values[0].known] if sources is None else sources
    return Followed(local, slides, given, changed, tuple(call.results[0].shape), fill)


def _kernel_and_stride(named: dict[str, Any], dims: int) -> tuple[tuple[int, ...], ...]:
    kernel = _tuple(named["kernel_size"], dims)
    return kernel, _tuple(named.get("stride") or kernel, dims)


def _tuple(value: Any, length: int) -> tuple[int, ...]:
    values: tuple[int, ...] = (value,) if isinstance(value, int) else tuple(value)
    return values * length if len(values) == 1 else values


_ENTRYWISE = """
    add sub subtract rsub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ neg negative positive
    mul div __rtruediv__ maximum minimum fmax fmin where masked_fill lerp addcmul addcdiv
    eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__ isnan isinf isfinite logical_and
    logical_or logical_not logical_xor to type double float half bfloat16 clone contiguous
    nan_to_num detach dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout
    feature_alpha_dropout
"""
_POOLS = {
    "max_pool": _largest,
    "avg_pool": _averaged,
    "adaptive_max_pool": _adapted,
    "adaptive_avg_pool": _adapted,
}
_MAKERS: dict[str, Callable[[Call], Followed | None]] = {
    **dict.fromkeys(_ENTRYWISE.split(), _entrywise),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenated),
    **dict.fromkeys(("batch_norm", "prelu"), _by_channel),
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolved),
    **{f"{kind}{dims}d": maker for kind, maker in _POOLS.items() for dims in (1, 2, 3)},
}
