"""What is checked: an attribution function, the score that it explains, and one call of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrib._batched import Batched, Rows, baseline_of
from attrib._carriers import Overridden
from attrib._checks import check_baseline, check_callable, check_input, describe
from attrib._transforms import concrete
from attrib._tree import differentiable, flatten, leaf_names, leaves, put, tree_map, unflatten
from attrib.checking._report import Counterexample
from attrib.checking._state import advance, attempt, left_behind, random_state, reachable
from attrib.errors import AttribValueError
from attrib.gradient import score_of
from attrib.metrics._calling import check_attribution, check_tensors
from attrib.metrics.axioms import implementation_invariance
from attrib.types import Attribute, Score, Tree

__all__ = [
    "NotApplicable",
    "Outcome",
    "Subject",
    "attributed",
    "detached_copy",
    "difference",
    "draws",
    "examine",
    "made",
    "method_of",
    "on_entries",
    "raised",
    "scored",
    "steady",
]


class NotApplicable(Exception):
    """A law that nothing can be said about here; the message says why."""


class Outcome(NamedTuple):
    """What measuring a law gave: the gap, and the number by which the law is missed most."""

    gap: float
    counterexample: Counterexample | None = None
    note: str = ""


@dataclass(frozen=True)
class Subject:
    """An attribution function and one call of it.

    Attributes:
        attribute: The function.
        f: The score.
        method: From a score to such a function, if there is one.
        x: What is explained.
        args: What else the function is called with, a baseline expanded to ``x``.
        role: Whether the first of them is a ``"baseline"`` or are ``"baselines"``.
        score: The score of ``x``, ``(*batch,)``.
        found: The attribution.
        watch: ``watch(function)(*args)``, what a function returns or raises and what it changed.
        moved: What evaluating the score changes.
        left: What the first call of `attribute` changed beside.
        restore: Puts the global random states back to those before the check.
    """

    attribute: Attribute
    f: Score
    method: Callable[..., Attribute] | None
    x: Tree
    args: tuple[Any, ...]
    role: str | None
    score: Tensor
    found: Tree
    watch: Callable[[Callable[..., Any]], Callable[..., tuple[Any, list[str]]]]
    moved: list[str]
    left: list[str]
    restore: Callable[[], None]

    @property
    def shared(self) -> tuple[Any, ...]:
        """The arguments that the score takes too."""
        return self.args[1:] if self.role else self.args

    @property
    def batch_dims(self) -> int:
        """How many batch dimensions there are."""
        return self.score.ndim

    @property
    def places(self) -> list[int]:
        """The leaves of ``x`` whose entries have attributions of their own."""
        pairs = zip(leaves(self.x), leaves(self.found), strict=True)
        alike = [a is not None and p is not None and a.shape == p.shape for a, p in pairs]
        return [place for place, same in enumerate(alike) if same]


def examine(
    attribute: Any, f: Any, x: Tree, args: tuple[Any, ...], method: Any
) -> Subject | Exception:
    """The call whose laws are asked for; or what the attribution function raised.

    Raises:
        AttribError: If an argument is not what it should be.
    """
    check_callable(attribute, "attribute", "pass an attribution, e.g. attrib.saliency(f)")
    check_input(x, gradients=False)
    if any(part is not None and not concrete(part) for part in leaves(x)):
        raise AttribValueError(
            f"x: has no numbers of its own, got {describe(x)} inside of a torch.func transform or "
            "a compiler; call check outside",
            code="x.traced",
        )
    if method is not None:
        check_callable(method, "method", "pass a method such as attrib.saliency")
    role, args = _baseline_given(attribute, args)
    devices = {part.device for part in leaves(x) if part is not None}
    restore = random_state(devices)
    watch = _watching(f, attribute, restore)
    score, moved = watch(score_of(f))(x, *(args[1:] if role else args))
    if isinstance(score, Exception):
        raise score
    found, left = watch(attribute)(x, *args)
    if isinstance(found, Exception):
        return found
    check_attribution(found, x, score.shape)
    left = [name for name in left if name not in moved]
    subject = Subject(
        attribute, f, method, x, args, role, score, found, watch, moved, left, restore
    )
    if role == "baseline":
        pairs = zip(leaves(x), leaves(found), strict=True)
        integers = any(p is not None and not differentiable(a) for a, p in pairs)
        start = check_baseline(args[0], x, integers=integers)
        full = tree_map(lambda b, a: b.expand(a.shape), start, x)
        subject = replace(subject, args=(full, *args[1:]))
    _check_method(subject)
    return subject


def steady(function: Callable[..., Any], restore: Callable[[], None]) -> Callable[..., Any]:
    """A function on copies of what it is given, from the same random numbers at every call."""

    def call(*args: Any) -> Any:
        restore()
        try:
            return tree_map(_detached, function(*tree_map(detached_copy, args)))
        finally:
            restore()

    return call


def method_of(subject: Subject) -> Callable[..., Attribute]:
    """The method.

    Raises:
        NotApplicable: If none is given.
    """
    if subject.method is None:
        raise NotApplicable("asks for other scores: pass method=, such as attrib.saliency")
    return subject.method


def attributed(subject: Subject, score: Score, **options: Any) -> Tree:
    """What the method says about another score."""
    attribute = method_of(subject)(score, **options)
    return steady(attribute, subject.restore)(subject.x, *subject.args)


def made(f: Any, change: Callable[[Score], Score]) -> Any:
    """``change(f)``, which keeps what `f` says of itself: its rows, its models and its sites."""
    if isinstance(f, Overridden):
        return replace(f, score=made(f.score, change))
    if not isinstance(f, Batched):
        return change(f)

    def function(rows: Rows, x: Tree, *args: Any) -> Tensor:
        return change(replace(f, rows=rows))(x, *args)

    marked = f.marked
    return Batched(
        function,
        f.rows,
        models=f.models,
        marked=marked and (lambda spots: made(marked(spots), change)),
    )


def scored(subject: Subject, x: Tree, args: Iterable[Any], what: str) -> Tensor:
    """The score of something else.

    Raises:
        NotApplicable: If it has none, or not a finite one.
    """
    score = attempt(steady(score_of(subject.f), subject.restore), x, *args)
    if isinstance(score, Exception):
        raise NotApplicable(f"the score does not take {what}: it {raised(score)}") from score
    if not bool(score.isfinite().all()):
        raise NotApplicable(f"the score of {what} is not finite")
    return score


def on_entries(subject: Subject, change: Callable[[Tensor, int], Tensor], tree: Tree) -> Tree:
    """``change(leaf, number)`` in the leaves of a tree like ``x`` that have attributions."""
    parts, spec = flatten(tree)
    changed = [change(parts[place], number) for number, place in enumerate(subject.places)]
    return unflatten(spec, put(parts, subject.places, changed))


def difference(subject: Subject, found: Tree, expected: Tree) -> Outcome:
    """By how much two attributions differ: the norm of the difference, relative, at worst."""
    own, other = check_tensors(found), check_tensors(expected)
    shapes = [[None if p is None else (p.shape, p.dtype) for p in parts] for parts in (own, other)]
    if shapes[0] != shapes[1]:
        note = f"returns another shape or dtype: {describe(found)} instead of {describe(expected)}"
        return Outcome(math.inf, None, note)
    batch_dims = subject.batch_dims
    measure = implementation_invariance(
        lambda x, *_: found, lambda x, *_: expected, batch_dims=batch_dims
    )
    gaps = measure(subject.x).nan_to_num(math.inf, math.inf)
    if gaps.numel() == 0 or not bool((gaps > 0).any()):
        return Outcome(0.0)
    row = _unravel(int(gaps.argmax()), gaps.shape)
    names = leaf_names(subject.x, "x")
    names = names if len(names) == len(own) else leaf_names(found, "attribution")
    examples = [
        _furthest(name, row, a[row], b[row])
        for name, a, b in zip(names, own, other, strict=True)
        if a is not None and a.numel() > 0
    ]
    return Outcome(float(gaps.max()), max(examples, key=_distance))


def draws(subject: Subject) -> bool:
    """Whether the attribution depends on the global random numbers."""

    def elsewhere() -> None:
        subject.restore()
        advance({part.device for part in leaves(subject.x) if part is not None})

    again = steady(subject.attribute, elsewhere)(subject.x, *subject.args)
    subject.restore()
    return difference(subject, again, subject.found).gap > 0


def raised(error: BaseException) -> str:
    """What was raised, in one line."""
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}: {text if len(text) <= 200 else text[:197] + '...'}"


def detached_copy(leaf: Any) -> Any:
    """A copy of a tensor, for a call that may write to it; what is none stays as it is."""
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _baseline_given(attribute: Any, args: tuple[Any, ...]) -> tuple[str | None, tuple[Any, ...]]:
    """What the first argument is; one that is left out is what the function says, or zero."""
    role = None
    with suppress(TypeError, ValueError):  # a callable may have no signature
        role = baseline_of(attribute)
    if args or role != "baseline":
        return (role if args else None), args
    default = list(inspect.signature(attribute).parameters.values())[1].default
    if default is None:
        return None, args
    return role, (0 if default is inspect.Parameter.empty else default,)


def _watching(f: Score, attribute: Attribute, restore: Callable[[], None]) -> Any:
    modules, tensors = reachable(f, attribute)
    named = [(f"tensor {i} of the score", tensor) for i, tensor in enumerate(tensors)]

    def watch(function: Callable[..., Any]) -> Callable[..., tuple[Any, list[str]]]:
        def call(*args: Any) -> tuple[Any, list[str]]:
            restore()
            try:
                result, changed = left_behind(function, tree_map(_own_copy, args), modules, named)
            finally:
                restore()
            return tree_map(_detached, result), changed

        return call

    return watch


def _check_method(subject: Subject) -> None:
    """Refuse a method that is another one than that of the attribution."""
    if subject.method is None:
        return
    check_callable(
        subject.method(subject.f), "method(f)", "pass a method, which returns an attribution"
    )
    same = steady(subject.attribute, subject.restore)
    again = attempt(same, subject.x, *subject.args)
    own = attempt(attributed, subject, subject.f)
    # What is raised, the laws say; and where random numbers differ, nothing can be compared.
    if isinstance(again, Exception) or isinstance(own, Exception):
        return
    steadily = difference(subject, again, subject.found).gap == 0
    if steadily and difference(subject, own, subject.found).gap > 0:
        raise AttribValueError(
            "method: gives another attribution than attribute, got different numbers for "
            "method(f) and attribute; pass the method with its options, e.g. method=lambda f: "
            "attrib.integrated_gradients(f, steps=20)",
            code="method.other",
        )


def _furthest(name: str, row: tuple[int, ...], found: Tensor, expected: Tensor) -> Counterexample:
    gaps = (found - expected).abs().double().nan_to_num(math.inf, math.inf)
    feature = _unravel(int(gaps.argmax()), gaps.shape)
    return Counterexample(name, row, feature, float(found[feature]), float(expected[feature]))


def _distance(example: Counterexample) -> float:
    gap = abs(example.found - example.expected)
    return math.inf if math.isnan(gap) else gap


def _unravel(position: int, shape: torch.Size) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(position), shape))


def _own_copy(leaf: Any) -> Any:
    """A copy that a call may spoil, with a gradient like that of the original."""
    if not isinstance(leaf, Tensor):
        return leaf
    copy = leaf.detach().clone().requires_grad_(leaf.requires_grad)
    copy.grad = None if not leaf.is_leaf or leaf.grad is None else leaf.grad.clone()
    return copy


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf
