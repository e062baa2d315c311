"""Small networks of many kinds and spellings, for methods that follow a model op by op."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 3
VECTOR, IMAGE, SEQUENCE = (6,), (3, 12, 12), (5, 4)


class Written(nn.Module):
    """A network written as a function of its parts."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def _linear(inside: int = 6, outside: int = 6) -> nn.Linear:
    return nn.Linear(inside, outside)


def _last(inside: int = 6) -> nn.Linear:
    return nn.Linear(inside, CLASSES)


def _conv(inside: int = 3, outside: int = 4) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1)


def _activations(*activations: nn.Module) -> nn.Module:
    pairs = [module for act in activations for module in (_linear(), act)]
    model = nn.Sequential(*pairs, _last())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that all parts of a function are visited
    return model


def _smooth() -> nn.Module:
    first = nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(), nn.Tanh()
    return _activations(*first, nn.Softsign(), nn.LogSigmoid(), nn.Tanhshrink())


def _bent() -> nn.Module:
    first = nn.PReLU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.LeakyReLU(), nn.ReLU6()
    hard = nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.Softshrink(0.1), nn.Threshold(0, 1)
    return _activations(*first, *hard)


def _vgg() -> nn.Module:
    first = _conv(), nn.ReLU(), nn.MaxPool2d(2), _conv(4, 5), nn.ReLU(), _conv(5, 5), nn.ReLU()
    return nn.Sequential(*first, nn.MaxPool2d(2), nn.Flatten(), _linear(45), nn.ReLU(), _last())


def _overlapping() -> nn.Module:
    pools = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), nn.AdaptiveMaxPool2d((2, 3))
    return nn.Sequential(_conv(), pools[0], nn.ReLU(), pools[1], nn.Flatten(), _last(24))


def _dilated() -> nn.Module:
    pool = nn.MaxPool2d((3, 2), (1, 2), padding=1, dilation=(2, 1))
    return nn.Sequential(_conv(), nn.Tanh(), pool, nn.Flatten(), _last(4 * 10 * 7))


def _sequences(x: Tensor, conv: nn.Module, last: nn.Module) -> Tensor:
    found, _ = F.max_pool1d(F.relu(conv(x)), 3, 1, return_indices=True)
    return last(F.adaptive_max_pool1d(found, 2).flatten(1))


def _volumes(x: Tensor, conv: nn.Module, last: nn.Module) -> Tensor:
    volume = conv(x.unflatten(-1, (3, 4)).unsqueeze(1))
    pooled = F.max_pool3d(F.relu(volume), 2, 1, padding=1)
    return last(F.adaptive_max_pool3d(pooled, (1, 2, 2)).flatten(1))


def _residual(x: Tensor, first: nn.Module, norm: nn.Module, conv: nn.Module, last: nn.Module):
    h = norm(first(x)).relu_()
    h = h + F.relu(norm(conv(h)), inplace=True)
    return last(F.relu_(h).mean((-1, -2)))


def _reused(x: Tensor, first: nn.Module, relu: nn.Module, last: nn.Module) -> Tensor:
    return last(relu(first(relu(first(x)))) + relu(-x))


def _overwritten(x: Tensor, first: nn.Module, last: nn.Module) -> Tensor:
    h = first(x)
    raised = torch.relu(h)
    h += 1  # what the rectifier was given is no longer there
    bounded = torch.tanh(h)
    h[:, :2] = bounded[:, :2]
    h[:, 3:].mul_(2)
    parts = torch.zeros_like(h)
    parts[:, :3] = h[:, 1:4]
    return last(raised * 2 - torch.sigmoid(h) + torch.relu(parts))


def _gated(x: Tensor, first: nn.Module, last: nn.Module) -> Tensor:
    gate = torch.sigmoid(first(x)) / (1 + x.mean(-1, keepdim=True).abs())
    return last(first(x) * gate + F.glu(torch.cat([x, gate], -1)))


def _causal(x: Tensor, first: nn.Module, last: nn.Module) -> Tensor:
    query, key, value = first(x).chunk(3, -1)
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    mask = torch.tensor([True, True, True, False, False])
    mixed = mixed + F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return last(mixed).mean(1)


def _padded(x: Tensor, layer: nn.Module, last: nn.Module) -> Tensor:
    padding = torch.tensor([[False, False, False, True, True]]).expand(len(x), 5)
    return last(layer(x, src_key_padding_mask=padding)).mean(1)


