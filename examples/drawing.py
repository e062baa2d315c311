"""What the pictures of the examples share beside attrib.plot: figures, saving, blurring."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor
from torch.nn.functional import conv2d, pad

from attrib.plot import colors

# As attrib.plot has them: blue lowers the score, orange raises it, a size without a sign is purple.
SIGNED = LinearSegmentedColormap.from_list("signed", colors.PALETTES["attrib"])
MAGNITUDE = LinearSegmentedColormap.from_list("magnitude", colors.MAGNITUDES["attrib"])


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches; no window and no global state, unlike pyplot."""
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.03)  # inches
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, dpi: int = 90) -> Path:
    """Write a figure as a PNG and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # No alpha channel, and the best compression: pictures that hold photos get large.
    figure.savefig(path, dpi=dpi, pil_kwargs={"optimize": True})
    return path


def colour_scale(axes: Axes, limit: float, box: tuple[float, float, float, float]) -> None:
    """Draw a scale of signed colours in a box of `axes`: left, bottom, width, height."""
    strip = axes.inset_axes(box)
    ramp = torch.linspace(0, 1, 256)[None].numpy()
    strip.imshow(ramp, cmap=SIGNED, aspect="auto", extent=(-limit, limit, 0, 1))
    ticks = [-limit, 0, limit]
    strip.set_yticks([])
    strip.set_xticks(ticks, [signed_number(tick) for tick in ticks], fontsize=7)
    strip.tick_params(length=2, pad=1)


def signed_number(value: float, form: str = "+.2g") -> str:
    """Return a number with its sign, the minus sign being a real one."""
    return format(float(value), form).replace("-", "\N{MINUS SIGN}") if value else "0"


def below(axes: Axes, text: str) -> None:
    """Write under a picture."""
    axes.text(0.5, -0.04, text, transform=axes.transAxes, ha="center", va="top", fontsize=8)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Blur images (batch, channel, height, width) by a Gaussian of `sigma` pixels.

    Its weights sum to one: a blurred map of attributions still adds up to the same, but for what
    the mirrored edges change.
    """
    radius = round(3 * sigma)
    offsets = torch.arange(-radius, radius + 1.0)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    channels = image.shape[1]
    column = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    image = pad(image, (radius,) * 4, mode="reflect")
    image = conv2d(image, column, groups=channels)
    return conv2d(image, column.transpose(2, 3), groups=channels)
