"""One attribution of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrib._checks import check_choice, check_number
from attrib.errors import AttribValueError
from attrib.plot._canvas import Room, entitle, pictures
from attrib.plot._heat import Heat, heat
from attrib.plot._modes import MODES, PHOTO_ONLY, Mode, draw, explain
from attrib.plot._pixels import Denorm, Layout, check_over, photo, plane
from attrib.plot._strips import scale_room
from attrib.plot.colors import Array, Palette, Sign

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["image", "panel_size"]


def image(
    attr: Any,
    image: Any = None,
    *,
    mode: Mode | tuple[Mode, ...] = "overlay",
    sign: Sign | tuple[Sign, ...] = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    layout: Layout | None = None,
    denorm: Denorm = None,
    top: float = 5.0,
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Figure:
    """The attribution of one image, over that image.

    Channels are summed, then entries of the other sign are dropped. Orange raises the score, blue
    lowers it; sizes without a sign are purple. What is NaN or infinite is hatched.

    Args:
        attr: The attribution, ``(channel, height, width)``, ``(height, width, channel)`` or
            ``(height, width)``: a tensor on any device and of any dtype, or an array. ``None`` for
            the mode ``"original"``.
        image: The image, in numbers from 0 to 1, or integers up to 255; others are stretched.
        mode: A tuple draws a panel for each.

            - ``"overlay"``: colour over a pale photo, as opaque as the attribution is strong;
            - ``"blend"``: half the colour, half the photo; ``"heatmap"``: the colour alone;
            - ``"original"``: the photo alone;
            - ``"mask"``: the photo, dark where nothing is attributed; ``"alpha"``: white there;
            - ``"contour"``: lines at a quarter, a half and three quarters of the scale, dashed
              where the score is lowered;
            - ``"top"``: the pixels of largest attribution, outlined, in the colours of the photo.
        sign: ``"all"``, ``"positive"``, ``"negative"`` or ``"absolute"``; one for each mode, or
            one for all of them.
        clip: The percentile of sizes that gets full colour, so that single pixels do not make
            the rest pale.
        scale: The size that gets full colour instead, to compare pictures.
        palette: ``"attrib"``, ``"rdbu"``, ``"coolwarm"``, ``"captum"`` or a colour map.
        layout: ``"CHW"``, ``"HWC"`` or ``"HW"``. Left out, three dimensions are ``"CHW"``
            unless the last one is more likely to be channels (1 or 3, then 4).
        denorm: The mean and the standard deviation that the image was normalised by.
        top: How many per cent of the pixels ``mode="top"`` outlines.
        unit: What the numbers are, written at the scale.
        title: Above the picture.
        colorbar: Whether to draw the scale.
        ax: Axes to draw into, instead of a new figure.

    Returns:
        The figure. It is not shown and pyplot does not know it: ``figure.savefig("out.png")``.

    Raises:
        AttribError: If attribution and image are of different sizes, or an option is not what it
            should be.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> import torch
        >>> figure = image(torch.randn(3, 8, 8), torch.rand(3, 8, 8), mode=("original", "overlay"))
        >>> len(figure.axes)
        2
    """
    modes = (mode,) if isinstance(mode, str) else tuple(mode)
    signs = (sign,) * len(modes) if isinstance(sign, str) else tuple(sign)
    _check_modes(modes, signs, attr, image)
    check_number(top, "top", most=100.0, exclusive=True)
    pixels = None if image is None else photo(image, layout, denorm)
    values = None if attr is None else plane(attr, layout)
    if values is not None and pixels is not None:
        check_over(values, pixels)
    shown: dict[Sign, Heat] = {}
    if values is not None:
        for each in dict.fromkeys(signs):
            shown[each] = heat(
                values, sign=each, clip=clip, scale=scale, palette=palette, unit=unit
            )
    first: Any = values if values is not None else pixels
    several = len(modes) > 1
    size = panel_size(first)
    room = Room(head=0.26 * several, foot=scale_room(unit, size[0]) * bool(shown))
    figure, panels, _ = pictures(ax, 1, len(modes), size, room, title)
    for axes, each, of in zip(panels, modes, signs, strict=True):
        draw(axes, each, shown.get(of), pixels, top)
        if of in shown:
            explain(axes, each, shown[of], top, scale=colorbar)
        if several:
            words = each if len(set(signs)) == 1 or each == "original" else f"{each}, {of}"
            entitle(axes, words)
    return figure


def panel_size(pixels: Array, height: float = 3.2) -> tuple[float, float]:
    """Inches for a picture of these proportions."""
    return min(max(height * pixels.shape[1] / pixels.shape[0], 1.6), 7.0), height


def _check_modes(modes: tuple[Any, ...], signs: tuple[Any, ...], attr: Any, image: Any) -> None:
    for each in modes:
        check_choice(each, "mode", MODES)
    if not modes or len(signs) != len(modes):
        raise AttribValueError(
            f"sign: must be as many as there are modes, got {len(signs)} for {len(modes)}; pass "
            "one for each, or one for all",
            code="sign.length",
        )
    if attr is None and set(modes) != {"original"}:
        raise AttribValueError(
            f'attr: missing, got None; only mode="original" can do without, not {modes[0]!r}',
            code="attr.missing",
        )
    needing = [each for each in modes if each in PHOTO_ONLY]
    if image is None and needing:
        raise AttribValueError(
            f"image: missing, got None; mode={needing[0]!r} shows the image, pass it",
            code="image.missing",
        )
