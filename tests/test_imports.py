"""`import attrib` is light: nothing heavy comes with it, and it does little."""

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


def test_import_does_little_beside_importing_torch() -> None:
    # Calls are counted, which no other process disturbs; `benchmarks.import_time` measures seconds.
    code = """
import sys
calls = [0]
def count(frame, event, argument):
    calls[0] += event in ("call", "c_call")
sys.setprofile(count)
import torch, numpy, einops
before = calls[0]
import attrib
sys.setprofile(None)
print(f"[{before}, {calls[0] - before}]")
"""
    others, own = json.loads(_python(code))
    assert 0 < own <= 0.15 * others
