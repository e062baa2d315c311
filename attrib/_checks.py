"""One layer of validation: what is refused before the model is called, or right after."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrib._transforms import concrete, numbers
from attrib._tree import (
    differentiable,
    flatten,
    leaf_names,
    leaves,
    leaves_for,
    tree_map,
    unflatten,
)
from attrib.errors import AttribTypeError, AttribValueError, NonFiniteWarning
from attrib.types import Tree

__all__ = [
    "check_baseline",
    "check_callable",
    "check_choice",
    "check_count",
    "check_finite",
    "check_input",
    "check_like",
    "check_number",
    "check_score",
    "check_several",
    "check_values",
    "describe",
]


def check_input(x: Tree, *, gradients: bool = True) -> None:
    """Refuse what is not a tree of dense tensors or, for gradients, has none to differentiate."""
    parts = leaves(x)
    if any(not _is_input(part) for part in parts):
        _refuse_input(x)
    if all(part is None for part in parts):
        raise AttribTypeError(
            f"x: must hold at least one tensor, got {describe(x)}; pass what the score takes first",
            code="x.type",
        )
    if gradients and not any(differentiable(part) for part in parts):
        dtypes = sorted({str(part.dtype) for part in parts if part is not None})
        raise AttribTypeError(
            f"x: nothing to differentiate, got {', '.join(dtypes)}; gradient methods "
            "need a floating-point tensor (for token ids, attribute to their embeddings)",
            code="x.dtype",
        )


def check_baseline(
    baseline: Any, x: Tree, name: str = "baseline", *, integers: bool = False
) -> Tree:
    """A tree like ``x`` with the baseline of every floating leaf, in its dtype.

    Absent leaves have no baseline, nor have integers unless asked for: they are carried along
    from ``x``.
    """
    given = leaves_for(x, baseline)
    if given is None:
        raise AttribValueError(
            f"{name}: structure differs from that of x, got {describe(baseline)}; expected a "
            f"number, one tensor that broadcasts to every leaf, or a tree like x ({describe(x)})",
            code=f"{name}.structure",
        )
    parts, spec = flatten(x)
    return unflatten(
        spec,
        [
            _baseline_leaf(b, a, name, x, place)
            if differentiable(a) or (integers and a is not None)
            else a
            for place, (b, a) in enumerate(zip(given, parts, strict=True))
        ],
    )


def check_like(value: Any, x: Tree, name: str, hint: str) -> list[Any]:
    """The leaves of what a function of the user returned, which must be shaped like ``x``."""
    parts = leaves(value)
    if [getattr(p, "shape", None) for p in parts] != [getattr(a, "shape", None) for a in leaves(x)]:
        raise AttribValueError(
            f"{name}: must return a tree like x, got {describe(value)} for {describe(x)}; {hint}",
            code=f"{name}.shape",
        )
    return parts


def check_score(score: Any, x: Tree) -> None:
    """Refuse a score that is not one floating-point number per example of ``x``."""
    if not isinstance(score, Tensor):
        raise AttribTypeError(
            f"f: the score must be a tensor, got {type(score).__name__}; return one number per "
            "example, or build the score with attrib.target(model, index)",
            code="score.type",
        )
    if not score.is_floating_point():
        raise AttribTypeError(
            f"f: the score must be floating-point, got {score.dtype}; integer and complex scores "
            "have no gradient",
            code="score.dtype",
        )
    shapes = [tuple(part.shape) for part in leaves(x) if differentiable(part)]
    batch = tuple(score.shape)
    if any(shape[: len(batch)] != batch for shape in shapes) or (
        len(shapes) == 1 and shapes[0] == batch and len(batch) > 1
    ):
        raise AttribValueError(
            f"f: the score must hold one number per example, got shape {batch} for x of shape "
            f"{' and '.join(map(str, shapes))}; the shape of the score must be the leading "
            "(batch) dimensions of x. Select one output, e.g. attrib.target(model, 3) or lambda "
            "x: model(x)[..., 3]",
            code="score.shape",
        )


def check_finite(
    gradient: list[Tensor], score: Tensor, total: Tensor | None = None
) -> list[Tensor]:
    """The gradients, NaN for examples whose score is NaN or infinite: a ReLU would hide it.

    The sum of the scores is taken anew if nobody has it.
    """
    broken = _broken(score, total)
    if broken is None:
        return gradient
    seen = numbers(broken)
    if seen is not None:
        first = list(map(int, seen.nonzero()[0]))
        warnings.warn(
            f"score: NaN or infinite for {int(seen.sum())} of {seen.numel()} examples, first "
            f"at index {first}; their attributions are NaN. Look at the input and at the model's "
            "parameters",
            NonFiniteWarning,
            stacklevel=2,
        )
    return [
        g.masked_fill(broken.reshape(broken.shape + (1,) * (g.ndim - broken.ndim)), math.nan)
        for g in gradient
    ]


def check_values(values: Tensor, *, known: bool = False) -> tuple[Tensor, bool]:
    """The scores of inputs with hidden features, those that are infinite NaN, as their differences
    are to be; and whether there are any, which is warned of unless it is known."""
    broken = _broken(values)
    if broken is None:
        return values, known
    seen = numbers(broken)
    if seen is not None and not known:
        warnings.warn(
            f"score: NaN or infinite for {int(seen.sum())} of {seen.numel()} evaluations with "
            "features replaced; what rests on them is NaN. Look at the input, the baseline and the "
            "model's parameters",
            NonFiniteWarning,
            stacklevel=2,
        )
    return values.masked_fill(broken, math.nan), True


def check_count(value: Any, name: str, *, least: int = 1) -> int:
    """An integer that is at least ``least``."""
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise AttribTypeError(
            f"{name}: must be an integer, got {type(value).__name__}; pass a whole number of at "
            f"least {least}",
            code=f"{name}.type",
        )
    if count < least:
        raise AttribValueError(
            f"{name}: too small, got {count}; must be at least {least}", code=f"{name}.range"
        )
    return count


def check_several(values: Any, name: str) -> list[Any]:
    """Some values; one alone is refused, and so is a word, which is letters to Python."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise AttribTypeError(
            f"{name}: must be several, got {type(values).__name__}; pass [{values!r}]",
            code=f"{name}.type",
        )
    return [*values]


