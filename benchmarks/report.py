"""The findings as Markdown, one table per question, and as plain data for JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.bench_accuracy import Errors
from benchmarks.bench_memory import FEW, FLAT, MANY
from benchmarks.harness import CONTENDERS, Goal, Result, Spread, spread, wall_can_be_published

MEGABYTE = 2**20


@dataclass(frozen=True)
class Flatness:
    """Peak memory of one model's integrated gradients, in bytes, at few and at many steps."""

    model: str
    batch: int
    few: dict[str, int | None]
    many: dict[str, int | None]
    labels: dict[str, str]


def machine() -> dict[str, str]:
    """What the ratios were measured on."""
    return {
        "processor": _processor(),
        "cores": str(_cores()),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "captum": _version("captum"),
        "attrib": _version("attrib"),
    }


def markdown(
    facts: dict[str, str],
    results: Sequence[Result],
    flatness: Sequence[Flatness],
    errors: Sequence[Errors],
    overheads: dict[str, float],
) -> str:
    """The whole report."""
    parts = [
        "# attrib beside Captum and beside hand-written PyTorch",
        ", ".join(f"{name} {value}" for name, value in facts.items()) + ".",
    ]
    if results:
        parts += ["## Time, memory and error", _LEGEND, _time_table(results)]
        parts += ["## Goals", _goal_table(results)]
        parts += ["## What was tried", _search_table(results)]
    if flatness:
        parts += ["## Peak memory against steps", _MEMORY_LEGEND, _flatness_table(flatness)]
    if errors:
        parts += ["## Error against steps", _ERROR_LEGEND]
        parts += [_error_table(found) for found in errors]
    if overheads:
        parts += ["## Overhead of a rule", _overhead_table(overheads)]
    return "\n\n".join(parts) + "\n"


def plain(
    facts: dict[str, str],
    results: Sequence[Result],
    flatness: Sequence[Flatness],
    errors: Sequence[Errors],
    overheads: dict[str, float],
) -> dict[str, object]:
    """Everything that was measured, for JSON."""
    return {
        "machine": facts,
        "rows": [
            {
                "method": result.row.method,
                "model": result.row.model,
                "goal": asdict(result.row.goal),
                "labels": result.labels,
                "agreement": {name: asdict(one) for name, one in result.agreement.items()},
                "searched": result.searched,
                "cpu": result.cpu,
                "wall": result.wall,
                "memory": result.memory,
                "load": result.load,
                "failure": result.failure,
            }
            for result in results
        ],
        "flatness": [asdict(found) for found in flatness],
        "errors": [asdict(found) for found in errors],
        "overheads": overheads,
    }


def verdicts(result: Result) -> list[tuple[str, float, Spread, bool]]:
    """Each goal of a row: against whom, the goal, the figure, whether the median reaches it.

    Where Captum has nothing to tune, its default is the tuned one.
    """
    goal: Goal = result.row.goal
    tuned = "tuned" if result.cpu.get("tuned") else "captum"
    found: list[tuple[str, float, Spread, bool]] = []
    for against, contender, asked in (
        ("captum", "captum", goal.captum),
        ("tuned", tuned, goal.tuned),
    ):
        faster = result.ratio(contender, "attrib")
        if asked is not None and faster is not None:
            found.append((against, asked, faster, faster.median >= asked))
    slower = result.ratio("attrib", "limit")
    if goal.limit is not None and slower is not None:
        found.append(("limit", goal.limit, slower, slower.median <= goal.limit))
    return found


_LEGEND = """\
Ratios are of CPU time, the median over interleaved rounds, with the smallest and the largest in
brackets. *Captum / attrib* and *tuned / attrib* say how many times faster attrib is; *attrib /
limit* says how much is left to gain. Wall time is withheld where more processes wanted to run than
there are cores. Peak memory is the growth of the resident set in a fresh process, in MB, for
attrib, Captum, tuned Captum and the limit. The error is that of one float32 call: of a
deterministic method its distance from the same sum in float64, of a random one its relative
standard deviation, of conductance and of rows "to error" their distance from the integral."""

_MEMORY_LEGEND = f"""\
Growth of the resident set in a fresh process, in MB, over one call of integrated gradients with
{FEW} and with {MANY} steps. The goals: attrib at most {FLAT} times as much at {MANY} steps as at
{FEW}, no more than tuned Captum, at most {FLAT} times the limit."""

_ERROR_LEGEND = """\
Relative error of attrib's quadratures, and of conductance, in float64, against a finer
hand-written rule. An error within five times the reference's own is only bounded; "stuck" marks one
that does not fall. Beside the errors of conductance stands the CPU time of a call in float32."""


