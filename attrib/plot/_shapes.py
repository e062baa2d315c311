"""What pictures are drawn from: tables of colours, hatching, borders, lines with gaps."""

# The stubs of NumPy and matplotlib leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrib.plot._heat import Heat, colours
from attrib.plot.colors import Array

__all__ = ["alone", "edges", "hatch", "line", "paint_table"]


def hatch(axes: Any, broken: NDArray[np.bool_]) -> None:
    """Hatch the pixels, or cells, of a picture drawn by `imshow` that are not finite."""
    if not broken.any():
        return
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    steps = np.diff(np.pad(broken.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    # In the order of rows, each run of pixels begins before it ends.
    (row, left), (_, right) = (np.argwhere(steps == side).T - 0.5 for side in (1, -1))
    across = np.stack([left, right, right, left, left], -1)
    down = row[:, None] + np.array([0.0, 0.0, 1.0, 1.0, 0.0])
    corners = np.stack([across, down], -1).reshape(-1, 2)
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(row)
    axes.add_patch(
        PathPatch(Path(corners, codes), fill=False, hatch="/////", edgecolor="#333333", linewidth=0)
    )


def paint_table(axes: Any, heat: Heat) -> None:
    """Every number as a cell of its colour, hatched where not finite."""
    if heat.values.size:
        axes.imshow(colours(heat), aspect="auto", interpolation="nearest")
        hatch(axes, ~np.isfinite(heat.values))


def edges(regions: NDArray[Any]) -> Array:
    """The borders between pixels of different regions, ``(borders, 2 ends, 2 coordinates)``."""
    below = np.argwhere(regions[1:] != regions[:-1])[:, ::-1].astype(np.float64)
    beside = np.argwhere(regions[:, 1:] != regions[:, :-1])[:, ::-1].astype(np.float64)
    flat = below[:, None] + np.array([[-0.5, 0.5], [0.5, 0.5]])
    upright = beside[:, None] + np.array([[0.5, -0.5], [0.5, 0.5]])
    return np.concatenate([flat, upright])


def line(axes: Any, x: Array, y: Array, **options: Any) -> Any:
    """A line with gaps where numbers are not finite, and a dot where a point is left alone."""
    single = alone(y)
    if single.any():
        options |= {"marker": "o", "markersize": 3.5, "markevery": single}
    return axes.plot(x, y, **options)[0]


def alone(values: Array) -> NDArray[np.bool_]:
    """The points that no line leads to, between others that are not finite."""
    known = np.pad(np.isfinite(values), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]
