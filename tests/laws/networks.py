"""Small networks with every kind of layer that matters to a gradient, and data for them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

CLASSES = 3

# A law is tried on a few networks each time, on many with --hypothesis-profile=long.
few = settings(max_examples=max(2, settings.default.max_examples // 5))


class Residual(nn.Module):
    """Two blocks around which the signal also flows unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x).tanh()
        x = x + F.gelu(self.second(x))
        return self.last(x)


class Attention(nn.Module):
    """One head over three tokens, with layer normalisation."""

    def __init__(self) -> None:
        super().__init__()
        # Smooth enough for the quadratures of the laws: no singularity close to the real line.
        self.norm = nn.LayerNorm(4, eps=1.0)
        self.qkv, self.last = nn.Linear(4, 12), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        # The fused kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            mixed = F.scaled_dot_product_attention(q, k, v)
        return self.last(x + mixed).mean(-2)


class Kind(NamedTuple):
    """A kind of network: the shape of one example, and whether it is smooth."""

    features: tuple[int, ...]
    smooth: bool


KINDS = {
    "relu": Kind((6,), smooth=False),
    "gelu": Kind((6,), smooth=True),
    "tanh": Kind((6,), smooth=True),
    "residual": Kind((6,), smooth=True),
    "conv": Kind((2, 4, 4), smooth=False),
    "smooth_conv": Kind((2, 4, 4), smooth=True),
    "attention": Kind((3, 4), smooth=True),
}
SMOOTH = [name for name, kind in KINDS.items() if kind.smooth]
# These take one example without a batch dimension as well; a convolution is followed by Flatten.
SINGLE = [name for name in KINDS if "conv" not in name]
VECTORS = [name for name, kind in KINDS.items() if len(kind.features) == 1]

kinds = st.sampled_from(list(KINDS))
single_kinds = st.sampled_from(SINGLE)
smooth_kinds = st.sampled_from(SMOOTH)
vector_kinds = st.sampled_from(VECTORS)
seeds = st.integers(0, 2**16)


def network(kind: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network in evaluation mode, of random weights large enough to be far from linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(kind)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2.0)
        for parameter in model.parameters():
            parameter.data.mul_(1.5)
    return model.eval().to(dtype)


def data(
    kind: str, seed: int = 0, dtype: torch.dtype = torch.float64, batch: tuple[int, ...] = (5,)
) -> Tensor:
    """Inputs; another seed gives baselines."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, *KINDS[kind].features)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _build(kind: str) -> nn.Module:
    activations = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
    if kind in activations:
        act = activations[kind]
        return nn.Sequential(nn.Linear(6, 8), act(), nn.Linear(8, 8), act(), nn.Linear(8, CLASSES))
    if kind == "residual":
        return Residual()
    if kind == "attention":
        return Attention()
    act = nn.GELU() if kind == "smooth_conv" else nn.ReLU(inplace=True)
    pool = nn.AvgPool2d(2) if kind == "smooth_conv" else nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        act,
        pool,
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )
