"""Times several ways to the same attribution: they must agree, then they run in turns.

The machine is noisy, so nothing here trusts one timing: contenders are interleaved in short rounds
and compared within a round, and what is reported is the median over rounds of these ratios, with
the smallest and the largest beside it.
"""

from __future__ import annotations

import gc
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy
import torch
from torch import Tensor

from benchmarks.models import Workload

Call = Callable[[], Tensor]
Make = Callable[[Workload], Call]
Judge = Callable[[Make], "Agreement"]

CONTENDERS = ("attrib", "captum", "tuned", "limit")


@dataclass(frozen=True)
class Agreement:
    """What a check found: the gap it judges by, and the error of one call as a user gets it."""

    gap: float
    error: float


@dataclass(frozen=True)
class Check:
    """How the contenders of a row are held against each other before any is timed.

    Attributes:
        prepare: From a workload and the trusted contender to a judge of any other contender.
        tolerance: The largest gap at which a contender is timed.
        selects: Whether variants are judged before the fastest is chosen among those that agree.
    """

    prepare: Callable[[Workload, Make], Judge]
    tolerance: float
    selects: bool = False


@dataclass(frozen=True)
class Goal:
    """What a row should reach: at least so many times faster, at most so many times the limit."""

    captum: float | None = None
    tuned: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: a method on a model, computed by each contender.

    Attributes:
        method: What is computed.
        model: A key of models.WORKLOADS.
        attrib: attrib at its defaults.
        captum: Captum at its defaults; None where Captum has no such method.
        tuned: Captum's options worth trying, by label; the fastest is chosen by a short search.
        limit: Hand-written ways worth trying, by label; the fastest is chosen likewise.
        check: How they are found to agree.
        goal: What to reach.
        batch: Only so many examples of the workload.
        quick: Whether it belongs to the short run.
    """

    method: str
    model: str
    attrib: Make
    check: Check
    captum: Make | None = None
    tuned: Mapping[str, Make] = field(default_factory=dict[str, Make])
    limit: Mapping[str, Make] = field(default_factory=dict[str, Make])
    goal: Goal = Goal()
    batch: int | None = None
    quick: bool = False

    @property
    def key(self) -> str:
        """The name of the row, unique in a run."""
        return f"{self.method} / {self.model}"

    def variants(self, contender: str) -> Mapping[str, Make]:
        """Every way in which a contender may compute the row, by label."""
        if contender == "attrib":
            return {"": self.attrib}
        if contender == "captum":
            return {"": self.captum} if self.captum is not None else {}
        return self.tuned if contender == "tuned" else self.limit

    def on(self, workload: Workload) -> Workload:
        """The workload, cut to the batch of this row."""
        return workload if self.batch is None else workload.head(self.batch)


@dataclass(frozen=True)
class Spread:
    """The median of a few numbers, with the smallest and the largest."""

    median: float
    low: float
    high: float


@dataclass
class Result:
    """What was found out about one row."""

    row: Row
    labels: dict[str, str] = field(default_factory=dict[str, str])
    agreement: dict[str, Agreement] = field(default_factory=dict[str, Agreement])
    searched: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    cpu: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    wall: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    memory: dict[str, int | None] = field(default_factory=dict[str, int | None])
    load: float = 0.0
    failure: str | None = None

    def ratio(self, numerator: str, denominator: str) -> Spread | None:
        """CPU time of one contender over that of another, compared within each round."""
        if not self.cpu.get(numerator) or not self.cpu.get(denominator):
            return None
        return spread(ratios(self.cpu[numerator], self.cpu[denominator]))


@dataclass(frozen=True)
class Settings:
    """How long to measure.

    Attributes:
        rounds: At most so many rounds.
        least_rounds: At least so many, whatever they take.
        budget: No further round is begun after so many seconds.
        block: A contender is called again within its turn until so many seconds have gone by.
    """

    rounds: int = 9
    least_rounds: int = 5
    budget: float = 6.0
    block: float = 0.04


def options(make: Callable[..., Call], **choices: Sequence[object]) -> dict[str, Make]:
    """Every combination of the choices, by a label such as "rows=64, layout=channels_last"."""
    combinations = (
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    )
    return {
        ", ".join(f"{name}={value}" for name, value in chosen.items()): partial(make, **chosen)
        for chosen in combinations
    }


def measure(row: Row, workload: Workload, settings: Settings) -> Result:
    """Checks, chooses and times the contenders of one row, on the same tensors."""
    result = Result(row)
    workload = row.on(workload)
    with torch.no_grad():
        calls = _choose(row, workload, result)
        if result.failure is None:
            _interleave(calls, settings, result)
    return result


def fastest(
    variants: Mapping[str, Make], workload: Workload, block: float = 0.02, enough: float = 1.0
) -> dict[str, float]:
    """CPU seconds of one call of each variant, the fastest first: the best of a few short turns.

    Args:
        variants: What to try.
        workload: What to try it on.
        block: A variant is called again within its turn until so many seconds have gone by.
        enough: The first call of each is enough if all together take so many seconds; if not, it
            only warms up.
    """
    with torch.no_grad():
        calls = {label: make(workload) for label, make in variants.items()}
        times = {label: _time(call, 1)[0] for label, call in calls.items()}
        turns = 3 if len(calls) > 1 else 1
        for _ in range(turns if sum(times.values()) < enough else 0):
            for label, call in calls.items():
                found = _time(call, _repeats(times[label], block))[0]
                times[label] = min(times[label], found)
    return dict(sorted(times.items(), key=lambda found: found[1]))


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [above / below for above, below in zip(numerator, denominator, strict=True)]


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest."""
    return Spread(statistics.median(values), min(values), max(values))