def _encoder(*, norm_first: bool, activation: str) -> nn.Module:
    return nn.TransformerEncoderLayer(
        4, 2, 8, batch_first=True, norm_first=norm_first, activation=activation
    )


def _extremes(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    a, b = first(x), second(x)
    least = torch.min(a, dim=-1, keepdim=True).values + b.amin((-1,), keepdim=True)
    return torch.maximum(a, b).amax(-1, keepdim=True) + least * torch.ones_like(x[:, :CLASSES])


def _standardized(x: Tensor, last: nn.Module) -> Tensor:
    return last((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 0.1))


def _elementary(x: Tensor, last: nn.Module) -> Tensor:
    roots = (x.abs() + 0.1).log() + 1 / (2 + x.abs()) + torch.exp(-x).clamp(max=1.5)
    return last(x**2 + 2**x + roots)


def _log_sum(x: Tensor, first: nn.Module) -> Tensor:
    return torch.logsumexp(first(x), -1, keepdim=True).expand(-1, CLASSES)


ZOO: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "relu": (VECTOR, lambda: nn.Sequential(_linear(), nn.ReLU(), _linear(), nn.ReLU(), _last())),
    "smooth": (VECTOR, _smooth),
    "bent": (VECTOR, _bent),
    "softmax": (VECTOR, lambda: nn.Sequential(_linear(), nn.ReLU(), _last(), nn.Softmax(-1))),
    "log_softmax": (VECTOR, lambda: nn.Sequential(_linear(), nn.ReLU(), _last(), nn.LogSoftmax(1))),
    "vgg": (IMAGE, _vgg),
    "overlapping pools": (IMAGE, _overlapping),
    "dilated pool": (IMAGE, _dilated),
    "pool of sequences": (
        (2, 9),
        lambda: Written(_sequences, nn.Conv1d(2, 3, 3, padding=1), _last(6)),
    ),
    "pool of volumes": ((2, 12), lambda: Written(_volumes, nn.Conv3d(1, 2, (1, 2, 2)), _last(8))),
    "residual": (
        IMAGE,
        lambda: Written(_residual, _conv(), nn.BatchNorm2d(4), _conv(4, 4), _last(4)),
    ),
    "reused": (VECTOR, lambda: Written(_reused, _linear(), nn.ReLU(inplace=True), _last())),
    "overwritten": (VECTOR, lambda: Written(_overwritten, _linear(), _last())),
    "gates": (VECTOR, lambda: Written(_gated, _linear(), _last())),
    "layer norm": (VECTOR, lambda: nn.Sequential(_linear(), nn.LayerNorm(6), nn.ReLU(), _last())),
    "rms norm": (VECTOR, lambda: nn.Sequential(_linear(), nn.RMSNorm(6), nn.GELU(), _last())),
    "group norm": (
        IMAGE,
        lambda: nn.Sequential(_conv(), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), _last(576)),
    ),
    "attention": (SEQUENCE, lambda: Written(_causal, _linear(4, 12), _last(4))),
    "encoder": (
        SEQUENCE,
        lambda: Written(
            lambda x, layer, last: last(layer(x)).mean(1),
            _encoder(norm_first=False, activation="relu"),
            _last(4),
        ),
    ),
    "padded encoder": (
        SEQUENCE,
        lambda: Written(_padded, _encoder(norm_first=True, activation="gelu"), _last(4)),
    ),
    "extremes": (VECTOR, lambda: Written(_extremes, _linear(), _linear())),
    "standardized": (VECTOR, lambda: Written(_standardized, _last())),
    "elementary": (VECTOR, lambda: Written(_elementary, _last())),
    "log_sum": (VECTOR, lambda: Written(_log_sum, _linear())),
}


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in evaluation mode, four inputs, and as many baselines."""
    shape, make = ZOO[name]
    torch.manual_seed(7)
    model = make().to(dtype).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight)
    x, baseline = torch.randn(2, 4, *shape, dtype=torch.float64).to(dtype)
    return model, x, baseline


def close(found: Tensor, expected: Tensor, tolerance: float, scale: Tensor | None = None) -> None:
    """Equal up to a share of the largest number."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    size = (expected if scale is None else scale).detach().abs().max()
    assert float((found - expected).detach().abs().max()) <= tolerance * float(size)


def data(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
