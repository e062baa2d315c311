"""What is said about operations whose derivative stands for nothing known."""

from __future__ import annotations

import sys
from types import FrameType
from typing import NoReturn

from attrib._transforms import compiling
from attrib.errors import AttribTypeError, AttribValueError

__all__ = ["refuse", "refuse_compiled", "refuse_training", "refuse_unseen", "where"]


def refuse(name: str, inputs: int = 1) -> NoReturn:
    """There is no rule for an operation."""
    several = f" for {inputs} tensors that depend on x" if inputs > 1 else ""
    raise AttribValueError(
        f"{name}: has no rule{several}, got a call{where()}; pass rules={{{name!r}: rule}}, or "
        'unknown="gradient" to accept the gradient of whatever is not known, which nobody promises '
        "to mean anything",
        code="rules.unknown",
    )


def refuse_training(name: str) -> NoReturn:
    """An operation draws random numbers."""
    raise AttribValueError(
        f"{name}: draws other numbers at every evaluation in training mode{where()}, got "
        "training=True; call model.eval()",
        code="rules.training",
    )


def refuse_unseen(origin: str) -> NoReturn:
    """A tensor depends on the variables by way of something that no mode sees."""
    if "CompiledFunction" in origin:
        refuse_compiled()
    raise AttribValueError(
        f"f: uses a tensor{where()} that came out of an operation that cannot be followed, got "
        f"{origin} as its origin; write that part in torch operations, not as an "
        "autograd.Function or a scripted module",
        code="rules.unseen",
    )


def refuse_compiled() -> NoReturn:
    """A compiled model inside of a score that is not compiled itself."""
    raise AttribTypeError(
        "f: calls a model compiled by torch.compile, got operations that cannot be followed; "
        "attribute to the model it was made of (compiled._orig_mod) and compile the attribution",
        code="rules.compiled",
    )


def where() -> str:
    """Where the user's code called what is being computed."""
    if compiling():
        return ""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] not in ("torch", "attrib", "einops"):
            return f" (called in {frame.f_code.co_filename}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""
