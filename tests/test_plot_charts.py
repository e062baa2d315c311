"""Lines, bars and points stand where the numbers are."""

from __future__ import annotations

import itertools
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import attrib
from attrib import Estimate, PlotWarning, plot
from attrib.plot import colors

matplotlib = pytest.importorskip("matplotlib")

MODES = ("overlay", "combined", "line", "strip")


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


# --- time series --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_long_series_needs_few_artists(mode: Any) -> None:
    # One artist for each step and channel would take half a minute.
    attr = np.random.default_rng(0).standard_normal((6, 3000))
    figure = plot.timeseries(attr, attr, mode=mode)
    assert len(figure.axes) == (1 if mode == "combined" else 6)
    drawn = [a for axes in figure.axes for a in (*axes.lines, *axes.images, *axes.collections)]
    assert len(drawn) <= 12
    assert not any(axes.patches for axes in figure.axes)


@pytest.mark.parametrize("mode", MODES)
def test_every_channel_is_there(mode: Any) -> None:
    series = np.cumsum(np.ones((3, 20)), 1) * [[1.0], [2.0], [3.0]]
    figure = plot.timeseries(np.ones((3, 20)), series, mode=mode, channels=["a", "b", "c"])
    for place in range(3):
        axes = figure.axes[0 if mode == "combined" else place]
        if mode == "line":
            (lines,) = axes.collections
            heights = np.concatenate(lines.get_segments())[:, 1]
        else:
            heights = axes.lines[place if mode == "combined" else 0].get_ydata()
        assert (heights.min(), heights.max()) == (series[place, 0], series[place, -1])
        low, high = axes.get_ylim()
        assert low < series[place].min() and series[place].max() < high


def test_the_colours_behind_a_line_are_those_of_its_channel() -> None:
    attr = np.array([[1.0, 0.0, -0.5], [0.25, 1.0, 0.0]])
    figure = plot.timeseries(attr, np.ones((2, 3)))
    for row, axes in enumerate(figure.axes):
        (image,) = axes.images
        assert_allclose(image.get_array()[0], colors.paint(attr[row]), atol=1e-7)
        assert image.get_extent()[:2] == [-0.5, 2.5]


def test_combined_shows_the_sum_over_channels() -> None:
    attr = np.array([[1.0, 0.0, -0.5], [1.0, 1.0, 0.0]])
    (axes,) = plot.timeseries(attr, np.ones((2, 3)), mode="combined").axes
    assert_allclose(axes.images[0].get_array()[0], colors.paint(attr.sum(0), 2.0), atol=1e-7)


def test_a_coloured_line_is_seen_where_it_owes_nothing() -> None:
    (axes,) = plot.timeseries([0.0, 1.0], [0.0, 1.0], mode="line").axes
    none, full = axes.collections[0].get_colors()[:, :3]
    assert colors.contrast(none, np.ones(3)) >= 3  # WCAG 2.1 for what is no text
    assert colors.hexadecimal(full) == "#a34a00"


def test_uneven_times_lie_where_they_are() -> None:
    (axes,) = plot.timeseries([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 1.0, 3.0]).axes
    assert not axes.images
    (mesh,) = axes.collections
    assert_allclose(mesh.get_coordinates()[0, :, 0], [-0.5, 0.5, 2.0, 4.0])
    assert axes.lines[0].get_xdata().tolist() == [0.0, 1.0, 3.0]


def test_channels_come_first_unless_told_or_the_times_say_otherwise() -> None:
    long, times = np.random.default_rng(0).standard_normal((2, 30)), np.arange(30.0)
    for figure in (
        plot.timeseries(long, long),
        plot.timeseries(long, long, layout="CT"),
        plot.timeseries(long.T, long.T, layout="TC"),
        plot.timeseries(long.T, long.T, times),
    ):
        drawn = [axes.lines[0].get_ydata() for axes in figure.axes]
        assert_allclose(drawn, long)


@pytest.mark.parametrize("shape", [(30, 2), (3, 3)])
def test_as_many_channels_as_steps_are_drawn_as_such_and_told(shape: tuple[int, int]) -> None:
    data = np.random.default_rng(0).standard_normal(shape)
    with pytest.warns(PlotWarning, match=f"{shape[0]} channels of {shape[1]} steps"):
        figure = plot.timeseries(data, data, max_display=40)
    assert_allclose([axes.lines[0].get_ydata() for axes in figure.axes], data)
    plot.timeseries(data, data, max_display=40, layout="CT")  # whoever says it is not told


def test_channels_of_small_size_are_left_out_and_told() -> None:
    data = np.ones((30, 50)) * np.arange(30.0)[:, None]
    with pytest.warns(PlotWarning, match="14 of 30 channels"):
        figure = plot.timeseries(data, data)
    assert [axes.lines[0].get_ydata()[0] for axes in figure.axes] == list(range(14, 30))