def _time_table(results: Iterable[Result]) -> str:
    lines = [
        _line(
            "method",
            "model",
            "attrib CPU, ms",
            "wall, ms",
            "Captum / attrib",
            "tuned / attrib",
            "attrib / limit",
            "peak MB",
            "error attrib (Captum)",
        ),
        _line("---", "---", *("---:",) * 7),
    ]
    for result in results:
        row = result.row
        if result.failure is not None:
            lines.append(_line(row.method, row.model, f"**{result.failure}**", *("",) * 6))
            continue
        published = wall_can_be_published(result.load, _cores())
        wall = _milliseconds(result.wall["attrib"]) if published else f"load {result.load:.1f}"
        error = " ".join(
            text.format(f"{result.agreement[name].error:.0e}")
            for name, text in (("attrib", "{}"), ("captum", "({})"))
            if name in result.agreement
        )
        lines.append(
            _line(
                row.method,
                row.model,
                _milliseconds(result.cpu["attrib"]),
                wall,
                _ratio(result.ratio("captum", "attrib")),
                _ratio(result.ratio("tuned", "attrib")),
                _ratio(result.ratio("attrib", "limit")),
                " / ".join(_megabytes(result.memory.get(name)) for name in CONTENDERS),
                error,
            )
        )
    return "\n".join(lines)


def _goal_table(results: Iterable[Result]) -> str:
    lines = [
        _line("method", "model", "against", "goal", "found", ""),
        _line("---", "---", "---", "---:", "---:", "---"),
    ]
    for result in results:
        for against, asked, found, reached in verdicts(result):
            goal = f"<= {asked:g}" if against == "limit" else f">= {asked:g}x"
            verdict = "reached" if reached else "**not reached**"
            if not reached and found.low <= asked <= found.high:
                verdict += ", within the range"
            row = result.row
            lines.append(_line(row.method, row.model, against, goal, _ratio(found), verdict))
    return "\n".join(lines)


def _search_table(results: Iterable[Result]) -> str:
    lines = [
        _line("method", "model", "contender", "fastest", "CPU, ms", "others, ms"),
        _line("---", "---", "---", "---", "---:", "---"),
    ]
    for result in results:
        for contender in ("tuned", "limit"):
            times = result.searched.get(contender, {})
            if len(times) < 2:
                continue
            (label, best), *others = times.items()
            rest = "; ".join(f"{name}: {1e3 * time:.3g}" for name, time in others)
            row = result.row
            lines.append(_line(row.method, row.model, contender, label, f"{1e3 * best:.3g}", rest))
    return "\n".join(lines)


def _flatness_table(found: Iterable[Flatness]) -> str:
    lines = [
        _line("model", "batch", "contender", f"{FEW} steps", f"{MANY} steps", "ratio", "goals"),
        _line("---", "---:", "---", "---:", "---:", "---:", "---"),
    ]
    for case in found:
        for contender, few in case.few.items():
            many = case.many[contender]
            ratio = None if few is None or many is None or few == 0 else many / few
            label = case.labels[contender]
            lines.append(
                _line(
                    case.model,
                    str(case.batch),
                    f"{contender} ({label})" if label else contender,
                    _megabytes(few),
                    _megabytes(many),
                    "-" if ratio is None else f"{ratio:.2f}",
                    _memory_verdict(case, ratio) if contender == "attrib" else "",
                )
            )
    return "\n".join(lines)


def _memory_verdict(case: Flatness, ratio: float | None) -> str:
    attrib = case.many["attrib"]
    if attrib is None or ratio is None:
        return "not measured"
    goals = [(f"flat {ratio:.2f}", ratio <= FLAT)]
    for contender, allowed in (("tuned", 1.0), ("limit", FLAT)):
        other = case.many.get(contender)
        if other:
            goals.append((f"{attrib / other:.2f} of {contender}", attrib <= allowed * other))
    return ", ".join(f"{text}: {'' if met else '**not** '}reached" for text, met in goals)


def _error_table(found: Errors) -> str:
    lines = [
        _line(
            f"{found.model} (floor {found.floor:.0e})", *(f"n = {count}" for count in found.steps)
        ),
        _line("---", *("---:",) * len(found.steps)),
    ]
    for quadrature in found.found:
        mark = " (stuck)" if found.stuck(quadrature) else ""
        lines.append(_line(quadrature + mark, *found.told(quadrature)))
    return "\n".join(lines)


def _overhead_table(overheads: dict[str, float]) -> str:
    lines = [_line("per operation with a rule", "CPU, us more"), _line("---", "---:")]
    return "\n".join(
        [*lines, *(_line(name, f"{1e6 * seconds:.0f}") for name, seconds in overheads.items())]
    )


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratio(found: Spread | None) -> str:
    return "-" if found is None else f"{found.median:.2f} [{found.low:.2f}-{found.high:.2f}]"


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1e3 * spread(seconds).median:.3g}"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / MEGABYTE:.1f}"


def _cores() -> int:
    return os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from source"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
