"""Laws about calls of one attribution function: sums, rows, chunks, transforms, derivatives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrib._batched import Batched
from attrib._tree import differentiable, leaf_names, leaves, length, tree_map
from attrib.checking._report import Counterexample
from attrib.checking._state import attempt
from attrib.checking._subject import (
    NotApplicable,
    Outcome,
    Subject,
    attributed,
    detached_copy,
    difference,
    made,
    raised,
    scored,
    steady,
)
from attrib.metrics import completeness as completeness_gap
from attrib.metrics._calling import at_points
from attrib.types import Score, Tree

__all__ = [
    "antisymmetry",
    "chunks",
    "completeness",
    "derivative",
    "determinism",
    "dtype",
    "finite",
    "permutation",
    "purity",
    "rows",
    "vmap",
]


def finite(subject: Subject) -> Outcome:
    """Where the score is a number, so is every entry of the attribution."""
    if not bool(subject.score.isfinite().all()):
        raise NotApplicable("the score of x is not finite")
    zeros = tree_map(lambda p: torch.where(p.isfinite(), p, 0), subject.found)
    outcome = difference(subject, subject.found, zeros)
    broken = sum(int((~p.isfinite()).sum()) for p in leaves(subject.found) if p is not None)
    note = f"{broken} numbers are NaN or infinite" if broken else ""
    return Outcome(float(broken), outcome.counterexample, note)


def dtype(subject: Subject) -> Outcome:
    """The attribution has the dtype of ``x``; in float64 it has the precision of it too."""
    for name, part, given in zip(
        leaf_names(subject.x, "x"), leaves(subject.found), leaves(subject.x), strict=True
    ):
        wanted = given.dtype if differentiable(given) else subject.score.dtype
        if part is not None and part.dtype != wanted:
            return Outcome(1.0, None, f"{name}: {part.dtype} instead of {wanted}")
    if subject.score.dtype != torch.float64 or subject.method is None:
        return Outcome(0.0)
    # A float32 number times an irrational one is no float32 number again.
    score = made(subject.f, lambda g: lambda x, *args: g(x, *args) / math.pi)
    found = attributed(subject, score)
    for name, part in zip(leaf_names(subject.x, "x"), leaves(found), strict=True):
        if part is None or not bool((part != 0).any()):
            continue
        if bool((part == part.float().double()).all()):
            return Outcome(1.0, None, f"{name}: all numbers are those of float32")
    return Outcome(0.0)


def determinism(subject: Subject) -> Outcome:
    """The same seed gives the same numbers, in every bit."""
    again = steady(subject.attribute, subject.restore)(subject.x, *subject.args)
    # Whether they are numbers at all is asked by another law.
    filled = (tree_map(torch.nan_to_num, found) for found in (again, subject.found))
    outcome = difference(subject, *filled)
    if outcome.gap == 0 and _takes(subject.method, "generator"):
        device = subject.score.device

        def seeded() -> Tree:
            generator = torch.Generator(device).manual_seed(0)
            return attributed(subject, subject.f, generator=generator)

        outcome = difference(subject, seeded(), seeded())
    if outcome.gap > 0:
        return outcome._replace(
            note="a generator that the method keeps is advanced by every call; without one, draw "
            "from the global generator"
        )
    return outcome


def completeness(subject: Subject) -> Outcome:
    """The attributions add up to what the score rises from the baseline, relative to the scores."""
    if subject.role != "baseline":
        given = "a set of baselines" if subject.role else "no baseline"
        raise NotApplicable(f"the attribution is called with {given}")
    baseline = subject.args[0]
    start = scored(subject, baseline, subject.shared, "the baseline")
    measure = steady(completeness_gap(subject.f), subject.restore)
    gaps = measure(subject.found, subject.x, baseline, *subject.shared)
    # Differences of scores are as exact as the scores.
    largest = float(torch.maximum(subject.score.abs(), start.abs()).max())
    shares = (gaps.abs() / (largest or 1.0)).nan_to_num(math.inf)
    row = tuple(int(i) for i in torch.unravel_index(shares.argmax(), shares.shape))
    rise = float((subject.score - start)[row])
    example = Counterexample("sum", row, None, rise + float(gaps[row]), rise)
    return Outcome(float(shares.max()), example)


def antisymmetry(subject: Subject) -> Outcome:
    """Exchanging input and baseline changes the sign."""
    if subject.role != "baseline":
        raise NotApplicable("the attribution is called without a baseline")
    start = subject.args[0]
    scored(subject, start, subject.shared, "the baseline")
    attribute = steady(subject.attribute, subject.restore)
    back = attribute(start, subject.x, *subject.shared)
    return difference(subject, back, tree_map(torch.neg, subject.found))


def permutation(subject: Subject) -> Outcome:
    """Permuting the examples permutes the attributions."""
    backwards = torch.arange(_rows(subject)).flip(0)
    found = _of_rows(subject, backwards)
    return difference(subject, found, tree_map(lambda p: p[backwards], subject.found))


def rows(subject: Subject) -> Outcome:
    """An example gets the same in another batch: the first one alone, the others without it."""
    count = _rows(subject)
    parts = [_of_rows(subject, torch.arange(*part)) for part in ((0, 1), (1, count))]
    return difference(subject, tree_map(lambda *p: torch.cat(p), *parts), subject.found)


def chunks(subject: Subject) -> Outcome:
    """The result does not depend on how many points are evaluated at once."""
    if not _takes(subject.method, "chunk_size"):
        raise NotApplicable("asks for method=, one that takes chunk_size")
    if not isinstance(subject.f, Batched):
        _need_vmap(subject)
    outcomes = [
        difference(subject, attributed(subject, subject.f, chunk_size=size), subject.found)
        for size in (1, 3, None)
    ]
    return max(outcomes, key=lambda outcome: outcome.gap)


def vmap(subject: Subject) -> Outcome:
    """`torch.vmap` of the attribution is a loop over examples."""
    _rows(subject)
    _need_vmap(subject)
    each = [_picked(subject, torch.tensor([i])) for i in range(2)]
    for row in each:
        _picked_score(subject, row)
    given = (subject.x, *subject.args)
    moving = [i for i, (a, b) in enumerate(zip(each[0], given, strict=True)) if _moved(a, b)]

    def of_rows(*own: Any) -> Any:
        of_row = dict(zip(moving, own, strict=True))
        fixed = tree_map(detached_copy, each[0])
        return subject.attribute(*(of_row.get(i, a) for i, a in enumerate(fixed)))

    points = [tree_map(lambda a, b: torch.stack([a, b]), each[0][i], each[1][i]) for i in moving]
    mapped = tree_map(lambda p: p.flatten(0, 1), _mapped(subject, of_rows, *points))
    alone = [steady(subject.attribute, subject.restore)(*args) for args in each]
    return difference(subject, mapped, tree_map(lambda *p: torch.cat(p), *alone))


def derivative(subject: Subject) -> Outcome:
    """An attribution that carries a graph has the derivative that finite differences give."""
    if not torch.is_grad_enabled():
        raise NotApplicable("gradients are disabled here; call check outside of torch.no_grad()")
    draw, weighed = _direction(seed=0), _weighed(subject)
    moved = [leaf.detach() for leaf in leaves(subject.x) if differentiable(leaf)]
    ways = [draw(leaf) * (leaf.abs().mean() + 1e-3) for leaf in moved]
    own = [leaf.clone().requires_grad_() for leaf in moved]
    value = weighed(own)
    if not value.requires_grad:
        raise NotApplicable("the attribution carries no graph, so it claims no derivative")
    slopes = attempt(partial(torch.autograd.grad, allow_unused=True), value, own)
    if isinstance(slopes, Exception):
        raise NotApplicable(f"differentiating the attribution {raised(slopes)}") from slopes
    slope = sum(float((g * v).sum()) for g, v in zip(slopes, ways, strict=True) if g is not None)

    def steps(step: float) -> float:
        ahead, behind = (
            weighed([a + sign * step * v for a, v in zip(moved, ways, strict=True)])
            for sign in (1, -1)
        )
        return float((ahead - behind).detach()) / (2 * step)

    return _slopes(subject, slope, steps)


def purity(subject: Subject) -> Outcome:
    """A call leaves models, tensors, modes and random states as they were, also when it fails."""
    found, when = subject.left, ""
    if not found and subject.method is not None:
        attribute = subject.method(made(subject.f, _failing))
        _, found = subject.watch(attribute)(subject.x, *subject.args)
        found = [name for name in found if name not in subject.moved]
        when = " when the score raises"
    if not found:
        beside = f"the score itself changes {_some(subject.moved)}" if subject.moved else ""
        return Outcome(0.0, None, beside)
    return Outcome(float(len(found)), None, f"changed{when}: {_some(found)}")


def _direction(seed: int) -> Callable[[Tensor], Tensor]:
    """Random numbers like a tensor, others at every call and the same in every check."""
    generator = torch.Generator().manual_seed(seed)
    return lambda leaf: torch.randn(
        leaf.shape, generator=generator, dtype=torch.float64, device="cpu"
    ).to(leaf)


def _weighed(subject: Subject) -> Callable[[list[Tensor]], Tensor]:
    """A weighted sum of the attribution, as a function of the leaves of ``x`` that have slopes."""
    draw = _direction(seed=1)
    weights = [None if p is None else draw(p) for p in leaves(subject.found)]

    def weighed(parts: list[Tensor]) -> Tensor:
        following = iter(parts)
        own, *args = tree_map(detached_copy, (subject.x, *subject.args))
        x = tree_map(lambda p: next(following) if differentiable(p) else p, own)
        subject.restore()
        found = leaves(subject.attribute(x, *args))
        subject.restore()
        pairs = zip(found, weights, strict=True)
        return sum(((p * w).sum() for p, w in pairs if p is not None), torch.zeros(()))

    return weighed


def _slopes(subject: Subject, slope: float, steps: Callable[[float], float]) -> Outcome:
    double = subject.score.dtype == torch.float64
    step, limit = (2e-6, 1e-4) if double else (1e-3, 2e-2)
    # Many small kinks look smooth to steps of about one size.
    coarse, fine = steps(8 * step), steps(step)
    # A sum of numbers of this size is known up to rounding, which a small step magnifies.
    total = sum(float(p.abs().sum()) for p in leaves(subject.found) if p is not None)
    noise = 8 * torch.finfo(subject.score.dtype).eps * total / step
    scale = max(abs(slope), abs(fine), 1e-300)
    if abs(coarse - fine) > limit * max(abs(coarse), scale) + noise:
        raise NotApplicable("the attribution is not smooth here: finite differences do not settle")
    example = Counterexample("slope", (), None, slope, fine)
    return Outcome(max(abs(slope - fine) - noise, 0.0) / scale, example)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


def _rows(subject: Subject) -> int:
    if subject.batch_dims == 0 or length(subject.x) < 2:
        raise NotApplicable("asks for an x of two or more examples")
    return length(subject.x)


def _need_vmap(subject: Subject) -> None:
    """Refuse a score that torch cannot map."""
    twice = tree_map(lambda leaf: torch.stack([leaf, leaf]), subject.x)

    def score(x: Tree) -> Tensor:
        return subject.f(x, *tree_map(detached_copy, subject.shared))

    refusal = attempt(_mapped, subject, score, twice)
    if isinstance(refusal, Exception):
        raise NotApplicable(f"torch.vmap of the score {raised(refusal)}") from refusal


def _mapped(subject: Subject, function: Callable[..., Any], *points: Tree) -> Tree:
    """`torch.vmap` of a function, in which all points see the same random numbers."""
    over = at_points(function, 0, same_draws=True)
    return steady(over, subject.restore)(*points)


def _picked(subject: Subject, index: Tensor) -> tuple[Any, ...]:
    """``x`` and the arguments for some rows."""
    count = length(subject.x)

    def pick(leaf: Any) -> Any:
        rowwise = isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == count
        return leaf[index.to(leaf.device)] if rowwise else leaf

    own = subject.args if subject.role != "baselines" else subject.args[1:]
    return (
        tree_map(pick, subject.x),
        *subject.args[: len(subject.args) - len(own)],
        *(tree_map(pick, arg) for arg in own),
    )


def _picked_score(subject: Subject, picked: tuple[Any, ...]) -> Tensor:
    """The score of some rows, if it takes fewer than all."""
    x, *args = picked
    return scored(subject, x, args[1:] if subject.role else args, "some of the rows")


def _moved(picked: Tree, given: Tree) -> bool:
    return any(a is not b for a, b in zip(leaves(picked), leaves(given), strict=True))


def _of_rows(subject: Subject, index: Tensor) -> Tree:
    picked = _picked(subject, index)
    score = _picked_score(subject, picked)
    expected = subject.score[index.to(subject.score.device)]
    gap = float((score - expected).abs().max())
    limit = 1e-3 if score.dtype != torch.float64 else 1e-9
    if gap > limit * float(expected.abs().max()):
        raise NotApplicable(
            "the score of an example depends on the others, or it has a target per row that does "
            f"not move with x: it changes by {gap:.2g}"
        )
    return steady(subject.attribute, subject.restore)(*picked)


def _takes(method: Any, name: str) -> bool:
    with suppress(TypeError, ValueError):
        return name in inspect.signature(method).parameters
    return False


def _failing(g: Score) -> Score:
    def score(x: Tree, *args: Any) -> Tensor:
        g(x, *args)
        raise RuntimeError("raised by attrib.check to see what is left behind")

    return score
