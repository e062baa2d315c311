"""Whatever an attribution is, it is drawn, without pyplot; and what is missing is told."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

import attrib
from attrib import AttribError, Estimate, PlotWarning, plot

matplotlib = pytest.importorskip("matplotlib")
pyplot = pytest.importorskip("matplotlib.pyplot")


def image_of(attr: Any) -> Any:
    # Of the other modes, each differs from one of these in its arithmetic alone.
    photo = torch.rand(3, *attr.shape[-2:])
    return plot.image(attr, photo, mode=("overlay", "mask", "contour", "top"))


def text_of(attr: Any) -> Any:
    view = plot.text([f"token{place}" for place in range(len(attr))], attr)
    for shown in (str(view), view.to_html(), view._repr_html_()):
        assert "token0" in shown
    return view.figure()


# How each function is called with an attribution, and the shape of one.
DRAW: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "image": ((3, 6, 8), image_of),
    "heatmap of one channel": ((1, 6, 8), lambda a: plot.image(a, mode="heatmap")),
    "images": ((2, 3, 6, 8), lambda a: plot.images({"a": a, "b": a}, torch.rand(2, 3, 6, 8))),
    "mask": ((6, 8), lambda a: plot.mask(torch.rand(3, 6, 8), torch.arange(48).view(6, 8) // 7, a)),
    "compare": ((3, 6, 8), lambda a: plot.compare({"a": a, "b": a}, torch.rand(3, 6, 8))),
    "compare features": ((5,), lambda a: plot.compare({"a": a, "b": a})),
    "text": ((9,), text_of),
    "texts": ((9,), lambda a: plot.texts([plot.TextRecord(list("abcdefghi"), a)]).figure()),
    "tokens2d": ((2, 3), lambda a: plot.tokens2d("abc", "de", a)),
    "overlay": ((2, 30), lambda a: plot.timeseries(a, torch.rand(2, 30))),
    "combined": ((2, 30), lambda a: plot.timeseries(a, torch.rand(2, 30), mode="combined")),
    "line": ((2, 30), lambda a: plot.timeseries(a, torch.rand(2, 30), mode="line")),
    "strip": ((2, 30), lambda a: plot.timeseries(a, torch.rand(2, 30), mode="strip")),
    "bar": ((5,), lambda a: plot.bar(None, a)),
    "waterfall": ((5,), plot.waterfall),
    "force": ((5,), plot.force),
    "beeswarm": ((20, 4), lambda a: plot.beeswarm(a, torch.rand(20, 4))),
    "scatter": ((20,), lambda a: plot.scatter(a, torch.rand(20), colour=torch.rand(20))),
    "heatmap": ((20, 4), plot.heatmap),
}
every = pytest.mark.parametrize("name", DRAW)


def spoil(attr: torch.Tensor, *numbers: float) -> torch.Tensor:
    """The first entries are these numbers instead."""
    attr.view(-1)[: len(numbers)] = torch.tensor(numbers)
    return attr


SPOILT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zero": torch.zeros_like,
    "nothing finite": lambda a: spoil(torch.full_like(a, torch.nan), torch.inf, -torch.inf),
    "some not finite": lambda a: spoil(a, torch.nan, torch.inf, -torch.inf),
}
# Of a tensor of three numbers.
FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "bfloat16": lambda a: a.bfloat16(),
    "float16": lambda a: a.half(),
    "float64": lambda a: a.double(),
    "integers": lambda a: a.long(),
    "requires grad": lambda a: a.requires_grad_(),
    "not contiguous": lambda a: a.repeat_interleave(2)[::2],
    "conjugate": lambda a: torch.complex(a, -a).conj().imag,
    "sparse": lambda a: a.to_sparse(),
    "quantized": lambda a: torch.quantize_per_tensor(a, 1.0, 0, torch.qint8),
    "array": lambda a: a.numpy(),
    "array of float32": lambda a: a.numpy().astype(np.float32),
    "masked array": lambda a: np.ma.masked_array(a.numpy(), mask=False),
    "list": lambda a: a.tolist(),
    "list of tensors": lambda a: list(a),
}
FINE: dict[str, Callable[[torch.Tensor], Any]] = {
    "constant": torch.ones_like,
    "tiny": lambda a: (a * 1e-30).bfloat16().requires_grad_(),
    "huge": lambda a: a * 1e30,
}


def sample(name: str) -> torch.Tensor:
    shape, _ = DRAW[name]
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def drawn(figure: Any) -> Any:
    """The figure, after everything in it was asked where it is; pyplot knows nothing of it."""
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.draw_without_rendering()
    assert not pyplot.get_fignums()
    return figure


@every
@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_says_nothing_is_drawn_with_a_notice(name: str, spoilt: str) -> None:
    with pytest.warns(PlotWarning) as caught:
        drawn(DRAW[name][1](SPOILT[spoilt](sample(name))))
    assert {warning.filename for warning in caught} == {__file__}


@every
@pytest.mark.parametrize("fine", FINE)
def test_every_kind_of_numbers_is_drawn_without_a_notice(name: str, fine: str) -> None:
    drawn(DRAW[name][1](FINE[fine](sample(name))))


@pytest.mark.filterwarnings("ignore:.*quantiz:UserWarning", "ignore:.*quantiz:DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_the_same_in_every_form(form: str) -> None:
    (axes,) = plot.bar(None, FORMS[form](torch.tensor([1.0, -3.0, 2.0])), sort=False).axes
    assert [bar.get_width() for bar in axes.patches] == [1.0, -3.0, 2.0]


def seen(shown: Any) -> str | bytes:
    """Text, or the pixels of a figure."""
    if isinstance(shown, str):
        return shown
    file = BytesIO()
    shown.savefig(file, dpi=25)
    return file.getvalue()


def test_an_estimate_may_stand_wherever_an_attribution_does() -> None:
    attr, photo = torch.randn(6, 8), torch.rand(3, 6, 8)
    estimate = Estimate(attr, torch.ones(6, 8), 10)
    for call in (
        lambda a: plot.mask(photo, torch.zeros(6, 8), a),
        lambda a: plot.tokens2d(range(8), range(6), a),
        lambda a: plot.timeseries(a, attr, mode="combined"),
        lambda a: plot.beeswarm(a),
        lambda a: plot.terminal.image(a),
        lambda a: str(plot.text(range(6), a)),
    ):
        assert seen(call(estimate)) == seen(call(attr))


@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_a_sign_that_is_not_there_is_drawn_with_a_notice(sign: Any) -> None:
    attr = torch.ones(6, 8) * (-1 if sign == "positive" else 1)
    photo = torch.rand(3, 6, 8)
    for call in (
        lambda: plot.image(attr, photo, mode=("overlay", "contour", "top"), sign=sign),
        lambda: plot.mask(photo, torch.zeros(6, 8), attr, sign=sign),
        lambda: plot.tokens2d(range(8), range(6), attr, sign=sign),
        lambda: plot.timeseries(attr, torch.rand(6, 8), mode="line", sign=sign),
        lambda: plot.bar(None, attr[0], sign=sign),
        lambda: plot.heatmap(attr, sign=sign),
        lambda: plot.text(range(8), attr[0], sign=sign).figure(),
    ):
        with pytest.warns(PlotWarning, match=f"nothing {sign}"):
            drawn(call())


@pytest.mark.parametrize(
    ("sign", "channels"), [("all", 3), ("positive", 1), ("negative", 4), ("absolute", 3)]
)
def test_every_mode_has_every_sign_for_images_of_any_channels(sign: Any, channels: int) -> None:
    attr, photo = torch.randn(channels, 6, 8), torch.rand(channels, 6, 8)
    drawn(plot.image(attr, photo, mode=plot.MODES, sign=sign))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_images_of_few_pixels(shape: tuple[int, int]) -> None:
    drawn(plot.image(torch.ones(shape), torch.rand(shape), mode=plot.MODES))


def test_what_is_empty_is_drawn_with_a_notice() -> None:
    empty = torch.zeros(0)
    for call in (
        lambda: plot.bar([], empty),
        lambda: plot.waterfall(empty),
        lambda: plot.force(empty),
        lambda: plot.text([], empty).figure(),
        lambda: plot.texts([]).figure(),
        lambda: plot.tokens2d([], [], torch.zeros(0, 0)),
        lambda: plot.confusion(torch.zeros(0, 0)),
        lambda: plot.beeswarm(torch.zeros(0, 3)),
        lambda: plot.beeswarm(torch.zeros(3, 0)),
        lambda: plot.heatmap(torch.zeros(0, 3)),
        lambda: plot.scatter(empty, empty),
    ):
        with pytest.warns(PlotWarning, match="empty"):
            drawn(call())


def test_one_of_each_is_drawn() -> None:
    one = torch.ones(1)
    for figure in (
        plot.bar(["a"], one),
        plot.waterfall(one),
        plot.force(one),
        plot.text(["a"], one).figure(),
        plot.tokens2d("a", "b", [[1.0]]),
        plot.confusion([[3]]),
        plot.beeswarm([[1.0]], [[2.0]]),
        plot.heatmap([[1.0]]),
        plot.scatter(one, one, colour=one),
        plot.timeseries(one, one, mode="line"),
        plot.timeseries(one, one),
        plot.curve([1.0]),
    ):
        drawn(figure)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every
def test_tensors_of_a_gpu_are_drawn(name: str) -> None:
    drawn(DRAW[name][1](sample(name).cuda()))


@every
def test_foreign_text_is_no_formula_and_no_control_character(name: str) -> None:
    odd = [f"$\\frac{place} <b>&\x1b[31m\u202e\x00" for place in range(9)]
    attr = sample(name)
    calls: dict[str, Callable[[], Any]] = {
        "images": lambda: plot.images({odd[0]: attr}, rows=odd[:2], title=odd[0]),
        "mask": lambda: plot.mask(
            torch.rand(6, 8), torch.arange(48).view(6, 8) // 6, labels=odd[:8]
        ),
        "compare features": lambda: plot.compare({odd[0]: attr, odd[1]: attr}, names=odd[:5]),
        "text": lambda: plot.text(odd, attr, title=odd[0]).figure(),
        "tokens2d": lambda: plot.tokens2d(odd[:3], odd[:2], attr, unit=odd[0]),
        "combined": lambda: plot.timeseries(attr, attr, mode="combined", channels=odd[:2]),
        "overlay": lambda: plot.timeseries(attr, attr, channels=odd[:2], title=odd[0]),
        "bar": lambda: plot.bar(odd[:5], attr, values=odd[:5], unit=odd[0]),
        "force": lambda: plot.force(attr, odd[:5], odd[:5]),
        "beeswarm": lambda: plot.beeswarm(attr, names=odd[:4]),
        "scatter": lambda: plot.scatter(attr, attr, name=odd[0], title=odd[1]),
    }
    if name in calls:
        drawn(calls[name]())


@every
def test_a_picture_may_be_drawn_into_given_axes(name: str) -> None:
    figure = matplotlib.figure.Figure()
    subfigure = figure.subfigures(1, 2)[0]
    given = {
        "image": lambda a, ax: plot.image(a, mode=("overlay", "heatmap"), ax=ax),
        "images": lambda a, ax: plot.images(a, ax=ax),
        "mask": lambda a, ax: plot.mask(torch.rand(6, 8), torch.zeros(6, 8), ax=ax),
        "compare": lambda a, ax: plot.compare({"a": a}, ax=ax),
        "text": lambda a, ax: plot.text(range(9), a).figure(ax=ax),
        "tokens2d": lambda a, ax: plot.tokens2d("abc", "de", a, ax=ax),
        "overlay": lambda a, ax: plot.timeseries(a, a, ax=ax),
        "combined": lambda a, ax: plot.timeseries(a, a, mode="combined", ax=ax),
        "bar": lambda a, ax: plot.bar(None, a, ax=ax),
        "waterfall": lambda a, ax: plot.waterfall(a, ax=ax),
        "force": lambda a, ax: plot.force(a, ax=ax),
        "beeswarm": lambda a, ax: plot.beeswarm(a, ax=ax),
        "scatter": lambda a, ax: plot.scatter(a, a, ax=ax),
        "heatmap": lambda a, ax: plot.heatmap(a, ax=ax),
    }
    if name in given:
        for ax in (figure.add_subplot(), subfigure.add_subplot()):
            assert given[name](sample(name), ax) is figure
        drawn(figure)


def test_what_is_no_axes_is_refused() -> None:
    with pytest.raises(AttribError, match="ax: must be axes of matplotlib, got Figure"):
        plot.bar(None, [1.0], ax=matplotlib.figure.Figure())


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: plot.image(torch.rand(3, 6, 8), torch.rand(3, 8, 6)), r"\(6, 8\).*\(8, 6\)"),
    (lambda: plot.image(torch.rand(2, 3, 6, 8)), r"batch of shape \(2, 3, 6, 8\).*plot\.images"),
    (lambda: plot.image(torch.rand(6)), r"\(6,\)"),
    (lambda: plot.image(torch.rand(3, 6, 8), layout="HW"), r"\(3, 6, 8\)"),
    (
        lambda: plot.image(torch.rand(6, 8), torch.rand(3, 6, 8), denorm=([0, 0], 1)),
        r"\(2,\).*3 ch",
    ),
    (lambda: plot.image(None), "attr: missing"),
    (lambda: plot.image(torch.rand(6, 8), mode="mask"), "image: missing"),
    (lambda: plot.image(torch.rand(6, 8), mode="nice"), "'overlay'.*'top'"),
    (lambda: plot.image(torch.rand(6, 8), sign="up"), "'positive'"),
    (lambda: plot.image(torch.rand(6, 8), sign=("all", "all")), "2 for 1"),
    (lambda: plot.image(torch.rand(6, 8), clip=0), "clip"),
    (lambda: plot.image(torch.rand(6, 8), scale=-1.0), "scale"),
    (lambda: plot.image(torch.rand(6, 8, dtype=torch.complex64)), "real"),
    (lambda: plot.image("cat"), "attr: must be real numbers, got str"),
    (lambda: plot.images(torch.rand(2, 3, 6, 8), torch.rand(3, 3, 6, 8)), "2 and 3"),
    (lambda: plot.images(torch.rand(6, 8)), "batch"),
    (lambda: plot.images({}), "at least one"),
    (lambda: plot.mask(torch.rand(6, 8), torch.zeros(8, 6)), r"\(8, 6\).*\(6, 8\)"),
    (lambda: plot.mask(torch.rand(6, 8), torch.zeros(6, 8), [1.0, 2.0]), r"\(2,\) for 1"),
    (lambda: plot.mask(torch.rand(6, 8), torch.rand(6, 8)), "integers"),
    (lambda: plot.mask(torch.rand(6, 8), torch.zeros(6, 8), labels=["a", "b"]), "2 for 1"),
    (lambda: plot.compare({"a": torch.rand(3), "b": torch.rand(4)}), r"\(3,\) and \(4,\)"),
    (lambda: plot.text(["a", "b"], [1.0]), r"\(1,\) for 2"),
    (lambda: plot.texts([["a"]]), "TextRecord"),  # type: ignore[list-item]
    (lambda: plot.tokens2d("abc", "de", torch.rand(3, 2)), r"\(3, 2\).*\(2, 3\)"),
    (lambda: plot.confusion(torch.rand(3, 2)), r"\(3, 2\)"),
    (lambda: plot.confusion(torch.eye(3), "abcd"), "classes"),
    (lambda: plot.timeseries(torch.rand(2, 9), torch.rand(9, 2)), r"\(2, 9\).*\(9, 2\)"),
    (lambda: plot.timeseries(torch.rand(9), torch.rand(9), torch.arange(8)), r"\(8,\).*\(1, 9\)"),
    (lambda: plot.timeseries(torch.rand(3), torch.rand(3), [0, 2, 1]), "rise"),
    (lambda: plot.timeseries(torch.rand(1, 2, 9), torch.rand(1, 2, 9)), r"\(1, 2, 9\)"),
    (lambda: plot.bar(["a"], [1.0, 2.0]), "1 for 2"),
    (lambda: plot.bar(None, torch.rand(3, 4)), r"\(3, 4\)"),
    (lambda: plot.bar(None, [1.0, 2.0], error=[1.0]), r"\(1,\).*\(2,\)"),
    (lambda: plot.waterfall([1.0], values=[1.0, 2.0]), "2 for 1"),
    (lambda: plot.waterfall([1.0], base=float("nan")), "base"),
    (lambda: plot.beeswarm(torch.rand(5)), r"\(5,\)"),
    (lambda: plot.beeswarm(torch.rand(5, 2), torch.rand(2, 5)), r"\(2, 5\).*\(5, 2\)"),
    (lambda: plot.scatter(torch.rand(5), torch.rand(4)), r"\(4,\).*\(5,\)"),
    (lambda: plot.heatmap(torch.rand(5)), r"\(5,\)"),
    (lambda: plot.curve([1.0, 0.0], [0.0]), r"\(1,\).*\(2, 1\)"),
    (lambda: plot.curve([]), r"\(0,\)"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_arguments_are_refused_and_shapes_named(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises(AttribError, match=message):
        call()


def test_every_public_function_is_drawn_above() -> None:
    functions = {name for name in plot.__all__ if inspect.isfunction(getattr(plot, name))}
    assert functions - {"confusion", "curve"} <= {name.partition(" ")[0] for name in DRAW} | {
        "timeseries"
    }


def test_matplotlib_is_imported_by_the_first_figure_and_an_error_names_the_extra() -> None:
    code = """
import sys, attrib
from attrib.plot import text, colors, markup
view = text(["a"], [1.0])
str(view), view.to_html()
print("matplotlib" in sys.modules)
sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None
for call in (lambda: attrib.plot.bar(None, [1.0]), lambda: attrib.plot.image([[1.0]])):
    try:
        call()
    except ImportError as error:
        print("pip install 'attrib[plot]'" in str(error))
del sys.modules["matplotlib"], sys.modules["matplotlib.figure"]
attrib.plot.bar(["a"], [1.0])
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert out.split() == ["False", "True", "True", "True", "False"]


def test_the_plots_are_a_name_of_the_package() -> None:
    assert attrib.plot is plot
