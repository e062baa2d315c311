"""Models whose true attributions are known: functions in closed form, and planted features."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, reduce
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrib
from attrib.types import Score

__all__ = [
    *("FUNCTIONS", "PLANTED", "Problem", "airport", "digits", "image", "marked_digits", "table"),
    "tokens",
]

SIZE = 4096
"""How many rows of data the networks learn from."""

ROWS = 32
"""How many rows of data the attributions of networks are scored on."""


@dataclass(frozen=True)
class Problem:
    """A score, what it is explained on, and what the explanation should be.

    Attributes:
        f: Score.
        x: ``(rows, *features)``.
        baseline: ``(*features)``.
        truth: The attributions, ``(rows, *features)``; or the features that matter, boolean
            ``(rows, *places)``.
        baselines: Data to average over.
        groups: Which entries are one feature for the methods that hide features.
        players: How many features these have.
        site: The last layer with feature maps.
        places: How many dimensions the features have that are places, not channels.
    """

    f: Score
    x: Tensor
    baseline: Tensor
    truth: Tensor
    baselines: Tensor
    groups: Tensor | None = None
    players: int = 0
    site: str | None = None
    places: int = 1

    @property
    def chance(self) -> float:
        """The share of the features that matter, which a constant map finds."""
        return float(self.truth.double().mean())


def linear() -> Problem:
    """``w . x``: each feature has its own part."""
    weights, x, baseline = _normal(18, 6).split([1, 16, 1])
    truth = weights * (x - baseline)
    return _of_function(lambda x: (weights[0] * x).sum(-1), x, baseline[0], truth)


def quadratic() -> Problem:
    """``x . A x``: pairs share what they do together; integrated gradients and Shapley values."""
    matrix, x, baseline = _normal(23, 6).split([6, 16, 1])
    matrix = matrix + matrix.T
    truth = (x - baseline) * ((x + baseline) @ matrix)
    return _of_function(lambda x: ((x @ matrix) * x).sum(-1), x, baseline[0], truth)


def products() -> Problem:
    """A product of three features and one of two, which share equally; the sixth does nothing."""
    x = _normal(16, 6)
    three, two = x[:, :3].prod(-1, keepdim=True) / 3, x[:, 3:5].prod(-1, keepdim=True) / 2
    truth = torch.cat([three.expand(-1, 3), two.expand(-1, 2), torch.zeros(16, 1)], -1)
    f = lambda x: x[..., 0] * x[..., 1] * x[..., 2] + x[..., 3] * x[..., 4]
    return _of_function(f, x, torch.zeros(6, dtype=x.dtype), truth)


def largest() -> Problem:
    """The maximum of positive numbers: Shapley values of the airport game."""
    x = _normal(16, 6).abs() + 0.1
    return _of_function(lambda x: x.amax(-1), x, torch.zeros(6, dtype=x.dtype), airport(x))


def airport(costs: Tensor) -> Tensor:
    """Shapley values of a maximum: every increase is shared by those who need it.

    References:
        Littlechild & Owen (1973), https://doi.org/10.1287/mnsc.20.3.370
    """
    rising, order = costs.sort(-1)
    steps = rising.diff(dim=-1, prepend=torch.zeros_like(rising[..., :1]))
    sharing = torch.arange(costs.shape[-1], 0, -1)
    return torch.zeros_like(costs).scatter(-1, order, (steps / sharing).cumsum(-1))


def unanimity() -> Problem:
    """One if three features are all there, else zero: a score without slopes."""
    x = _normal(16, 6).abs() + 0.1
    f = lambda x: (x[..., :3] > 0).all(-1).to(x.dtype)
    truth = torch.tensor([1 / 3] * 3 + [0.0] * 3, dtype=x.dtype).expand(16, 6)
    return _of_function(f, x, torch.zeros(6, dtype=x.dtype), truth)


def gate() -> Problem:
    """The second feature if the first is positive, else the third: Shapley values."""
    x = _normal(16, 6)
    x[:, 0] = x[:, 0].abs() + 0.1
    one, other = x[:, 1], x[:, 2]
    # x1 [0 and 1 are there] + x2 [2 is there] - x2 [0 and 2 are there], three unanimity games.
    truth = torch.zeros_like(x)
    truth[:, :3] = torch.stack([(one - other) / 2, one / 2, other / 2], -1)
    f = lambda x: torch.where(x[..., 0] > 0, x[..., 1], x[..., 2])
    return _of_function(f, x, torch.zeros(6, dtype=x.dtype), truth)


def parity() -> Problem:
    """Whether the number of ones among six bits is odd: nothing but interactions."""
    bits = torch.arange(64)[:, None] >> torch.arange(6) & 1
    x = bits[(bits.sum(-1) % 2 == 1) & (bits.sum(-1) > 1)][::2].double()
    f = lambda x: (1 - reduce(operator.mul, (1 - 2 * x).unbind(-1))) / 2
    return _of_function(f, x, torch.zeros(6, dtype=x.dtype), x / x.sum(-1, keepdim=True))


def table() -> Problem:
    """A network that is connected to four of twelve columns; two more are copies of these."""
    torch.manual_seed(0)
    x = torch.randn(SIZE, 12)
    x[:, 4:6] = x[:, :2] + 0.3 * torch.randn(SIZE, 2)
    labels = ((x[:, 0] * x[:, 1] + x[:, 2].abs() - x[:, 3]) > 0.5).long()
    network = nn.Sequential(
        *(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    )
    used = torch.arange(12) < 4
    first = network[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight.mul_(used)
    first.weight.register_hook(lambda gradient: gradient * used)
    _train(network, x, labels, steps=400)
    truth = used.expand(ROWS, 12)
    f = _margin(network, labels[:ROWS])
    return Problem(f, x[:ROWS], torch.zeros(12), truth, x[64:80], players=12)


def image() -> Problem:
    """A convolutional network that tells a plus from a cross in noise, beside a ring."""
    torch.manual_seed(0)
    return _of_pictures(*_pictures(SIZE))


def digits() -> Problem:
    """A convolutional network that tells two watermarks apart, in the corners of real digits."""
    torch.manual_seed(0)
    return _of_pictures(*marked_digits(SIZE))


def tokens() -> Problem:
    """A transformer that reads from its class token which of two key words is in a sentence."""
    torch.manual_seed(0)
    words = torch.randint(3, 20, (SIZE, 9))
    labels, where = torch.randint(0, 2, (SIZE,)), torch.randint(1, 9, (SIZE,))
    words[:, 0] = 0
    words[torch.arange(SIZE), where] = 1 + labels
    network = _Reader()
    _train(network, words, labels, steps=300)
    with torch.no_grad():
        x, typical = network.embed(words[:ROWS]), network.embed(words[64:80])
    truth = torch.arange(9) == where[:ROWS, None]
    f = _margin(network.read, labels[:ROWS])
    groups = attrib.games.patches(x, (1, x.shape[-1]))
    # The mean word says nothing in particular.
    return Problem(f, x, typical.mean(0), truth, typical, groups, players=9)


FUNCTIONS: dict[str, Callable[[], Problem]] = {
    "linear": linear,
    "quadratic": quadratic,
    "products": products,
    "maximum": largest,
    "unanimity": unanimity,
    "gate": gate,
    "parity": parity,
}
"""Functions in closed form; the truth is the attribution of every feature."""

PLANTED: dict[str, Callable[[], Problem]] = {
    "table": cache(table),
    "image": cache(image),
    "digits": cache(digits),
    "tokens": cache(tokens),
}
"""Networks of which it is known what matters; the truth is where it is."""


def _of_function(f: Score, x: Tensor, baseline: Tensor, truth: Tensor) -> Problem:
    return Problem(f, x, baseline, truth, baselines=baseline[None], players=x.shape[-1])


def _of_pictures(x: Tensor, labels: Tensor, places: Tensor) -> Problem:
    """A convolutional network that learns labels of pictures, and where the reason for them is."""
    network = nn.Sequential(
        *(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(12, 2)),
    )
    _train(network, x, labels, steps=600)
    f = _margin(network, labels[:ROWS])
    groups = attrib.games.patches(x, (2, 2))
    return Problem(
        *(f, x[:ROWS], torch.zeros(1, 14, 14), places[:ROWS], x[64:80]),
        *(groups, int(groups.max()) + 1, "network.3", 2),
    )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=_generator())


class _Margins(nn.Module):
    """By how much each of two classes is ahead of the other."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return logits - logits.flip(-1)


