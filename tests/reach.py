"""Models whose operations windows are followed through, and what their games must give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib import games
from attrib.games._reach import incremental, recording
from attrib.games.game import Game
from zoo import Written

INCREMENTAL: Any = import_module("attrib.games._reach.incremental")
SHAPE = (2, 13, 12)

torch.manual_seed(0)
X, BASELINE = torch.randn(2, 2, *SHAPE, dtype=torch.float64)


def follow_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow whatever can be followed, be it worth it or not."""
    monkeypatch.setattr(recording, "patch_work", lambda *_: 0.0)
    monkeypatch.setattr(recording, "update_work", lambda *_: 0.0)
    for name, value in (("_FEWEST", 1), ("_LEAST", -1.0), ("_WORTH", torch.inf)):
        monkeypatch.setattr(INCREMENTAL, name, value)


def conv(inside: int, outside: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, size, **options)


def norm(channels: int) -> nn.BatchNorm2d:
    found = nn.BatchNorm2d(channels)
    for part in (found.running_mean, found.weight, found.bias):
        nn.init.normal_(part)  # pyright: ignore[reportArgumentType]
    nn.init.uniform_(found.running_var, 0.5, 2)  # pyright: ignore[reportArgumentType]
    return found


def head() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def written(function: Callable[..., Tensor], *parts: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Written(function, *(copy.deepcopy(part) for part in parts), head())


def _residual(x: Tensor, c1: Any, b1: Any, c2: Any, b2: Any, shortcut: Any, last: Any) -> Tensor:
    y = F.relu(b1(c1(x)), inplace=True)
    y = b2(c2(y))
    y += shortcut(x)
    return last(F.relu_(y))


def _dense(x: Tensor, first: Any, second: Any, third: Any, last: Any) -> Tensor:
    x = torch.cat([x, first(x).relu()], 1)
    x = torch.cat((x, second(x).relu()), dim=1)
    return last(third(x).relu())


def _inception(x: Tensor, a: Any, b: Any, c: Any, d: Any, last: Any) -> Tensor:
    return last(torch.cat([a(x), b(x), c(x), d(F.avg_pool2d(x, 3, 1, 1))], 1).relu())


def _located(x: Tensor, first: Any, last: Any) -> Tensor:
    y = first(x)
    y = y + torch.arange(y.shape[-1], dtype=y.dtype)
    y = y + torch.linspace(0, 1, y.shape[1], dtype=y.dtype, device=y.device)[:, None, None]
    return last(torch.where(y > 0, y, torch.zeros_like(y)))


def _shuffled(x: Tensor, first: Any, second: Any, last: Any) -> Tensor:
    y = first(x)
    rows, channels, height, width = y.size()
    y = y.view(rows, 2, channels // 2, height, width).transpose(1, 2).contiguous()
    return last(second(y.view(rows, -1, height, width)).relu())


def _gated(x: Tensor, first: Any, last: Any) -> Tensor:
    value, gate = first(x).chunk(2, 1)
    return last(value * torch.sigmoid(gate))


def _attended(x: Tensor, first: Any, second: Any, last: Any) -> Tensor:
    y = first(x)
    seen = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
    return last(y * torch.sigmoid(second(seen)))


def _squeezed(x: Tensor, first: Any, down: Any, up: Any, last: Any) -> Tensor:
    y = first(x)
    gate = torch.sigmoid(up(F.relu(down(y.mean((2, 3))))))
    return last(y * gate[:, :, None, None])


def _inverted(x: Tensor, stem: Any, wide: Any, scale: Any, up: Any, down: Any, last: Any) -> Tensor:
    y = stem(x)
    z = down(F.gelu(up(scale(wide(y).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
    return last(y + z)


def _framed(x: Tensor, first: Any, second: Any, last: Any) -> Tensor:
    return last(second(F.pad(first(x).relu(), (0, 1, 2, 0), value=0.5)))


def _partly_written(x: Tensor, first: Any, second: Any, last: Any) -> Tensor:
    y = first(x)
    y[:, :, 0] = 0
    return last(second(y))


def _padded_convolution(**options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(conv(2, 4, padding=1, **options), nn.ReLU(), conv(4, 4), head())


FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "sequential": lambda: nn.Sequential(
        *(conv(2, 4, padding=1), nn.ReLU(inplace=True), conv(4, 4, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), conv(4, 5, padding=1), nn.GELU(), nn.AvgPool2d(2), head()),
    ),
    "batch norm": lambda: nn.Sequential(
        *(conv(2, 4, padding=1, bias=False), norm(4), nn.ReLU(inplace=True)),
        *(conv(4, 4, stride=2, padding=1), norm(4), nn.Hardswish(inplace=True), head()),
    ),
    "residual": written(
        *(_residual, conv(2, 4, stride=2, padding=1), norm(4), conv(4, 4, padding=1), norm(4)),
        conv(2, 4, 1, stride=2),
    ),
    "dense": written(_dense, conv(2, 3, padding=1), conv(5, 3, padding=1), conv(8, 4)),
    "inception": written(
        _inception, conv(2, 3, 1), conv(2, 3, padding=1), conv(2, 2, 5, padding=2), conv(2, 2, 1)
    ),
    "dilated": lambda: nn.Sequential(
        *(conv(2, 4, dilation=2, padding=2), nn.Tanh()),
        *(conv(4, 4, dilation=3, padding=1), nn.SiLU(), head()),
    ),
    "grouped": lambda: nn.Sequential(
        *(conv(2, 4, groups=2, padding=1), nn.PReLU(4), conv(4, 4, groups=4, stride=2)),
        *(nn.ELU(), conv(4, 6, 1), head()),
    ),
    "overlapping pools": lambda: nn.Sequential(
        *(conv(2, 4, padding=1), nn.MaxPool2d(3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 1)),
        *(nn.MaxPool2d(2, dilation=2, stride=1), head()),
    ),
    "ceiling": lambda: nn.Sequential(
        conv(2, 4, padding=1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(), conv(4, 4, 2), head()
    ),
    "steps over pixels": lambda: nn.Sequential(
        conv(2, 4, 1, stride=3), nn.ReLU(), conv(4, 4, 2, stride=2), head()
    ),
    "frame": written(_framed, conv(2, 3, stride=2), conv(3, 3, 2)),
    "uneven padding": lambda: nn.Sequential(
        *(nn.ZeroPad2d((1, 2, 0, 3)), conv(2, 3), nn.ReLU(), conv(3, 3, padding="same"), head())
    ),
    "adaptive pools": lambda: nn.Sequential(
        *(nn.ZeroPad2d((0, 0, 0, 2)), conv(2, 4, padding=1), nn.AdaptiveMaxPool2d((5, 6))),
        *(nn.Tanh(), nn.AdaptiveAvgPool2d((5, 3)), head()),
    ),
    "dropout": lambda: nn.Sequential(
        conv(2, 4), nn.Dropout(), nn.ReLU(inplace=True), nn.Dropout2d(), conv(4, 4), head()
    ),
    "positions": written(_located, conv(2, 4, padding=1)),
    "shuffled channels": written(_shuffled, conv(2, 4, padding=1), conv(4, 4, groups=2)),
    "gate": written(_gated, conv(2, 4, padding=1)),
    "spatial attention": written(_attended, conv(2, 4, padding=1), conv(2, 1, padding=1)),
    "inverted": written(
        *(_inverted, conv(2, 4, 2, stride=2), conv(4, 4, groups=4, padding=1), nn.LayerNorm(4)),
        *(nn.Linear(4, 8), nn.Linear(8, 4)),
    ),
}
PARTLY: dict[str, Callable[[], nn.Module]] = {
    "reflected": _padded_convolution(padding_mode="reflect"),
    "replicated": _padded_convolution(padding_mode="replicate"),
    "circular": _padded_convolution(padding_mode="circular"),
    "even kernel": lambda: nn.Sequential(
        conv(2, 3, 1), nn.ReLU(), nn.AvgPool2d(2, 1, ceil_mode=True), head()
    ),
    "mean without padding": lambda: nn.Sequential(
        conv(2, 4), nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), nn.ReLU(), head()
    ),
    "transposed": lambda: nn.Sequential(
        conv(2, 4, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2, stride=2), nn.ReLU(), head()
    ),
    "group norm": lambda: nn.Sequential(
        conv(2, 4, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), conv(4, 4), head()
    ),
    "instance norm": lambda: nn.Sequential(
        conv(2, 4, padding=1), nn.InstanceNorm2d(4), nn.ReLU(), conv(4, 4), head()
    ),
    "pool of uneven parts": lambda: nn.Sequential(
        conv(2, 4, padding=1), nn.AdaptiveAvgPool2d((5, 5)), conv(4, 4, 2), head()
    ),
    "squeeze": written(_squeezed, conv(2, 4, padding=1), nn.Linear(4, 2), nn.Linear(2, 4)),
    "partly written": written(_partly_written, conv(2, 4), conv(4, 4)),
}


def ready(make: Callable[[], nn.Module], x: Any = X) -> nn.Module:
    """A model in eval mode, its lazy layers made."""
    torch.manual_seed(1)
    model = make().to(torch.float64)
    with torch.no_grad():
        model(**x) if isinstance(x, dict) else model(x)
    return model.eval()


def left_out(v: Game) -> Tensor:
    """Everybody, then everybody but one."""
    one = ~torch.eye(v.players, dtype=torch.bool)
    return torch.cat([torch.ones(1, v.players, dtype=torch.bool), one])


def compare(v: Game, *, tolerance: float = 1e-12) -> None:
    """The game is followed, and its values are those of the plain one."""
    quicker = incremental(v)
    assert quicker is not v
    coalitions = left_out(v)
    failed = v.evaluate

    def refuse(*_: Any) -> Tensor:
        raise AssertionError("evaluated as if nothing were known")

    object.__setattr__(v, "evaluate", refuse)
    found = quicker(coalitions)
    object.__setattr__(v, "evaluate", failed)
    expected = v(coalitions)
    size = (expected - v.full).abs().max()
    assert size > 1e-4  # hiding changes something
    assert (found - expected).abs().max() <= tolerance * max(size, expected.abs().max())


def game_of(model: nn.Module, groups: Any = None, **options: Any) -> Game:
    """The game of hiding windows of the input."""
    groups = games.windows((3, 3), 2) if groups is None else groups
    return games.game(attrib.target(model, 1), X, BASELINE, groups=groups, **options)
