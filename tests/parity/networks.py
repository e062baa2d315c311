"""Small networks of the usual kinds, in float64 so that agreement means agreement."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Build = Callable[[], tuple[nn.Module, Tensor]]


class ToyModel(nn.Module):
    """The published example: its numbers were computed by Captum long before attrib existed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)
        with torch.no_grad():
            self.first.weight.copy_(torch.arange(-4.0, 5.0).view(3, 3))
            self.first.bias.zero_()
            self.second.weight.copy_(torch.arange(-3.0, 3.0).view(2, 3))
            self.second.bias.fill_(1.0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Encoder(nn.Module):
    """Attention over five positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Pair(nn.Module):
    """Two inputs that interact."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor, scale: Tensor | None = None) -> Tensor:
        out = self.out(self.a(a).tanh() * self.b(b).tanh())
        return out if scale is None else out * scale


def mlp() -> tuple[nn.Module, Tensor]:
    """Features of a table."""
    torch.manual_seed(3)
    layers = nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 4)
    return nn.Sequential(*layers).double().eval(), torch.randn(5, 6, dtype=torch.float64)


def cnn() -> tuple[nn.Module, Tensor]:
    """A small image."""
    torch.manual_seed(4)
    first = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    second = nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    model = nn.Sequential(*first, *second).double()
    with torch.no_grad():
        model(torch.randn(16, 2, 10, 10, dtype=torch.float64))
    return model.eval(), torch.randn(3, 2, 10, 10, dtype=torch.float64)


def transformer() -> tuple[nn.Module, Tensor]:
    """Embedded tokens."""
    torch.manual_seed(5)
    return Encoder().double().eval(), torch.randn(3, 5, 8, dtype=torch.float64)


def pair() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Two tensors of different width."""
    torch.manual_seed(6)
    inputs = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    return Pair().double().eval(), inputs


NETWORKS: dict[str, Build] = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