class _Reader(nn.Module):
    """Two layers of self-attention over embedded words."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, width), nn.Embedding(9, width)
        self.read = _Layers(width)

    def embed(self, words: Tensor) -> Tensor:
        return self.words(words) + self.positions.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.read(self.embed(words))


class _Layers(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixing = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.thinking = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        for mix, norm, think in zip(self.mixing, self.norms, self.thinking, strict=True):
            q, k, v = mix(norm(x)).chunk(3, -1)
            x = x + (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
            x = x + think(x).relu()
        return self.last(x[:, 0])


def _pictures(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a plus or a cross and a ring, each in one of four quarters; and where it is."""
    sign = torch.tensor([[0, 0, 1, 0, 0]] * 2 + [[1] * 5] + [[0, 0, 1, 0, 0]] * 2)
    cross = (torch.eye(5) + torch.eye(5).flip(0)).clamp(max=1)
    ring = torch.ones(5, 5)
    ring[1:4, 1:4] = 0
    labels = torch.randint(0, 2, (count,))
    quarters = torch.rand(count, 4).argsort(-1)[:, :2]
    x, places = 0.2 * torch.randn(count, 1, 14, 14), torch.zeros(count, 14, 14, dtype=torch.bool)
    shapes = torch.stack([sign.float(), cross])
    for row in range(count):
        for quarter, shape in zip(quarters[row], (shapes[labels[row]], ring), strict=True):
            top, left = divmod(int(quarter), 2)
            rows, columns = slice(7 * top + 1, 7 * top + 6), slice(7 * left + 1, 7 * left + 6)
            x[row, 0, rows, columns] += shape
            if shape is not ring:
                places[row, rows, columns] = True
    return x, labels, places


