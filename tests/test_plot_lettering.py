"""No text of a figure is cut, and every letter is in a font that has it, or it is told."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import torch

from attrib import PlotWarning, plot

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.font_manager import (  # noqa: E402
    FontProperties,
    findfont,
    fontManager,
    get_font,
)

LONG = (
    "What was attributed, by which method, with how many steps, from which baseline, to which of "
    "all the classes, and then some more: " + "antidisestablishmentarianism" * 4
)
NAMES = ("a", "b", "c")
ROW, PHOTO = torch.tensor([1.0, -2.0, 0.5]), torch.rand(3, 6, 8)
DRAW: dict[str, Callable[[str], Any]] = {
    "image": lambda title: plot.image(PHOTO, PHOTO, title=title),
    "row": lambda title: plot.image(PHOTO, PHOTO, mode=("original", "top"), title=title),
    "images": lambda title: plot.images({"a": PHOTO[None]}, PHOTO[None], title=title),
    "compare": lambda title: plot.compare({"a": ROW, "b": ROW}, title=title),
    "text": lambda title: plot.text(NAMES, ROW, title=title).figure(),
    "tokens2d": lambda title: plot.tokens2d(NAMES, "d", ROW[None], title=title),
    "timeseries": lambda title: plot.timeseries(ROW, ROW, title=title),
    "bar": lambda title: plot.bar(NAMES, ROW, title=title),
    "waterfall": lambda title: plot.waterfall(ROW, names=NAMES, title=title),
    "heatmap": lambda title: plot.heatmap(ROW.expand(4, 3), NAMES, title=title),
}


def letter_of(family: str) -> str:
    """One that this font has, and the usual one has not."""
    usual, other = (get_font(findfont(FontProperties(family=[f]))) for f in ("sans-serif", family))
    letters = (chr(code) for code in range(0x2000, 0x1F000) if other.get_char_index(code))
    seen = (letter for letter in letters if unicodedata.category(letter)[0] in "LS")
    return next(letter for letter in seen if not usual.get_char_index(ord(letter)))


UNASSIGNED = "\u0378"  # in no font, as it is no character


@pytest.mark.parametrize("name", DRAW)
def test_a_long_title_is_broken_into_lines_and_nothing_of_it_is_cut(name: str) -> None:
    figure = DRAW[name](LONG)
    figure.draw_without_rendering()
    title = figure._suptitle
    assert title.get_text().replace("\n", "").replace(" ", "") == LONG.replace(" ", "")
    box, whole = title.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
    for axes in figure.axes:
        assert axes.get_window_extent().y1 <= box.y0


def test_a_long_title_of_given_axes_is_not_wider_than_they_are() -> None:
    ax = matplotlib.figure.Figure(figsize=(8, 4)).subplots(1, 2)[0]
    plot.bar(NAMES, ROW, title=LONG, ax=ax)
    ax.figure.draw_without_rendering()
    assert ax.title.get_window_extent().width <= ax.get_window_extent().width + 1


def test_a_text_without_spaces_is_broken_anywhere() -> None:
    figure = plot.bar(NAMES, ROW, title="wo" * 120)
    figure.draw_without_rendering()
    assert figure._suptitle.get_window_extent().width <= figure.bbox.width
    assert figure._suptitle.get_text().replace("\n", "") == "wo" * 120


def test_names_of_panels_do_not_reach_their_neighbours() -> None:
    figure = plot.images({LONG: PHOTO[None], f"{LONG}!": PHOTO[None]}, colorbar=False)
    figure.draw_without_rendering()
    left, right = (axes.title.get_window_extent() for axes in figure.axes)
    assert left.x1 <= right.x0


@pytest.mark.parametrize("mode", ["overlay", "mask"])
def test_a_long_unit_is_broken_into_lines_and_nothing_of_it_is_cut(mode: Any) -> None:
    figure = plot.image(torch.randn(20, 20), torch.rand(20, 20), mode=mode, unit=LONG)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    text = axes.child_axes[0].xaxis.label if mode == "overlay" else axes.texts[0]
    assert LONG.replace(" ", "") in text.get_text().replace("\n", "").replace(" ", "")
    box, whole = text.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0


def test_lines_that_a_unit_has_of_its_own_are_kept() -> None:
    (strip,) = plot.image(PHOTO, unit="one\ntwo, which is longer").axes[0].child_axes
    assert strip.get_xlabel() == "one\ntwo, which is longer"


def test_letters_that_the_usual_font_lacks_come_from_another() -> None:
    # Warnings are errors here: matplotlib would warn of a letter that it cannot draw.
    letter = letter_of("STIXGeneral")
    assert letter in plot.bar([letter, "b", "c"], ROW, title=letter)._suptitle.get_text()
    names = [letter, "b", "c"]
    for figure in (
        plot.bar(names, ROW, unit=letter, title=letter),
        plot.curve({letter: [1.0, 0.0]}, xlabel=letter),
        plot.timeseries(ROW.expand(3, 3), ROW.expand(3, 3), channels=names, layout="CT"),
        plot.text(names, ROW, title=letter, unit=letter).figure(),
        plot.images({letter: PHOTO[None]}, rows=[letter]),
        plot.mask(torch.rand(40, 40), torch.zeros(40, 40), labels=[letter], title=letter),
        plot.tokens2d(names, [letter], ROW[None]),
    ):
        figure.draw_without_rendering()


def test_a_letter_that_no_font_has_is_told_once_for_a_figure() -> None:
    assert not any(
        get_font(font.fname).get_char_index(ord(UNASSIGNED))
        for font in fontManager.ttflist
        if not font.name.startswith("Last Resort")
    )
    for _ in range(2):
        with pytest.warns(PlotWarning, match="no font") as caught:
            figure = plot.bar([UNASSIGNED, f"b{UNASSIGNED}", "c"], ROW, title=UNASSIGNED)
            figure.draw_without_rendering()
        assert len(caught) == 1 and caught[0].filename == __file__
        labels = {label.get_text() for label in figure.axes[0].get_yticklabels()}
        assert labels == {"\N{REPLACEMENT CHARACTER}", "b\N{REPLACEMENT CHARACTER}", "c"}


def test_a_mark_that_no_font_has_is_left_out_in_silence() -> None:
    # A tag, as flags of regions have them: it has no sign of its own.
    figure = plot.bar(["a\U000e0067", "b", "c"], ROW)
    figure.draw_without_rendering()
    assert "a" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_a_font_that_is_added_is_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = letter_of("STIXGeneral")
    fonts = fontManager.ttflist
    having = [font for font in fonts if get_font(font.fname).get_char_index(ord(letter))]
    without = [font for font in fonts if font not in having]
    monkeypatch.setattr(fontManager, "ttflist", without)
    with pytest.warns(PlotWarning, match="no font"):
        plot.bar([letter, "b", "c"], ROW)
    monkeypatch.setattr(fontManager, "ttflist", [*without, *having])
    (axes,) = plot.bar([letter, "b", "c"], ROW).axes
    assert letter in [label.get_text() for label in axes.get_yticklabels()]
