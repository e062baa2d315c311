"""Colours of attributions are those that were chosen, and everyone can tell them apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from attrib import AttribError
from attrib.plot import colors

Array = NDArray[np.float64]

# Machado, Oliveira and Fernandes (2009), table for severity 1, https://doi.org/10.1109/TVCG.2009.113
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lab(colour: Array, vision: Array) -> Array:
    """CIELAB under D65 of an sRGB colour as it is seen (CIE 15; IEC 61966-2-1)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    seen = np.clip(vision @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = to_xyz @ seen / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("size", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("vision", VISION)
def test_raising_and_lowering_are_told_apart_by_everyone(vision: str, size: float) -> None:
    raising, lowering = (lab(colors.paint(v), VISION[vision]) for v in (size, -size))
    assert np.linalg.norm(raising - lowering) >= 40


def test_the_palette_of_captum_is_why_there_is_another() -> None:
    raising, lowering = (colors.paint(v, palette="captum") for v in (0.25, -0.25))
    vision = VISION["deuteranopia"]
    assert np.linalg.norm(lab(raising, vision) - lab(lowering, vision)) < 5


def test_the_default_palette_has_the_published_stops() -> None:
    stops = colors.paint([-1.0, -0.5, 0.0, 0.5, 1.0])
    expected = ["#14549c", "#62a0d8", "#f7f7f7", "#f0a24d", "#a34a00"]
    assert [colors.hexadecimal(stop) for stop in stops] == expected


def test_lightness_falls_towards_both_ends() -> None:
    lightness = [lab(colour, np.eye(3))[0] for colour in colors.paint(np.linspace(-1, 1, 201))]
    assert (np.diff(lightness[:101]) > 0).all() and (np.diff(lightness[100:]) < 0).all()


@pytest.mark.parametrize("palette", colors.PALETTES)
@pytest.mark.parametrize("sign", ["all", "absolute"])
def test_ink_is_read_on_every_colour(palette: str, sign: colors.Sign) -> None:
    for colour in colors.paint(np.linspace(-1, 1, 501), sign=sign, palette=palette):
        ink = colors.unpaint(colors.ink(colour))
        assert colors.contrast(colour, ink) >= 4.5


def test_contrast_of_black_and_white_is_21() -> None:
    assert colors.contrast(np.zeros(3), np.ones(3)) == pytest.approx(21)


@pytest.mark.parametrize(("palette", "name"), [("rdbu", "RdBu_r"), ("coolwarm", "coolwarm")])
def test_palettes_with_a_name_in_matplotlib_look_like_it(palette: str, name: str) -> None:
    pytest.importorskip("matplotlib")
    values = np.linspace(-1, 1, 101)
    ours, theirs = colors.paint(values, palette=palette), colors.paint(values, palette=name)
    assert np.abs(ours - theirs).max() < 0.02  # it has 256 colours


def test_a_colour_map_is_a_palette() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(-1, 1, 11)
    expected = matplotlib.colormaps["PiYG"]((values + 1) / 2)[:, :3]
    for palette in (
        "PiYG",
        matplotlib.colormaps["PiYG"],
        lambda t: matplotlib.colormaps["PiYG"](t),
    ):
        assert np.array_equal(colors.paint(values, palette=palette), expected)
    sizes = matplotlib.colormaps["viridis"](np.abs(values))[:, :3]
    assert np.array_equal(colors.paint(values, sign="absolute", palette="viridis"), sizes)


@pytest.mark.parametrize(("palette", "code"), [("nice", "unknown"), (3, "type"), (None, "type")])
def test_other_palettes_are_refused(palette: object, code: str) -> None:
    with pytest.raises(AttribError, match="palette") as caught:
        colors.paint(0.0, palette=palette)  # type: ignore[arg-type]
    assert caught.value.code == f"palette.{code}"


def test_the_scale_is_odd() -> None:
    # The same size has the colour at the same distance from zero, whatever its sign.
    values = np.linspace(-3, 3, 31)
    halves = colors.paint(values, 3.0), colors.paint(values / 3, 1.0)
    assert np.allclose(*halves)


def test_what_is_beyond_the_scale_has_the_colour_of_its_end() -> None:
    assert np.array_equal(colors.paint([-9.0, 9.0]), colors.paint([-1.0, 1.0]))


def test_what_is_not_finite_is_grey() -> None:
    missing = colors.paint([np.nan, np.inf, -np.inf])
    assert [colors.hexadecimal(colour) for colour in missing] == [colors.MISSING] * 3


def test_a_size_is_never_read_as_a_sign() -> None:
    size = lab(colors.paint(1.0, sign="absolute"), np.eye(3))
    for value in (-1.0, 1.0):
        assert np.linalg.norm(size - lab(colors.paint(value), np.eye(3))) > 40


@pytest.mark.parametrize("clip", [50.0, 90.0, 99.0, 100.0])
def test_so_many_per_cent_of_the_sizes_do_not_exceed_the_limit(clip: float) -> None:
    values = np.random.default_rng(0).standard_normal(1001)
    limit = colors.limit(values, clip)
    assert limit in np.abs(values)
    assert clip / 100 <= (np.abs(values) <= limit).mean() <= clip / 100 + 2 / 1001


def test_among_few_numbers_none_is_clipped() -> None:
    assert colors.limit(np.array([0.1, -0.2, 50.0])) == 50.0


def test_a_few_numbers_among_zeros_are_not_all_clipped() -> None:
    values = np.zeros(10_000)
    values[:5] = [1, 2, 3, 4, 5]
    assert colors.limit(values) == 5.0


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [np.nan], [np.nan, 0.0], [1e-320]])
def test_the_limit_of_nothing_is_one(values: list[float]) -> None:
    assert colors.limit(np.array(values)) == 1.0


def test_numbers_that_are_not_finite_do_not_set_the_scale() -> None:
    assert colors.limit(np.array([np.inf, 0.5, np.nan])) == 0.5


@pytest.mark.parametrize(
    ("sign", "expected"),
    [
        ("all", [-2, 0, 3]),
        ("positive", [0, 0, 3]),
        ("negative", [-2, 0, 0]),
        ("absolute", [2, 0, 3]),
    ],
)
def test_signs(sign: colors.Sign, expected: list[float]) -> None:
    assert colors.keep_sign(np.array([-2.0, 0.0, 3.0]), sign).tolist() == expected


def test_hexadecimal_and_back() -> None:
    assert colors.hexadecimal(colors.unpaint("#0af93c")) == "#0af93c"
