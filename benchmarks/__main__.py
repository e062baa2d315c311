"""python -m benchmarks: times attrib, Captum and hand-written PyTorch in turns, prints a report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch

from benchmarks import (
    bench_accuracy,
    bench_layers,
    bench_memory,
    bench_rules,
    memory,
    report,
    rows,
    with_captum,
)
from benchmarks.harness import CONTENDERS, Result, Row, Settings, fastest, measure
from benchmarks.models import WORKLOADS, build

QUICK = Settings(rounds=5, least_rounds=3, budget=0.8, block=0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rows asked for. Returns 1 if any contender failed or disagreed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = set((options.models or "").split(",")) - {"", *WORKLOADS}
    if unknown:
        parser.error(f"--models: unknown {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    torch.set_num_threads(options.threads)
    with_captum.silence()
    settings = QUICK if options.quick else Settings()
    if options.rounds is not None:
        settings = Settings(rounds=options.rounds, least_rounds=options.rounds)

    facts = report.machine()
    timed = [row for row in rows.TIMED if _wanted(row, options)]
    results = list(_measured(timed, settings, with_memory=not options.quick))
    pairs = [pair for pair in bench_memory.PAIRS if _wanted(pair[0], options)]
    flatness = [_flatness(few, many) for few, many in pairs]
    errors = [
        table()
        for name, tables in (
            ("error against steps", bench_accuracy.TABLES),
            ("error of conductance", bench_layers.TABLES),
        )
        for model, table in tables.items()
        if _named(name, options.rows)
        and (options.models is None or model in options.models.split(","))
    ]

    overheads = bench_rules.overheads() if _named("overhead of a rule", options.rows) else {}

    text = report.markdown(facts, results, flatness, errors, overheads)
    print(text)
    if options.output is not None:
        options.output.write_text(text)
    if options.json is not None:
        found = report.plain(facts, results, flatness, errors, overheads)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(result.failure is not None for result in results))


def _named(name: str, words: str | None) -> bool:
    """Whether a name holds one of the words, or no words were given."""
    return words is None or any(word in name for word in words.split(","))


def _wanted(row: Row, options: argparse.Namespace) -> bool:
    if options.quick and not row.quick:
        return False
    if options.models is not None and row.model not in options.models.split(","):
        return False
    return _named(row.method, options.rows)


def _measured(wanted: Sequence[Row], settings: Settings, with_memory: bool) -> Iterator[Result]:
    for model, group in groupby(wanted, key=lambda row: row.model):
        workload = build(model)
        for row in group:
            start = time.perf_counter()
            try:
                result = measure(row, workload, settings)
            except Exception as error:  # One broken row must not hide the others.
                result = Result(row, failure=f"{type(error).__name__}: {error}".split("\n")[0])
            if with_memory and result.failure is None:
                result.memory = {
                    contender: memory.peak_growth(row.key, contender, label)
                    for contender, label in result.labels.items()
                }
            _tell(result, time.perf_counter() - start)
            yield result


def _flatness(few: Row, many: Row) -> report.Flatness:
    workload = few.on(build(few.model))
    labels: dict[str, str] = {}
    found: tuple[dict[str, int | None], dict[str, int | None]] = ({}, {})
    for contender in CONTENDERS:
        variants = few.variants(contender)
        labels[contender] = next(iter(fastest(variants, workload)))
        for row, sizes in zip((few, many), found, strict=True):
            sizes[contender] = memory.peak_growth(row.key, contender, labels[contender])
    return report.Flatness(few.model, len(workload.x), *found, labels)


def _tell(result: Result, seconds: float) -> None:
    """One line of progress, on standard error."""
    said = result.failure or ", ".join(
        f"{against} {figure.median:.2f} (goal {asked:g}{'' if reached else ', NOT REACHED'})"
        for against, asked, figure, reached in report.verdicts(result)
    )
    print(f"[{seconds:5.1f} s] {result.row.key}: {said}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", help="only methods that contain one of these words, with commas")
    parser.add_argument("--models", help="only these models, with commas")
    parser.add_argument("--rounds", type=int, help="exactly so many interleaved rounds")
    parser.add_argument(
        "--quick", action="store_true", help="a few rows on small models, in about a minute"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--output", type=Path, help="write the report to this Markdown file, too")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