@pytest.mark.parametrize("mode", MODES)
def test_a_hole_in_the_attribution_is_hatched(mode: Any) -> None:
    attr = np.array([1.0, np.nan, np.nan, 2.0])
    with pytest.warns(PlotWarning):
        (axes,) = plot.timeseries(attr, np.ones(4), mode=mode).axes
    (hole,) = [drawn for drawn in axes.collections if drawn.get_hatch()]
    corners = np.concatenate([path.vertices for path in hole.get_paths()])
    assert (corners[:, 0].min(), corners[:, 0].max()) == (0.5, 2.5)


def dark(figure: Any, x: float, y: float) -> bool:
    """Whether something dark or of strong colour is drawn at a place of its first axes."""
    from matplotlib.image import imread

    file = BytesIO()
    figure.savefig(file, dpi=60)
    file.seek(0)
    picture = imread(file)[..., :3]
    column, row = figure.axes[0].transData.transform((x, y)) * 60 / figure.dpi
    around = picture[::-1][int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2]
    return bool(around.min() < 0.6)


@pytest.mark.parametrize("mode", MODES)
def test_a_measurement_alone_is_seen(mode: Any) -> None:
    # The only step, and one between others that are missing.
    assert dark(plot.timeseries([1.0], [3.0], mode=mode, scale=100.0), 0, 3.0)
    with pytest.warns(PlotWarning, match="2 of 5"):
        data = [1.0, np.nan, 2.0, np.nan, 4.0]
        figure = plot.timeseries(np.ones(5), data, mode=mode, scale=100.0)
    assert dark(figure, 2, 2.0) and not dark(figure, 2, 1.5)


@pytest.mark.parametrize("value", [0.0, 5.0, -3e8, 1e-12])
def test_a_constant_lies_in_the_middle_of_an_axis_with_numbers(value: float) -> None:
    (axes,) = plot.timeseries(np.ones(20), np.full(20, value)).axes
    low, high = axes.get_ylim()
    assert (low + high) / 2 == pytest.approx(value, abs=1e-9 * (high - low))
    places = [place for place in axes.get_yticks() if low <= place <= high]
    assert 3 <= len(places) <= 9


# --- one example --------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "d"]
ATTR = [0.5, -2.0, 1.0, -0.25]


def test_bars_are_sorted_by_size_and_end_at_their_numbers() -> None:
    (axes,) = plot.bar(NAMES, ATTR).axes
    assert ticks(axes.yaxis) == ["b", "c", "a", "d"]
    assert [bar.get_width() for bar in axes.patches] == [-2.0, 1.0, 0.5, -0.25]
    assert [text.get_text() for text in axes.texts] == ["−2.00", "+1.00", "+0.50", "−0.25"]


def test_bars_to_the_right_are_orange_and_to_the_left_blue() -> None:
    (axes,) = plot.bar(NAMES, ATTR).axes
    for bar in axes.patches:
        red, _, blue, _ = bar.get_facecolor()
        assert (red > blue) == (bar.get_width() > 0)


def test_the_last_bar_is_the_sum_of_all_others() -> None:
    (axes,) = plot.bar(NAMES, ATTR, max_display=2).axes
    assert ticks(axes.yaxis) == ["b", "3 others"]
    assert [bar.get_width() for bar in axes.patches] == [-2.0, 1.25]


def test_an_estimate_has_its_error_twice_to_both_sides() -> None:
    estimate = Estimate(torch.tensor([1.0, -1.0]), torch.tensor([0.1, 0.2]), 10)
    (axes,) = plot.bar(["a", "b"], estimate).axes
    (ranges,) = [c for c in axes.collections if len(c.get_segments()) == 2]
    ends = [segment[:, 0].tolist() for segment in ranges.get_segments()]
    assert_allclose(ends, [[0.8, 1.2], [-1.4, -0.6]], rtol=1e-6)


def segments(axes: Any) -> list[list[list[float]]]:
    """The error bars."""
    (ranges,) = [c for c in axes.collections if hasattr(c, "get_segments")]
    return [segment.tolist() for segment in ranges.get_segments()]


def test_estimates_of_a_waterfall_and_of_points_have_their_errors_twice_to_both_sides() -> None:
    value, error = torch.tensor([1.0, -0.5]), torch.tensor([0.125, 0.25])
    (axes,) = plot.waterfall(Estimate(value, error, 10), base=0.25).axes
    # The lower arrow leads from 0.25 to -0.25, the one above it from there to 0.75.
    assert [[x for x, _ in ends] for ends in segments(axes)] == [[0.5, 1.0], [-0.75, 0.25]]
    (axes,) = plot.scatter(Estimate(value, error, 10), [3.0, 4.0]).axes
    assert segments(axes) == [[[3.0, 0.75], [3.0, 1.25]], [[4.0, -1.0], [4.0, 0.0]]]


