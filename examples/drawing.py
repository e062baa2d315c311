"""What the pictures of the examples share: colours, overlays, scales, saving."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor
from torch.nn.functional import conv2d, pad

# Blue lowers the score, orange raises it: colours that stay apart in every common colour blindness.
# A magnitude has no sign, so it gets another hue and is not read as "raises".
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#14549c", "#62a0d8", "#f7f7f7", "#f0a24d", "#a34a00"]
)
RAISES, LOWERS = "#f0a24d", "#62a0d8"
MAGNITUDE = LinearSegmentedColormap.from_list("magnitude", ["#f7f7f7", "#a58fd0", "#4b1d91"])


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


def overlay(axes: Axes, photo: Tensor, heat: Tensor, *, signed: bool = True) -> None:
    """Draw a heat map (height, width) over a pale photo (3, height, width), values in [0, 1].

    Full colour stands for the 99.5th percentile of the absolute heat: the number at the end of the
    scale under the picture. Heat without a sign, such as a size, gets colours of its own.
    """
    limit = float(heat.abs().quantile(0.995)) or 1.0
    strength = (heat / limit).clamp(-1, 1)
    colours = SIGNED if signed else MAGNITUDE
    colour = torch.tensor(colours(((strength + 1) / 2 if signed else strength).numpy()))[..., :3]
    # Opacity grows with strength: where nothing is attributed, the photo shows through.
    opacity = strength.abs()[..., None] ** 0.75
    grey = 0.6 + 0.4 * photo.mean(0)[..., None]
    axes.imshow((grey * (1 - opacity) + colour * opacity).numpy())
    axes.set_axis_off()
    colour_scale(axes, limit, (0.12, -0.075, 0.76, 0.04), signed=signed)


def colour_scale(
    axes: Axes, limit: float, box: tuple[float, float, float, float], *, signed: bool = True
) -> None:
    """Draw a scale of colours with numbers in a box of `axes`: left, bottom, width, height."""
    strip = axes.inset_axes(box)
    strip.imshow(
        torch.linspace(0, 1, 256)[None].numpy(),
        cmap=SIGNED if signed else MAGNITUDE,
        aspect="auto",
        extent=(-limit if signed else 0, limit, 0, 1),
    )
    ticks = [-limit, 0, limit] if signed else [0, limit]
    strip.set_yticks([])
    strip.set_xticks(ticks, [signed_number(t) if signed else f"{t:.2g}" for t in ticks], fontsize=7)
    strip.tick_params(length=2, pad=1)


def bars(axes: Axes, names: Sequence[str], values: Tensor, errors: Tensor) -> None:
    """Draw a bar for each name, from top to bottom, with two standard errors to each side."""
    places = range(len(names))
    colours = [RAISES if value > 0 else LOWERS for value in values.tolist()]
    axes.barh(places, values, xerr=2 * errors, color=colours, ecolor="black", capsize=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)


def signed_number(value: float, form: str = "+.2g") -> str:
    """Return a number with its sign, the minus sign being a real one."""
    return format(float(value), form).replace("-", "\N{MINUS SIGN}") if value else "0"


def below(axes: Axes, text: str, scale: bool = True) -> None:
    """Write under a picture, and under its scale of colours if it has one."""
    axes.text(
        0.5,
        -0.17 if scale else -0.04,
        text,
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=8,
    )


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