def marked_digits(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Handwritten digits with a small plus or cross in one of the corners, whatever the digit is;
    which of the two it is, and where (needs scikit-learn)."""
    datasets: Any = import_module("sklearn.datasets")
    small = torch.from_numpy(datasets.load_digits().images).float()[:, None] / 16
    pictures = F.interpolate(small, (14, 14), mode="bilinear")[torch.randint(len(small), (count,))]
    plus = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
    labels, corners = torch.randint(0, 2, (count,)), torch.randint(0, 4, (count,))
    marks = torch.stack([plus, (torch.eye(3) + torch.eye(3).flip(0)).clamp(max=1)])[labels]
    rows, columns = 11 * (corners // 2), 11 * (corners % 2)
    inside = torch.arange(14) - rows[:, None], torch.arange(14) - columns[:, None]
    down, right = (((place >= 0) & (place < 3)) for place in inside)
    places = down[:, :, None] & right[:, None, :]
    pictures[:, 0][places] = marks.flatten()
    return pictures, labels, places


def _train(network: nn.Module, x: Tensor, labels: Tensor, steps: int) -> None:
    """Train on all but the rows that are explained, and see that it has learned."""
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, steps)
    for step in range(steps):
        at = 128 + (step * 128) % (len(x) - 256)
        loss = F.cross_entropy(network(x[at : at + 128]), labels[at : at + 128])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval().requires_grad_(False)
    right = (network(x[:128]).argmax(-1) == labels[:128]).float().mean()
    assert right >= 0.95, f"the network has not learned its task: {float(right):.2f} are right"


def _margin(network: nn.Module, labels: Tensor) -> Score:
    """By how much the right one of two classes is ahead."""
    return attrib.target(_Margins(network), labels)