def wall_can_be_published(load: float, cores: int) -> bool:
    """Whether nobody had to wait for a core: only then does wall time say anything."""
    return load <= cores


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """The L2 norm of the difference over that of the reference."""
    value, reference = value.double(), reference.double()
    return ((value - reference).norm() / reference.norm()).item()


def same_evaluations(tolerance: float = 1e-6, examples: int | None = None) -> Check:
    """In float64 the contenders are the same sum of the same gradients, on so many examples.

    Not in float32: a convolution in another memory layout rounds differently, and where that flips
    a ReLU the gradient jumps. In float64 no flip is seen, and rounding is below any mistake. The
    error of one call is what float32 costs: its distance from the float64 result.
    """

    def prepare(workload: Workload, trusted: Make) -> Judge:
        single = workload if examples is None else workload.head(examples)
        exact = single.double()
        reference = trusted(exact)()

        def judge(make: Make) -> Agreement:
            gap = relative_difference(make(exact)(), reference)
            return Agreement(gap, relative_difference(make(single)(), reference))

        return judge

    return Check(prepare, tolerance)


def same_in_the_mean(draws: int, tolerance: float = 3.0) -> Check:
    """Contenders that draw at random agree in the mean, in standard errors (about one is right).

    The squared distance of two means over the draws, summed over all entries, has as expectation
    the summed squared standard errors of the two, if and only if the expectations are equal. The
    error of one call is its relative standard deviation.
    """

    def prepare(workload: Workload, trusted: Make) -> Judge:
        reference = _draw(trusted(workload), draws, first_seed=draws)

        def judge(make: Make) -> Agreement:
            found = _draw(make(workload), draws, first_seed=0).double()
            error = (found.var(0).sum().sqrt() / found.mean(0).norm()).item()
            return Agreement(standard_errors(found, reference), error)

        return judge

    return Check(prepare, tolerance)


def within(tolerance: float, truth: Make) -> Check:
    """Whoever is within the tolerance of the truth, by whatever number of evaluations, is timed."""

    def prepare(workload: Workload, trusted: Make) -> Judge:
        reference = truth(workload.double())()

        def judge(make: Make) -> Agreement:
            error = relative_difference(make(workload)(), reference)
            return Agreement(error, error)

        return judge

    return Check(prepare, tolerance, selects=True)


def standard_errors(one: Tensor, other: Tensor) -> float:
    """How far the means of two sets of draws (draws, ...) lie apart, in joint standard errors."""
    one, other = one.double(), other.double()
    distance = (one.mean(0) - other.mean(0)).square().sum()
    noise = one.var(0).sum() / len(one) + other.var(0).sum() / len(other)
    return (distance / noise).sqrt().item()


def _draw(call: Call, draws: int, first_seed: int) -> Tensor:
    found: list[Tensor] = []
    for seed in range(first_seed, first_seed + draws):
        torch.manual_seed(seed)
        numpy.random.seed(seed)
        found.append(call())
    return torch.stack(found)


def _choose(row: Row, workload: Workload, result: Result) -> dict[str, Call]:
    """The fastest variant of every contender, each found to agree with the trusted one."""
    trusted = next(iter(row.limit.values()), row.captum)
    if trusted is None:
        raise ValueError(f"{row.key}: nothing to compare with, neither a limit nor Captum")
    judge = row.check.prepare(workload, trusted)
    chosen: dict[str, Call] = {}
    for contender in CONTENDERS:
        variants = row.variants(contender)
        if row.check.selects and len(variants) > 1:
            passed = (name for name in variants if judge(variants[name]).gap <= row.check.tolerance)
            variants = {name: variants[name] for name in passed}
        if not variants:
            continue
        result.searched[contender] = fastest(variants, workload)
        label = next(iter(result.searched[contender]))
        result.labels[contender] = label
        result.agreement[contender] = judge(variants[label])
        gap = result.agreement[contender].gap
        if not gap <= row.check.tolerance:
            result.failure = f"{contender} disagrees: {gap:.1e}, allowed {row.check.tolerance:.0e}"
        chosen[contender] = variants[label](workload)
    return chosen


def _interleave(calls: Mapping[str, Call], settings: Settings, result: Result) -> None:
    repeats: dict[str, int] = {}
    for name in calls:
        expected = result.searched[name][result.labels[name]]
        repeats[name] = _repeats(expected, settings.block)
        result.cpu[name], result.wall[name] = [], []
    start = time.perf_counter()
    result.load = os.getloadavg()[0]
    for number in range(settings.rounds):
        if number >= settings.least_rounds and time.perf_counter() - start > settings.budget:
            break
        gc.collect()
        for name in _rotated(list(calls), number):
            cpu, wall = _time(calls[name], repeats[name])
            result.cpu[name].append(cpu)
            result.wall[name].append(wall)
        result.load = max(result.load, os.getloadavg()[0])


def _repeats(once: float, block: float) -> int:
    return max(1, math.ceil(block / max(once, 1e-7)))


def _rotated(names: list[str], by: int) -> list[str]:
    """A different contender goes first in every round: none always inherits the same cache."""
    by %= len(names)
    return names[by:] + names[:by]


def _time(call: Call, repeats: int) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.process_time() - cpu) / repeats, (time.perf_counter() - wall) / repeats
