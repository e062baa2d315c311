"""Following windows through a model: the same values as evaluating everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import attrib
from attrib import games
from attrib.games._reach import followed, incremental
from attrib.games._reach.regions import Boxes, Slide, Spans, needed, reached
from reach import (
    BASELINE,
    FOLLOWED,
    PARTLY,
    SHAPE,
    X,
    compare,
    conv,
    follow_always,
    head,
    left_out,
    ready,
)

WINDOWS = (((2, 2), 1), ((3, 1), 2), ((5, 4), (3, 4)), ((13, 1), 3))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    follow_always(monkeypatch)


def looped(model: nn.Module, window: tuple[int, int], stride: Any) -> list[Tensor]:
    """The score behind each window, one by one."""
    steps = stride if isinstance(stride, tuple) else (stride, stride)
    found: list[Tensor] = []
    for top in range(0, max(1, SHAPE[1] - window[0] + steps[0]), steps[0]):
        for left in range(0, max(1, SHAPE[2] - window[1] + steps[1]), steps[1]):
            if top >= SHAPE[1] or left >= SHAPE[2]:
                continue
            hidden = X.clone()
            box = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            hidden[box] = BASELINE[box]
            found.append(model(hidden)[:, 1])
    return found


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("window", range(len(WINDOWS)))
@pytest.mark.parametrize("name", [*FOLLOWED, *PARTLY])
def test_values_are_those_of_a_loop_over_windows(name: str, window: int) -> None:
    model = ready({**FOLLOWED, **PARTLY}[name])
    size, stride = WINDOWS[window]
    with torch.no_grad():
        v = games.game(attrib.target(model, 1), X, BASELINE, groups=games.windows(size, stride))
        expected = torch.stack(looped(model, size, stride))
        assert len(expected) == v.players
        found = incremental(v)(left_out(v))
        torch.testing.assert_close(found[1:], expected, rtol=1e-12, atol=1e-12)
        if v.players >= 8:
            compare(v)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", FOLLOWED)
def test_single_precision_is_kept(name: str) -> None:
    model = ready(FOLLOWED[name]).float()
    groups = games.windows((3, 3), 2)
    with torch.no_grad():
        v = games.game(attrib.target(model, 1), X.float(), BASELINE.float(), groups=groups)
        compare(v, tolerance=1e-5)


SIZES = st.integers(1, 3)
LAYERS = st.lists(
    st.tuples(
        *(st.sampled_from(["conv", "max", "mean", "act", "frame"]), SIZES, SIZES),
        *(st.integers(1, 2), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=4,
)


def _layer(kind: str, kernel: int, stride: int, dilation: int, padding: int) -> nn.Module:
    if kind == "conv":
        return conv(2, 2, kernel, stride=stride, dilation=dilation, padding=padding)
    if kind == "max":
        inside = min(padding, kernel // 2)
        return nn.MaxPool2d(kernel, stride, inside, 1 if inside else dilation)
    if kind == "mean":
        return nn.AvgPool2d(kernel, stride, min(padding, kernel // 2))
    return nn.Tanh() if kind == "act" else nn.ZeroPad2d((padding, 1, 0, stride))


@pytest.mark.usefixtures("eager")
@settings(max_examples=60)
@given(
    layers=LAYERS,
    shape=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    window=st.tuples(SIZES, SIZES),
    stride=SIZES,
)
def test_any_stack_of_layers_is_followed(
    layers: list[tuple[Any, ...]], shape: tuple[int, int], window: tuple[int, int], stride: int
) -> None:
    torch.manual_seed(2)
    x, baseline = torch.randn(2, 2, 2, *shape, dtype=torch.float64)
    model = nn.Sequential(*(_layer(*layer) for layer in layers)).double().eval()
    weights = torch.randn(2, 40, 40, dtype=torch.float64)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            y = self.model(x)
            return (y * weights[:, : y.shape[2], : y.shape[3]]).sum((1, 2, 3))

    with torch.no_grad():
        try:
            v = games.game(
                attrib.target(Model()), x, baseline, groups=games.windows(window, stride)
            )
        except RuntimeError:
            return  # nothing left of the image
        found, expected = incremental(v)(left_out(v)), v(left_out(v))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", range(6))
@given(
    kernel=SIZES, stride=SIZES, dilation=st.integers(1, 2), padding=st.integers(0, 2), size=SIZES
)
def test_what_a_span_reaches_is_what_depends_on_it(
    start: int, kernel: int, stride: int, dilation: int, padding: int, size: int
) -> None:
    length = 9
    outputs = (length + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
    changed = range(start, start + size)
    uses = [{j * stride - padding + m * dilation for m in range(kernel)} for j in range(outputs)]
    # The outputs with an input anywhere from the first to the last position of the kernel.
    depends = [j for j, used in enumerate(uses) if used & set(changed)]
    spans = Spans(np.array([start]), np.array([start + size]))
    found = reached(spans, Slide(kernel, stride, dilation, padding, outputs))
    between = range(int(found.start[0]), int(found.stop[0]))
    assert set(depends) <= set(between)
    if dilation == 1:
        assert depends == list(between)
    slide = Slide(kernel, stride, dilation, padding, 1)
    box = needed(Boxes(found.start, max(1, len(between))), slide)
    wanted = range(int(box.start[0]), int(box.start[0]) + box.size)
    assert all(uses[j] <= set(wanted) for j in between)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("fault", ["needed", "reached", "cut"])
def test_a_patch_in_the_wrong_place_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(boxes: Boxes, slide: Slide) -> Boxes:
        right = needed(boxes, slide)
        return Boxes(right.start + 1, right.size)

    def short(spans: Spans, slide: Slide) -> Spans:
        right = reached(spans, slide)
        return Spans(right.start, np.maximum(right.stop - 1, right.start))

    def filled(*args: Any, fill: float, **options: Any) -> Tensor:
        return cut(*args, fill=fill + 1, **options)

    cut: Any = followed.cut  # pyright: ignore[reportPrivateImportUsage]
    wrong = {"needed": shifted, "reached": short, "cut": filled}[fault]
    monkeypatch.setattr(followed, fault, wrong)
    model = ready(FOLLOWED["sequential"])
    with torch.no_grad():
        v = games.game(attrib.target(model, 1), X, BASELINE, groups=games.windows((3, 3), 2))
        found, expected = incremental(v)(left_out(v)), v(left_out(v))
    assert (found - expected).abs().max() > 1e-4


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = conv(2, 3, padding=1), conv(2, 3, padding=1), head()

    def forward(self, left: Tensor, right: Tensor, scale: Tensor | None = None) -> Tensor:
        y = self.first(left).relu() + self.second(right).relu()
        return self.last(y if scale is None else y * scale)


class _Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(30, 6), nn.Parameter(torch.randn(20, 6))
        self.slide, self.last = nn.Conv1d(6, 5, 3, padding=1), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        y = self.embedding(ids) + self.place[: ids.shape[1]]
        return self.last(self.slide(y.transpose(1, 2)).relu().amax(-1))


SEGMENTS = torch.arange(13)[:, None] // 4 * 3 + torch.arange(12) // 4
SEGMENTS[0, 0] = -1
SIGNAL, VOLUME = torch.randn(3, 3, 40).double(), torch.randn(2, 1, 8, 9, 6).double()
IDS = torch.randint(1, 30, (3, 20))
BOTH = {"left": X, "right": BASELINE}
SCALED = {**BOTH, "scale": torch.rand(2, 1, 13, 12).double()}
ROWS = torch.randn(5, *SHAPE).double()


def _one_dimensional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(3, 4, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(4, 4, 3, dilation=2), nn.ReLU(), nn.AvgPool1d(3, 2), head()),
    )


def _three_dimensional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(3, 3, 2)),
        *(nn.ReLU(), head()),
    )


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any, Any]] = {
    "entries": (FOLLOWED["residual"], X, BASELINE, None),
    "entries of one example": (FOLLOWED["dense"], X[:1], 0.5, None),
    "patches": (FOLLOWED["residual"], X, BASELINE, games.patches(X, (3, 3))),
    "segments": (FOLLOWED["inception"], X, 0, games.superpixels(SEGMENTS)),
    "segments of each example": (
        *(FOLLOWED["sequential"], X, 0),
        torch.stack([SEGMENTS, SEGMENTS.roll(1, 1)])[:, None],
    ),
    "channels apart": (
        *(FOLLOWED["residual"], X, 0),
        torch.arange(2)[:, None, None] * 20 + SEGMENTS.clamp_min(0),
    ),
    "baseline of a channel": (
        FOLLOWED["sequential"], X, torch.randn(2, 1, 1).double(), games.windows((3, 3), 2)
    ),
    "signal": (_one_dimensional, SIGNAL, 0, games.windows((3,), 2)),
    "volume": (_three_dimensional, VOLUME, 0, games.windows((2, 3, 2), 2)),
    "slabs": (_three_dimensional, VOLUME, 0, games.windows((2, 6), 1)),
    "tokens": (_Tokens, IDS, 0, games.tokens(IDS)),
    "two images": (_Pair, BOTH, 0, games.windows({"left": (3, 3), "right": (2, 4)}, 3)),
    "one of two images": (_Pair, BOTH, 0, games.windows({"left": (3, 3), "right": None}, 2)),
    "tied images": (_Pair, BOTH, 0, {"left": SEGMENTS, "right": SEGMENTS}),
    "with a mask": (_Pair, SCALED, 0, {"left": SEGMENTS, "right": SEGMENTS, "scale": None}),
}  # fmt: skip


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_input_and_group_is_followed(name: str) -> None:
    make, x, baseline, groups = CASES[name]
    model = ready(make, x)
    with torch.no_grad():
        compare(games.game(attrib.target(model, 1), x, baseline, groups=groups))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("chunk_size", [2, 3, 7, None, "auto"])
def test_chunks_and_sets_of_baselines_change_nothing(chunk_size: Any) -> None:
    model = ready(FOLLOWED["residual"])
    f = attrib.target(model, torch.tensor([0, 2]))  # a target of each example
    groups = games.windows((3, 3), 3)
    with torch.no_grad():
        for interventional, baseline in ((False, BASELINE), (True, ROWS)):
            v = games.game(
                *(f, X, baseline),
                groups=groups,
                interventional=interventional,
                chunk_size=chunk_size,
            )
            compare(v)


@pytest.mark.usefixtures("eager")
def test_a_window_that_changes_nothing_gets_exactly_zero() -> None:
    model = ready(FOLLOWED["residual"])
    baseline = BASELINE.clone()
    baseline[..., :6] = X[..., :6]
    with torch.no_grad():
        v = games.game(attrib.target(model, 1), X, baseline, groups=games.patches(X, (3, 3)))
        found = incremental(v)(left_out(v))
    same = torch.arange(v.players) % 4 < 2
    assert torch.equal(found[1:][same], found[:1].expand(int(same.sum()), -1))
    assert (found[1:][~same] != found[0]).all()


@pytest.mark.usefixtures("eager")
def test_gradients_are_those_of_the_plain_evaluation() -> None:
    model = ready(FOLLOWED["residual"])
    x = X.clone().requires_grad_()
    v = games.game(attrib.target(model, 1), x, BASELINE, groups=games.patches(X, (3, 3)))
    coalitions = left_out(v)
    weights = torch.randn(len(coalitions), 2, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((game(coalitions) * weights).sum(), [x, *model.parameters()])
        for game in (incremental(v), v)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def _perceptron(features: int, *before: nn.Module) -> nn.Module:
    return nn.Sequential(*before, nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 3))


TABLE = torch.randn(4, 30).double()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("groups", [None, torch.arange(30) // 2, torch.arange(30) % 10])
def test_a_feature_is_taken_away_from_a_linear_layer(groups: Any, dtype: torch.dtype) -> None:
    model = ready(lambda: _perceptron(30), TABLE).to(dtype)
    x, baseline = TABLE.to(dtype), torch.rand(4, 30).to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    with torch.no_grad():
        compare(
            games.game(attrib.target(model, 1), x, baseline, groups=groups), tolerance=tolerance
        )


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("chunk_size", [1, 4, 7])
@pytest.mark.parametrize("model", [nn.Linear(30, 3), _perceptron(30)])
def test_chunks_of_a_linear_layer_leave_each_other_alone(model: nn.Module, chunk_size: int) -> None:
    f = attrib.target(model.double().eval(), 1)
    v = games.game(f, TABLE, 0.5, chunk_size=chunk_size)
    coalitions, parameters = left_out(v), list(model.parameters())
    with torch.no_grad():
        compare(v)
    found, expected = (
        torch.autograd.grad(game(coalitions).square().sum(), parameters)
        for game in (incremental(v), v)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("eager")
def test_pixels_are_taken_away_behind_a_flatten() -> None:
    x = torch.randn(3, 1, 5, 6).double()
    model = ready(lambda: _perceptron(30, nn.Flatten()), x)
    with torch.no_grad():
        compare(games.game(attrib.target(model, 1), x, 0.5))


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore::attrib.NonFiniteWarning")
@pytest.mark.parametrize("size", [1e9, torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_feature_that_drowns_the_others_leaves_them_their_digits(
    size: float, dtype: torch.dtype
) -> None:
    model = ready(lambda: _perceptron(30), TABLE).to(dtype)
    x = TABLE.to(dtype).clone()
    x[:, 3] = size
    with torch.no_grad():
        v = games.game(attrib.target(model, 1), x)
        found, expected = incremental(v)(left_out(v))[4], v(left_out(v))[4]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert expected.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
