"""Windows followed through random networks: the same values as evaluating everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib import games
from attrib.games._reach import incremental
from attrib.games.ablation import all_but_one
from attrib.games.game import Game
from reach import follow_always

CHANNELS = 3
KINDS = ["conv", "depthwise", "max", "mean", "adaptive", "act", "frame"]
KINDS += ["residual", "dense", "squeeze", "reused", "attention"]


class Layer(NamedTuple):
    """One part of a random network, which keeps the number of channels."""

    kind: str
    kernel: int
    stride: int
    dilation: int
    padding: int
    mode: str


LAYERS = st.lists(
    st.builds(
        Layer,
        kind=st.sampled_from(KINDS),
        kernel=st.integers(1, 3),
        stride=st.integers(1, 2),
        dilation=st.integers(1, 2),
        padding=st.integers(0, 2),
        mode=st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    follow_always(monkeypatch)


class Network(nn.Module):
    """Parts one behind another, then a linear map of what is left."""

    def __init__(self, layers: list[Layer], dims: int) -> None:
        super().__init__()
        self.dims = dims
        self.layers = layers
        self.parts = nn.ModuleList([self._part(layer) for layer in layers])
        self.norm = _like(nn.BatchNorm1d, dims)(CHANNELS)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)
        self.same = _like(nn.Conv1d, dims)(CHANNELS, CHANNELS, 3, padding=1)
        self.last = nn.LazyLinear(2)

    def _part(self, layer: Layer) -> nn.Module:
        kernel, stride, dilation = layer.kernel, layer.stride, layer.dilation
        inside = min(layer.padding, kernel // 2)
        if layer.kind in ("conv", "depthwise", "dense"):
            groups = CHANNELS if layer.kind == "depthwise" else 1
            still = layer.kind == "dense"
            return _like(nn.Conv1d, self.dims)(
                *(CHANNELS, CHANNELS, 3 if still else kernel, 1 if still else stride),
                *(1 if still else layer.padding, 1 if still else dilation, groups),
                padding_mode=layer.mode,
            )
        if layer.kind == "max":
            return _like(nn.MaxPool1d, self.dims)(kernel, stride, inside, ceil_mode=stride == 2)
        if layer.kind == "mean":
            return _like(nn.AvgPool1d, self.dims)(
                kernel, stride, inside, count_include_pad=layer.padding != 1
            )
        if layer.kind == "adaptive":
            return _like(nn.AdaptiveAvgPool1d, self.dims)(kernel + 1)
        return nn.Sequential(_like(nn.Conv1d, self.dims)(CHANNELS, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        for layer, part in zip(self.layers, self.parts, strict=True):
            x = self._through(layer, part, x)
        return self.last(torch.flatten(x, 1))

    def _through(self, layer: Layer, part: Any, x: Tensor) -> Tensor:
        if layer.kind == "act":
            return F.relu(x, inplace=True) if layer.stride == 1 else F.silu(x)
        if layer.kind == "frame":
            return F.pad(x, (layer.padding, 1) * self.dims, value=0.25)
        if layer.kind == "residual":
            y = self.norm(self.same(x))
            y += x
            return y.mul_(0.5).tanh()
        if layer.kind == "dense":
            both = torch.cat([x.relu(), part(x)], 1)
            return both[:, ::2] if layer.stride == 1 else both[:, :CHANNELS] + both[:, CHANNELS:]
        if layer.kind == "attention":
            return x + _attended(x, x, x)
        if layer.kind == "squeeze":
            return x * part(x) if layer.stride == 1 else x * x.mean((-1,), keepdim=True)
        return self.same(self.norm(x)) if layer.kind == "reused" else part(x)


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every pixel sees all pixels."""
    q, k, v = (part.flatten(2).mT for part in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).mT.reshape(value.shape)


def _like(kind: Any, dims: int) -> Any:
    return getattr(nn, kind.__name__[:-2] + f"{dims}d")


@pytest.mark.usefixtures("eager")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=LAYERS,
    shape=st.lists(st.integers(4, 8), min_size=1, max_size=3),
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    examples=st.integers(1, 3),
    target=st.sampled_from([0, "each"]),
    chunk_size=st.sampled_from([3, "auto", None]),
)
def test_any_network_is_as_if_everything_were_evaluated(
    layers: list[Layer],
    shape: list[int],
    window: int,
    stride: int,
    examples: int,
    target: Any,
    chunk_size: Any,
) -> None:
    torch.manual_seed(2)
    x, baseline = torch.randn(2, examples, CHANNELS, *shape, dtype=torch.float64)
    model = Network(layers, len(shape)).double().eval()
    index = target if target == 0 else torch.arange(examples) % 2
    groups = games.windows((window,) * len(shape), stride)
    with torch.no_grad():
        try:
            model(x)
        except RuntimeError:
            return  # nothing left of the image, or a frame wider than it
        f = attrib.target(model, index)
        v = games.game(f, x, baseline, groups=groups, chunk_size=chunk_size)
        found, expected = (_values(game) for game in (incremental(v), v))
    size = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-12 * size


def _values(v: Game) -> Tensor:
    """Of everybody, and of everybody but one."""
    return torch.cat([values for _, values in v.over(all_but_one(v.players, v.device))])


class _Heads(nn.Module):
    """Multi-head attention over all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).mT
        return self.heads(pixels, pixels, pixels, need_weights=False)[0].mT.reshape(x.shape)


class _Scaled(nn.Module):
    """The same by the function, of one head."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Conv2d(32, 96, 1)

    def forward(self, x: Tensor) -> Tensor:
        return _attended(*self.parts(x).chunk(3, 1))


@pytest.mark.parametrize(
    ("mix", "followed"), [(_Heads, False), (_Scaled, False), (nn.Identity, True)]
)
def test_what_sees_all_pixels_is_evaluated_plainly(
    mix: Callable[[], nn.Module], followed: bool
) -> None:
    torch.manual_seed(3)
    first = (nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), mix(), nn.Conv2d(32, 32, 3, padding=1))
    model = nn.Sequential(*first, nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(2048, 2))
    with torch.no_grad():
        x = torch.randn(1, 3, 32, 32)
        v = games.game(attrib.target(model.eval(), 1), x, groups=games.windows((4, 4), 4))
        assert (incremental(v) is not v) == followed
