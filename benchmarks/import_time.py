"""How long `import attrib` takes, as a multiple of `import torch`.

    python -m benchmarks.import_time

CPU seconds of fresh interpreters, each of which imports torch first and attrib then. Bytecode is
kept in a folder of its own, as if the packages had been installed and imported once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

CODE = """
import json, time
start = time.process_time()
import torch
middle = time.process_time()
import attrib
print(json.dumps([middle - start, time.process_time() - middle]))
"""


def imported(cache: str) -> tuple[float, float]:
    """Seconds of torch and of attrib in a fresh interpreter that keeps its bytecode in a folder."""
    kept = {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **kept},
    )
    torch, attrib = json.loads(done.stdout)
    return torch, attrib


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as cache:
        imported(cache)  # writes the bytecode
        runs = [imported(cache) for _ in range(rounds)]
    ratios = [(torch + attrib) / torch for torch, attrib in runs]
    torch, attrib = (statistics.median(each) for each in zip(*runs, strict=True))
    print("| torch, s | attrib, s | both / torch | goal |\n| ---: | ---: | ---: | ---: |")
    ends = f"[{min(ratios):.3f}-{max(ratios):.3f}]"
    print(f"| {torch:.2f} | {attrib:.3f} | {statistics.median(ratios):.3f} {ends} | 1.15 |")


if __name__ == "__main__":
    main()
