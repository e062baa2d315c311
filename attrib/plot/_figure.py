"""The figures of attrib.plot: those of matplotlib, which a notebook shows without pyplot."""

# The stubs of matplotlib leave some types open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["Picture"]


class Picture(Figure):
    """A figure that is displayed as the last expression of a cell.

    Notebooks know how to show figures from pyplot only, which keeps every figure it makes.
    """

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png")
        return written.getvalue()
