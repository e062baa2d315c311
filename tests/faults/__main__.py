"""``python -O -m faults [method ...]`` prints every outcome, in an optimising interpreter."""

from __future__ import annotations

import json
import sys

import torch

from .battery import judge
from .cases import CASES
from .methods import METHODS


def outcomes(names: frozenset[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What every case comes to with some methods, or with all."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for case in CASES:
        for method in METHODS:
            if case.applies(method) and (not names or method.name in names):
                for grad in case.modes:
                    verdict = judge(case, method, grad)
                    cell = f"{case.group} {case.name} {method.name} {grad}"
                    found[cell] = (verdict.outcome, verdict.complaints)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(outcomes(frozenset(sys.argv[1:]))))