def test_where_numbers_are_written_twice_the_error_stands_behind_them() -> None:
    estimate = Estimate(torch.tensor([1.0, -0.5]), torch.tensor([0.125, 0.25]), 10)
    (axes,) = plot.force(estimate, names=["a", "b"]).axes
    texts = {text.get_text() for text in axes.texts}
    assert {"a\n+1.0 ± 0.25", "b\n−0.50 ± 0.50"} <= texts
    lines = plot.terminal.bar(["a", "b"], estimate).splitlines()
    assert lines[0].endswith("+1.00 ± 0.25") and lines[1].endswith("−0.50 ± 0.50")


def test_values_stand_beside_the_names() -> None:
    (axes,) = plot.bar(NAMES, ATTR, values=[38, "blue", 1.25, 1e-9], sort=False).axes
    assert ticks(axes.yaxis) == ["a = 38", "b = blue", "c = 1.25", "d = 1e-09".replace("-", "−")]


def arrows(axes: Any) -> list[tuple[float, float]]:
    """Where every arrow begins and ends."""
    return [(p.get_xy()[0, 0], p.get_xy()[2, 0]) for p in axes.patches]


@pytest.mark.parametrize("most", [2, 3, 4, 12])
def test_a_waterfall_leads_from_the_base_to_the_score(most: int) -> None:
    (axes,) = plot.waterfall(ATTR, names=NAMES, base=0.3, max_display=most).axes
    steps = arrows(axes)[::-1]  # from the lowest to the highest
    assert steps[0][0] == pytest.approx(0.3)
    assert steps[-1][1] == pytest.approx(0.3 + sum(ATTR))
    for (_, end), (start, _) in itertools.pairwise(steps):
        assert end == pytest.approx(start)


def test_forces_meet_at_the_score() -> None:
    (axes,) = plot.force(ATTR, names=NAMES, base=0.3).axes
    score = 0.3 + sum(ATTR)
    ups = sorted(a for a in arrows(axes) if a[1] > a[0])
    downs = sorted(a for a in arrows(axes) if a[1] < a[0])
    assert ups[-1][1] == pytest.approx(score) == downs[0][1]
    assert ups[0][0] == pytest.approx(score - 1.5)
    assert downs[-1][0] == pytest.approx(score + 2.25)


def test_an_arrow_shows_its_direction_by_its_shape() -> None:
    (axes,) = plot.waterfall([1.0, -1.0]).axes
    for (start, end), patch in zip(arrows(axes), axes.patches, strict=True):
        shoulder = patch.get_xy()[1, 0]
        assert (end - shoulder) * (end - start) > 0


# --- many examples ------------------------------------------------------------------------------


def test_a_swarm_has_a_point_for_every_number() -> None:
    attr = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 3, 2])
    (axes,) = plot.beeswarm(attr, names=["a", "b", "c"]).axes
    assert ticks(axes.yaxis) == ["b", "c", "a"]
    for row, feature in enumerate((1, 2, 0)):
        points = np.asarray(axes.collections[row].get_offsets())
        assert_allclose(points[:, 0], attr[:, feature], rtol=1e-6)
        assert (np.abs(points[:, 1] - row) < 0.5).all()


def test_points_of_a_swarm_do_not_lie_on_each_other() -> None:
    (axes,) = plot.beeswarm(np.ones((15, 1))).axes
    heights = np.asarray(axes.collections[0].get_offsets())[:, 1]
    assert len(set(heights.round(9))) == 15


def test_low_and_high_values_have_the_colours_of_the_scale() -> None:
    values = np.arange(20.0)[:, None]
    (axes,) = plot.beeswarm(values, values).axes
    lightness = colors.luminance(axes.collections[0].get_facecolors()[:, :3])
    assert (np.diff(lightness[2:-2]) > 0).all()


def test_a_scatter_stands_where_the_numbers_are() -> None:
    (axes,) = plot.scatter([1.0, 2.0, 3.0], [4.0, 6.0, 5.0], name="age").axes
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[4, 1], [6, 2], [5, 3]]
    assert axes.get_xlabel() == "age"


def test_a_heat_map_puts_examples_in_the_order_of_their_sums() -> None:
    attr = np.array([[1.0, 0.5], [-1.0, -0.5], [0.2, 0.1]])
    (axes,) = plot.heatmap(attr, ["a", "b"]).axes
    assert_allclose(axes.images[0].get_array(), colors.paint(attr[[1, 2, 0]].T), atol=1e-7)