def check_number(
    value: Any, name: str, *, least: float = 0.0, most: float = math.inf, exclusive: bool = False
) -> float:
    """A finite number in ``[least, most]``, without ``least`` itself if exclusive."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AttribTypeError(
            f"{name}: must be a number, got {type(value).__name__}", code=f"{name}.type"
        )
    inside = least < value <= most if exclusive else least <= value <= most
    if not inside or not math.isfinite(value):
        bound = f"above {least:g}" if exclusive else f"at least {least:g}"
        raise AttribValueError(
            f"{name}: out of range, got {value}; must be finite, {bound}"
            + (f" and at most {most:g}" * (most < math.inf)),
            code=f"{name}.range",
        )
    return float(value)


def check_choice(value: Any, name: str, choices: Sequence[str]) -> None:
    """One of a few words."""
    if value not in choices:
        raise AttribValueError(
            f"{name}: unknown, got {value!r}; must be one of {', '.join(map(repr, choices))}",
            code=f"{name}.unknown",
        )


def check_callable(value: Any, name: str, hint: str) -> None:
    """A function; the hint says which."""
    if not callable(value):
        raise AttribTypeError(
            f"{name}: must be callable, got {type(value).__name__}; {hint}", code=f"{name}.type"
        )


def describe(tree: Any) -> str:
    """Types and shapes, never values, in at most 200 characters."""
    if isinstance(tree, Tensor):
        return f"{tuple(tree.shape)}"
    if isinstance(tree, (tuple, list, dict)):
        text = str(tree_map(_Shape, tree))
        return text if len(text) <= 200 else text[:197] + "..."
    return type(tree).__name__


def _broken(score: Tensor, total: Tensor | None = None) -> Tensor | None:
    """Which scores are NaN or infinite; ``None`` if it is known that none is."""
    # Cheap and nearly always enough; a sum that overflows is looked at entry by entry.
    if concrete(score) and math.isfinite((score.sum() if total is None else total).item()):
        return None
    broken = ~torch.isfinite(score)
    seen = numbers(broken)
    return broken if seen is None or seen.any() else None


class _Shape:
    def __init__(self, leaf: Any) -> None:
        self.text = describe(leaf)

    def __repr__(self) -> str:
        return self.text


def _is_input(part: Any) -> bool:
    return part is None or (
        isinstance(part, Tensor) and part.layout == torch.strided and not part.is_complex()
    )


def _refuse_input(x: Tree) -> None:
    for part, name in zip(leaves(x), leaf_names(x, "x"), strict=True):
        if _is_input(part):
            continue
        if not isinstance(part, Tensor):
            raise AttribTypeError(
                f"{name}: must be a tensor, got {type(part).__name__}; convert arrays and numbers "
                "with torch.as_tensor, and close over what is not a tensor",
                code="x.type",
            )
        if part.is_complex():
            raise AttribTypeError(
                f"{name}: complex tensors are not supported, got {part.dtype}; pass "
                "torch.view_as_real(x) and let the score call torch.view_as_complex",
                code="x.dtype",
            )
        raise AttribTypeError(
            f"{name}: only dense tensors are supported, got {part.layout}; pass x.to_dense()",
            code="x.layout",
        )


def _baseline_leaf(baseline: Any, leaf: Any, name: str, x: Tree, place: int) -> Any:
    if not differentiable(leaf):
        _check_whole(baseline, leaf, leaf_names(x, name)[place], name)
        if not isinstance(baseline, Tensor):
            return torch.full((), int(baseline), dtype=leaf.dtype, device=leaf.device)
    if isinstance(baseline, (int, float)) and not isinstance(baseline, bool):
        return torch.full((), float(baseline), dtype=leaf.dtype, device=leaf.device)
    if (
        not isinstance(baseline, Tensor)
        or baseline.is_complex()
        or baseline.layout != torch.strided
    ):
        kind = str(baseline.dtype) if isinstance(baseline, Tensor) else type(baseline).__name__
        raise AttribTypeError(
            f"{leaf_names(x, name)[place]}: must be a number or a dense real tensor, got {kind}",
            code=f"{name}.type",
        )
    if baseline.device != leaf.device:
        raise AttribValueError(
            f"{leaf_names(x, name)[place]}: on another device than x, got {baseline.device}; x is "
            f"on {leaf.device}",
            code=f"{name}.device",
        )
    # Sizes from the right: each the same as that of x, or one.
    fits = baseline.ndim <= leaf.ndim and all(
        own in (1, size)
        for own, size in zip(reversed(baseline.shape), reversed(leaf.shape), strict=False)
    )
    if not fits:
        raise AttribValueError(
            f"{leaf_names(x, name)[place]}: does not broadcast to x, got shape "
            f"{tuple(baseline.shape)}; x has shape {tuple(leaf.shape)}",
            code=f"{name}.shape",
        )
    return baseline.to(leaf.dtype)


def _check_whole(baseline: Any, leaf: Tensor, place: str, name: str) -> None:
    """A baseline of integers must hold integers that their dtype can hold."""
    if isinstance(baseline, Tensor):
        if baseline.is_floating_point() or baseline.is_complex():
            found = str(baseline.dtype)
        elif baseline.dtype == leaf.dtype or leaf.dtype == torch.bool:
            return
        else:
            seen = numbers(baseline)
            if seen is None or bool((seen.to(leaf.dtype) == seen).all()):
                return
            found = f"numbers of {baseline.dtype} that do not fit"
    elif isinstance(baseline, (int, float)):
        least, most = (0, 1) if leaf.dtype == torch.bool else _span(leaf.dtype)
        if math.isfinite(baseline) and baseline == int(baseline) and least <= baseline <= most:
            return
        found = str(baseline)
    else:
        found = type(baseline).__name__
    raise AttribTypeError(
        f"{place}: must be made of integers as x is there, got {found} for {leaf.dtype}; pass a "
        "tree like x with an integer for this leaf, such as the id of a mask token",
        code=f"{name}.dtype",
    )


def _span(dtype: torch.dtype) -> tuple[int, int]:
    limits = torch.iinfo(dtype)
    return limits.min, limits.max
