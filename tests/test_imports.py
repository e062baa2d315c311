"""`import attrib` is light: nothing heavy comes with it, and it is over soon."""

from __future__ import annotations

import json
import subprocess
import sys


def _python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def _modules_loaded_by(code: str) -> set[str]:
    return set(json.loads(_python(f"{code}; import json, sys; print(json.dumps([*sys.modules]))")))


def test_import_brings_nothing_beyond_torch_numpy_and_einops() -> None:
    base = _modules_loaded_by("import torch, numpy, einops")
    added = _modules_loaded_by("import torch, numpy, einops, attrib") - base
    assert "attrib" in added
    packages = {name.partition(".")[0] for name in added}
    assert packages - set(sys.stdlib_module_names) == {"attrib"}


def test_import_does_not_wake_the_compiler() -> None:
    added = _modules_loaded_by("import torch, attrib") - _modules_loaded_by("import torch")
    heavy = ("torch._dynamo", "torch._inductor", "torch.distributed", "torch.onnx")
    assert not [name for name in added if name.startswith(heavy)]


def test_import_takes_at_most_1_15_times_import_torch() -> None:
    # CPU time of one process, so that other processes do not count; both parts are measured in the
    # same interpreter, and the least of several is what the import needs when nothing disturbs it.
    code = """
import json, time
start = time.process_time()
import torch
middle = time.process_time()
import attrib
print(json.dumps([middle - start, time.process_time() - middle]))
"""
    torch_seconds, attrib_seconds = json.loads(_python(code))
    for _ in range(10):
        if torch_seconds + attrib_seconds <= 1.15 * torch_seconds:
            break
        run = json.loads(_python(code))
        torch_seconds, attrib_seconds = min(torch_seconds, run[0]), min(attrib_seconds, run[1])
    assert torch_seconds + attrib_seconds <= 1.15 * torch_seconds