def test_a_heat_map_adds_up_what_it_does_not_show() -> None:
    attr = np.array([[3.0, 0.5, 0.25], [-3.0, 0.5, -0.25]])
    (axes,) = plot.heatmap(attr, max_display=2, sort=False, scale=3.0).axes
    assert ticks(axes.yaxis) == ["feature 0", "2 others"]
    expected = colors.paint([[3.0, -3.0], [0.75, 0.25]], 3.0)
    assert_allclose(axes.images[0].get_array(), expected, atol=1e-7)


# --- tables and curves --------------------------------------------------------------------------


def test_tokens_by_tokens_have_their_numbers_where_they_fit() -> None:
    (axes,) = plot.tokens2d(["a", "b"], ["c"], [[0.5, -1.0]]).axes
    assert [text.get_text() for text in axes.texts] == ["+0.50", "−1.00"]
    assert_allclose(axes.images[0].get_array(), colors.paint([[0.5, -1.0]]), atol=1e-7)
    (axes,) = plot.tokens2d(range(200), range(200), np.ones((200, 200))).axes
    assert not axes.texts


def test_a_confusion_matrix_may_be_divided_by_its_rows() -> None:
    (axes,) = plot.confusion([[8, 2], [0, 0]], ["cat", "dog"]).axes
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "0"]
    (axes,) = plot.confusion([[8, 2], [0, 0]], normalise=True).axes
    assert [text.get_text() for text in axes.texts] == ["0.80", "0.20", "0", "0"]
    assert axes.get_ylabel() == "true"


def test_a_curve_tells_its_area() -> None:
    (axes,) = plot.curve({"a": [1.0, 0.5, 0.0], "b": [1.0, 1.0, 1.0]}).axes
    legend = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert legend == ["a  area 0.500", "b  area 1.00"]


def test_a_curve_of_the_metrics_is_drawn_as_it_is() -> None:
    f = lambda x: x.sum(-1)
    x = torch.tensor([1.0, 3.0])
    (axes,) = plot.curve({"all": attrib.metrics.curve(f)(x, x)}).axes
    assert axes.lines[0].get_xdata().tolist() == [0.0, 0.5, 1.0]
    assert axes.lines[0].get_ydata().tolist() == [4.0, 1.0, 0.0]


def test_of_several_curves_the_mean_is_drawn() -> None:
    (axes,) = plot.curve({"a": np.array([[1.0, 3.0], [0.0, 1.0]])}).axes
    assert axes.lines[0].get_ydata().tolist() == [2.0, 0.5]


def test_a_hole_in_one_of_several_curves_is_left_out_of_their_mean() -> None:
    with pytest.warns(PlotWarning, match="1 of 4"):
        (axes,) = plot.curve(np.array([[1.0, np.nan], [0.0, 1.0]])).axes
    assert axes.lines[0].get_ydata().tolist() == [1.0, 0.5]


def test_what_is_finite_of_a_curve_is_drawn_and_its_area_is_not_told() -> None:
    with pytest.warns(PlotWarning, match="3 of 5"):
        figure = plot.curve({"a": [1.0, np.nan, 0.5, np.nan, np.inf], "b": np.ones(5)})
    (axes,) = figure.axes
    legend = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert legend == ["a", "b  area 1.00"]
    assert dark(figure, 0.0, 1.0) and dark(figure, 0.5, 0.5) and not dark(figure, 0.75, 0.5)


def test_a_curve_of_nothing_says_so() -> None:
    with pytest.warns(PlotWarning, match="2 of 2"):
        (axes,) = plot.curve({"a": [np.nan, np.nan]}).axes
    assert axes.get_legend().get_texts()[0].get_text().strip() == "a  nothing finite"


def test_a_curve_of_one_step_is_seen() -> None:
    assert dark(plot.curve([1.0]), 0.0, 1.0)


def test_the_area_of_a_given_figure_is_its_integral() -> None:
    x = np.array([0.0, 0.1, 1.0])
    integral = float(torch.trapezoid(torch.tensor(x**2), torch.tensor(x)))
    (axes,) = plot.curve({"a": x**2}, x).axes
    assert axes.get_legend().get_texts()[0].get_text().endswith(f"{integral:.3f}")


def test_shares_in_a_confusion_matrix_are_not_rounded_to_counts() -> None:
    figure = plot.confusion([[0.51, 0.49], [0.2, 0.8]], ["a", "b"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0.51", "0.49", "0.20", "0.80"]
    counts = plot.confusion([[51, 49], [20, 80]], ["a", "b"])
    assert [text.get_text() for text in counts.axes[0].texts] == ["51", "49", "20", "80"]
