"""Every pixel of a picture of an image has the colour that its attribution is to have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from attrib import Estimate, PlotWarning, plot
from attrib.plot import colors

matplotlib = pytest.importorskip("matplotlib")

# Full colour in one corner, minus half of it in another, zero elsewhere.
ATTR = torch.zeros(4, 6)
ATTR[0, 0], ATTR[3, 5] = 2.0, -1.0
PHOTO = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
RGB = PHOTO.permute(1, 2, 0).double().numpy()
GREY = np.repeat(0.6 + 0.4 * RGB.mean(-1, keepdims=True), 3, -1)


def pixels(figure: Any, panel: int = 0) -> Any:
    return np.asarray(figure.axes[panel].images[0].get_array())


def test_a_heat_map_holds_the_colours_of_the_palette() -> None:
    shown = pixels(plot.image(ATTR, mode="heatmap"))
    assert colors.hexadecimal(shown[0, 0]) == "#a34a00"
    assert colors.hexadecimal(shown[3, 5]) == "#62a0d8"
    assert {colors.hexadecimal(c) for c in shown.reshape(-1, 3)[1:-1]} == {"#f7f7f7"}


@pytest.mark.parametrize(
    ("sign", "first", "last"),
    [
        ("positive", "#a34a00", "#f7f7f7"),
        ("negative", "#f7f7f7", "#14549c"),
        ("absolute", "#4b1d91", "#a58fd0"),
    ],
)
def test_signs_choose_what_has_colour(sign: Any, first: str, last: str) -> None:
    shown = pixels(plot.image(ATTR, mode="heatmap", sign=sign))
    assert colors.hexadecimal(shown[0, 0]) == first
    assert colors.hexadecimal(shown[3, 5]) == last


def test_an_overlay_is_the_pale_photo_where_nothing_is_attributed() -> None:
    shown = pixels(plot.image(ATTR, PHOTO))
    assert_allclose(shown[1:3], GREY[1:3], atol=1e-6)
    assert colors.hexadecimal(shown[0, 0]) == "#a34a00"


def test_an_overlay_is_the_more_opaque_the_larger_the_attribution() -> None:
    row = torch.linspace(0, 1, 11)[None]
    shown = pixels(plot.image(row, torch.ones(1, 1, 11)))
    ends = colors.unpaint("#ffffff"), colors.unpaint("#a34a00")
    away = np.abs(shown[0] - ends[0]).sum(-1)
    assert (np.diff(away) > 0).all()
    assert_allclose(shown[0, -1], ends[1], atol=1e-6)


def test_a_blend_is_half_the_colour_and_half_the_photo() -> None:
    shown = pixels(plot.image(ATTR, PHOTO, mode="blend"))
    assert_allclose(shown, (GREY + pixels(plot.image(ATTR, mode="heatmap"))) / 2, atol=1e-6)


def test_the_original_is_the_photo() -> None:
    assert_allclose(pixels(plot.image(None, PHOTO, mode="original")), RGB, atol=1e-6)
    assert_allclose(pixels(plot.image(ATTR, PHOTO, mode="original")), RGB, atol=1e-6)


# Where ATTR has full colour when a sign is shown, and which.
FULL = {
    "all": ((0, 0), "#a34a00"),
    "positive": ((0, 0), "#a34a00"),
    "negative": ((3, 5), "#14549c"),
    "absolute": ((0, 0), "#4b1d91"),
}


@pytest.mark.parametrize("sign", FULL)
@pytest.mark.parametrize("mode", plot.MODES)
def test_every_mode_shows_full_and_no_attribution_of_every_sign(mode: Any, sign: Any) -> None:
    (row, column), name = FULL[sign]
    colour, neutral = colors.unpaint(name), colors.unpaint("#f7f7f7")
    photo, pale = RGB[row, column], GREY[row, column]
    full, none = {
        "overlay": (colour, GREY),
        "blend": ((pale + colour) / 2, (GREY + neutral) / 2),
        "heatmap": (colour, neutral),
        "original": (photo, RGB),
        "mask": (photo, 0.0),
        "alpha": (photo, 1.0),
        "contour": (pale, GREY),
        "top": (photo, GREY),
    }[mode]
    shown = pixels(plot.image(ATTR, PHOTO, mode=mode, sign=sign, top=5.0, colorbar=False))
    assert_allclose(shown[1:3], np.broadcast_to(none, RGB.shape)[1:3], atol=1e-6)
    if mode not in ("mask", "alpha") or sign != "all":  # these are tinted, see below
        assert_allclose(shown[row, column], full, atol=1e-6)


@pytest.mark.parametrize("sign", ["positive", "absolute"])
@pytest.mark.parametrize(("mode", "ground"), [("mask", 0.0), ("alpha", 1.0)])
def test_the_photo_shows_as_far_as_the_attribution_is_large(
    mode: Any, ground: float, sign: Any
) -> None:
    shown = pixels(plot.image(ATTR, PHOTO, mode=mode, sign=sign))
    assert_allclose(shown[0, 0], RGB[0, 0], atol=1e-6)
    assert_allclose(shown[1:3], ground, atol=1e-6)
    half = RGB[3, 5] if sign == "absolute" else ground
    assert_allclose(shown[3, 5], (half + ground) / 2, atol=1e-6)


@pytest.mark.parametrize("mode", ["mask", "alpha"])
def test_with_both_signs_the_photo_is_tinted_by_them(mode: Any) -> None:
    grey = torch.full((4, 6), 0.5)
    attr = ATTR.clone()
    attr[3, 5] = -2.0
    shown = pixels(plot.image(attr, grey, mode=mode))
    red, blue = shown[0, 0], shown[3, 5]
    assert red[0] > red[2] and blue[2] > blue[0]


def test_top_keeps_the_colours_of_the_largest_pixels() -> None:
    attr = torch.arange(24.0).reshape(4, 6)
    shown = pixels(plot.image(attr, PHOTO, mode="top", top=25.0))
    kept = attr.numpy() >= 18
    assert_allclose(shown[kept], RGB[kept], atol=1e-6)
    assert_allclose(shown[~kept], GREY[~kept], atol=1e-6)


def test_top_outlines_what_it_keeps() -> None:
    attr = torch.zeros(4, 6)
    attr[1, 2] = 1.0
    figure = plot.image(attr, PHOTO, mode="top", top=1.0)
    segments = [
        tuple(map(tuple, np.round(segment, 3).tolist()))
        for segment in figure.axes[0].collections[0].get_segments()
    ]
    corners = {corner for segment in segments for corner in segment}
    assert len(segments) == 4
    assert corners == {(1.5, 0.5), (2.5, 0.5), (1.5, 1.5), (2.5, 1.5)}


def test_contours_are_dashed_where_the_score_is_lowered() -> None:
    across = torch.linspace(-1, 1, 21).expand(9, 21)
    figure = plot.image(across, mode="contour")
    lines = [c for c in figure.axes[0].collections if c.get_paths()]
    by_dash: dict[bool, list[float]] = {True: [], False: []}
    for lineset in lines:
        dashed = lineset.get_linestyle()[0][1] is not None
        for path in lineset.get_paths():
            if len(path.vertices):
                by_dash[dashed] += path.vertices[:, 0].tolist()
    assert max(by_dash[True]) < 10 < min(by_dash[False])
    # At a quarter, a half and three quarters of the scale.
    assert sorted({round(x, 1) for x in by_dash[False]}) == [12.5, 15.0, 17.5]


def test_channels_are_summed() -> None:
    parts = torch.randn(3, 4, 6)
    whole = plot.image(parts.double().sum(0), mode="heatmap")
    assert_allclose(pixels(plot.image(parts, mode="heatmap")), pixels(whole))


def test_layouts_are_told_apart() -> None:
    attr = torch.randn(3, 4, 6)
    expected = pixels(plot.image(attr, PHOTO))
    for a in (attr, attr.permute(1, 2, 0), attr.sum(0)):
        for photo in (PHOTO, PHOTO.permute(1, 2, 0)):
            assert_allclose(pixels(plot.image(a, photo)), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 3), (1, 5, 3), (4, 5, 4)])
def test_channels_come_first_where_only_the_caller_knows_and_it_is_told(
    shape: tuple[int, ...],
) -> None:
    attr = torch.randn(shape)
    with pytest.warns(PlotWarning, match="channels; pass layout"):
        first = pixels(plot.image(attr, mode="heatmap"))
    assert_allclose(first, pixels(plot.image(attr, mode="heatmap", layout="CHW")))
    assert first.shape == (*shape[1:], 3)
    last = pixels(plot.image(attr, mode="heatmap", layout="HWC"))
    assert last.shape == (*shape[:2], 3)


def test_integers_are_up_to_255() -> None:
    photo = (255 * PHOTO).to(torch.uint8)
    shown = pixels(plot.image(None, photo, mode="original"))
    assert_allclose(shown, photo.permute(1, 2, 0).numpy() / 255, atol=1e-7)


def test_normalisation_is_undone() -> None:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    normalised = (PHOTO - mean[:, None, None]) / std[:, None, None]
    shown = pixels(plot.image(None, normalised, mode="original", denorm=(mean, std)))
    assert_allclose(shown, RGB, atol=1e-6)


def test_numbers_that_are_no_colours_are_stretched_with_a_notice() -> None:
    with pytest.warns(PlotWarning, match="stretched"):
        shown = pixels(plot.image(None, 10 * PHOTO - 3, mode="original"))
    assert shown.min() == 0 and shown.max() == 1


def test_channels_that_are_no_colours_are_averaged_with_a_notice() -> None:
    with pytest.warns(PlotWarning, match="5 channels"):
        shown = pixels(plot.image(None, torch.full((5, 4, 6), 0.5), mode="original"))
    assert_allclose(shown, 0.5)


def test_a_photo_with_holes_is_drawn_with_a_notice() -> None:
    photo = PHOTO.clone()
    photo[0, 0, 0] = torch.nan
    with pytest.warns(PlotWarning, match="1 of 72"):
        assert np.isfinite(pixels(plot.image(ATTR, photo))).all()


def test_infinities_of_both_signs_in_one_pixel_are_hatched() -> None:
    attr = torch.zeros(3, 4, 6)
    attr[0, 1, 1], attr[1, 1, 1], attr[2, 3, 3] = torch.inf, -torch.inf, 1.0
    with pytest.warns(PlotWarning, match="1 of 24"):
        (patch,) = plot.image(attr).axes[0].patches
    assert patch.get_path().contains_point((1, 1)) and not patch.get_path().contains_point((2, 1))


def test_of_an_estimate_the_value_is_shown() -> None:
    estimate = Estimate(ATTR, torch.full_like(ATTR, 0.1), 10)
    expected = pixels(plot.image(ATTR, PHOTO))
    assert_allclose(pixels(plot.image(estimate, PHOTO)), expected)
    batch = Estimate(ATTR[None], torch.full_like(ATTR[None], 0.1), 10)
    for figure in (plot.images(batch, PHOTO[None]), plot.images({"a": batch}, PHOTO[None])):
        assert_allclose(pixels(figure, 1), expected)
    assert_allclose(pixels(plot.compare({"a": estimate}, PHOTO)), expected)


def test_what_is_not_finite_is_hatched_and_nothing_else() -> None:
    attr = ATTR.clone()
    attr[1, 2:4], attr[2, 3] = torch.nan, torch.inf
    with pytest.warns(PlotWarning, match="3 of 24"):
        figure = plot.image(attr, PHOTO)
    (patch,) = figure.axes[0].patches
    rows, columns = np.mgrid[:4, :6]
    centres = np.stack([columns.ravel(), rows.ravel()], -1)
    inside = patch.get_path().contains_points(centres).reshape(4, 6)
    assert patch.get_hatch()
    assert (inside == ~np.isfinite(attr.numpy())).all()


def test_the_scale_is_printed_with_its_unit_and_what_is_clipped() -> None:
    attr = torch.cat([torch.ones(199), torch.tensor([100.0])]).reshape(10, 20)
    figure = plot.image(attr, unit="log-odds")
    (strip,) = figure.axes[0].child_axes
    assert [label.get_text() for label in strip.get_xticklabels()] == ["−1.0", "0", "+1.0"]
    assert strip.get_xlabel() == "log-odds"
    assert any("0.5 % clipped" in text.get_text() for text in strip.texts)


def test_a_given_scale_is_kept() -> None:
    shown = pixels(plot.image(ATTR, mode="heatmap", scale=4.0))
    assert colors.hexadecimal(shown[0, 0]) == "#f0a24d"


def test_a_palette_is_used() -> None:
    shown = pixels(plot.image(ATTR, mode="heatmap", palette="captum"))
    assert colors.hexadecimal(shown[0, 0]) == "#008000"


def test_a_tuple_of_modes_is_a_row_of_panels() -> None:
    figure = plot.image(
        ATTR, PHOTO, mode=("original", "heatmap", "heatmap"), sign=("all", "positive", "negative")
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["original", "heatmap, positive", "heatmap, negative"]
    assert_allclose(pixels(figure, 0), RGB, atol=1e-6)
    assert_allclose(pixels(figure, 1), pixels(plot.image(ATTR, mode="heatmap", sign="positive")))


def test_a_notebook_shows_a_figure_without_pyplot() -> None:
    figure: Any = plot.image(torch.randn(4, 4))
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_figure_is_as_it_was_computed_when_it_is_rendered() -> None:
    from io import BytesIO

    from matplotlib.image import imread

    figure = plot.image(ATTR, mode="heatmap")
    file = BytesIO()
    figure.savefig(file, dpi=100)
    file.seek(0)
    rendered = imread(file)
    for row, column in ((0, 0), (3, 5), (2, 2)):
        x, y = figure.axes[0].transData.transform((column, row))
        colour = rendered[len(rendered) - 1 - int(y), int(x), :3]
        assert_allclose(colour, pixels(figure)[row, column], atol=1 / 255)


# --- several images -----------------------------------------------------------------------------


def test_a_grid_has_a_row_for_each_image_and_a_column_for_each_method() -> None:
    attrs = {"one": torch.randn(2, 3, 4, 6), "two": torch.randn(2, 3, 4, 6)}
    photos = torch.rand(2, 3, 4, 6)
    figure = plot.images(attrs, photos, mode="heatmap", rows=["a", "b"], colorbar=False)
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "one", "two"]
    assert [figure.axes[place].get_ylabel() for place in (0, 3)] == ["a", "b"]
    limit = colors.limit(np.concatenate([a.sum(1).numpy().ravel() for a in attrs.values()]))
    for row in range(2):
        assert_allclose(pixels(figure, 3 * row), photos[row].permute(1, 2, 0), atol=1e-6)
        for column, name in enumerate(attrs):
            expected = colors.paint(attrs[name][row].sum(0).double().numpy(), limit)
            assert_allclose(pixels(figure, 3 * row + 1 + column), expected, atol=1e-5)


def test_without_a_shared_scale_every_image_has_its_own() -> None:
    attr = torch.stack([ATTR, 10 * ATTR])
    shared = plot.images(attr, mode="heatmap")
    alone = plot.images(attr, mode="heatmap", share_scale=False)
    assert_allclose(pixels(alone, 0), pixels(alone, 1))
    assert not np.allclose(pixels(shared, 0), pixels(shared, 1))


def test_a_list_of_images_of_several_sizes() -> None:
    figure = plot.images([torch.randn(4, 6), torch.randn(5, 5)], colorbar=False)
    assert [pixels(figure, place).shape[:2] for place in (0, 1)] == [(4, 6), (5, 5)]


# --- segments -----------------------------------------------------------------------------------

SEGMENTS = torch.tensor([[4, 4, 4, 9, 9, 9]] * 4)


def test_numbers_of_segments_are_numbers_of_their_pixels() -> None:
    of_segments = plot.mask(PHOTO, SEGMENTS, [1.0, -2.0])
    of_pixels = plot.mask(PHOTO, SEGMENTS, torch.where(SEGMENTS == 4, 1.0, -2.0))
    assert_allclose(pixels(of_segments), pixels(of_pixels))
    left, right = pixels(of_segments)[0, 0], pixels(of_segments)[0, 5]
    assert left[0] > left[2] and right[2] > right[0]


def test_borders_lie_between_segments() -> None:
    figure = plot.mask(PHOTO, SEGMENTS)
    for lines in figure.axes[0].collections:
        assert len(lines.get_segments()) == 4
        assert {x for segment in lines.get_segments() for x, _ in segment} == {2.5}


def test_segments_have_their_names_inside() -> None:
    for labels, expected in (
        (True, ["4", "9"]),
        (["sky", "sea"], ["sky", "sea"]),
        ({9: "sea"}, ["4", "sea"]),
    ):
        texts = (
            plot.mask(
                torch.rand(40, 60),
                SEGMENTS.repeat_interleave(10, 0).repeat_interleave(10, 1),
                labels=labels,
            )
            .axes[0]
            .texts
        )
        assert [text.get_text() for text in texts] == expected
        assert [text.get_position()[0] < 30 for text in texts] == [True, False]
    assert not plot.mask(PHOTO, SEGMENTS, labels=False).axes[0].texts


def test_too_many_segments_are_not_named_with_a_notice() -> None:
    with pytest.warns(PlotWarning, match="400 segments"):
        plot.mask(torch.rand(20, 20), torch.arange(400).reshape(20, 20))


# --- agreement ----------------------------------------------------------------------------------


def test_agreement_is_the_rank_correlation_with_the_first() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = torch.randn(4, 6), torch.randn(4, 6)
    figure = plot.compare({"a": a, "b": b, "same": 3 * a, "less": -a})
    titles = [axes.get_title() for axes in figure.axes[:4]]
    rho = stats.spearmanr(a.flatten(), b.flatten())[0]
    assert titles[0] == "a\n" and titles[2:] == ["same\nρ +1.00", "less\nρ −1.00"]
    assert titles[1].partition(" ")[2] == f"{rho:+.2f}".replace("-", "−")


def test_features_are_compared_in_a_table() -> None:
    figure = plot.compare({"a": [1.0, 2.0], "b": [-1.0, 2.0]}, names=["s", "t"])
    assert_allclose(pixels(figure), colors.paint([[1.0, -1.0], [2.0, 2.0]], 2.0))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["s", "t"]
