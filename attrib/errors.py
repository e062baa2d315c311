"""What attrib raises and warns: one base class, a stable code for every cause."""

from __future__ import annotations

import torch

__all__ = [
    "ONE_BY_ONE",
    "AttribError",
    "AttribTypeError",
    "AttribValueError",
    "Cancelled",
    "NonFiniteWarning",
    "PlotWarning",
    "add_note",
]

ONE_BY_ONE = "chunk_size=1 evaluates the points one at a time"


class AttribError(Exception):
    """A call that attrib refuses.

    Every instance is also a `ValueError` (a wrong value or shape) or a `TypeError` (a wrong type or
    dtype), and carries a stable ``code`` such as ``"target.range"`` to key on.

    Args:
        message: ``<argument>: <what is wrong>, got <what came>; <what is expected>``.
        code: ``<subject>.<cause>``, listed in the documentation.
    """

    def __init__(self, message: str, *, code: str) -> None:
        # What super().__init__ would do, in a way that a compiler can follow.
        self.args = (message,)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class without the keyword-only code.
        return _rebuild, (type(self), str(self), self.code)


class AttribValueError(AttribError, ValueError):
    """A value or a shape that attrib refuses."""


class AttribTypeError(AttribError, TypeError):
    """A type or a dtype that attrib refuses."""


class Cancelled(Exception):
    """Raised by a progress monitor to stop the running computation."""


class NonFiniteWarning(UserWarning):
    """A score is NaN or infinite, so that the attributions of its example mean nothing."""


class PlotWarning(UserWarning):
    """A picture shows less than it seems to: nothing, NaN, or numbers that had to be rescaled."""


def add_note(error: BaseException, note: str) -> None:
    """Say what was being evaluated, on the user's own exception (Python 3.11 and later)."""
    if torch.compiler.is_compiling():
        return  # a compiler cannot follow it
    note_on = getattr(error, "add_note", None)
    if note_on is not None:
        note_on(note)


def _rebuild(kind: type[AttribError], message: str, code: str) -> AttribError:
    return kind(message, code=code)
