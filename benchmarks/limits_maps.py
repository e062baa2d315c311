"""Hand-written limits of class activation maps, attention rollout and patching."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import limits_rules
from benchmarks.limits_layers import Place, gradient_at, halves, laid_out
from benchmarks.models import Encoder, EncoderLayer, Workload

Call = Callable[[], Tensor]
Combine = Callable[[Tensor, Tensor], Tensor]

COMBINED: dict[str, Combine] = {
    "grad_cam": lambda a, g: _weighted(a, g.mean((2, 3))),
    "grad_cam_plus_plus": lambda a, g: _weighted(
        a, (g.relu() / (2 + g.relu() * a.sum((2, 3), keepdim=True))).sum((2, 3))
    ),
    "hires_cam": lambda a, g: (a * g).sum(1),
    "xgrad_cam": lambda a, g: _weighted(
        a,
        ((a * g).sum((2, 3)) / a.sum((2, 3))).nan_to_num(),  # of channels that are not active
    ),
    "layer_cam": lambda a, g: (a * g.relu()).sum(1),
}
"""From activations and gradients (batch, channels, height, width) to maps."""


def class_activation(
    workload: Workload, *, name: str, place: Place, layout: str = "contiguous"
) -> Call:
    """A map by gradients: the model up to the layer, then the rest, forward and backward."""
    head, tail = halves(workload.model, place)

    def call() -> Tensor:
        h = head(laid_out(workload.x, layout))
        return COMBINED[name](h, gradient_at(tail, workload.target, h))

    return call


def score_cam(workload: Workload, *, place: Place, rows: int, layout: str = "contiguous") -> Call:
    """The softmax of the scores of the input behind each channel, so many rows at once."""
    head, _ = halves(workload.model, place)
    x, model, target = workload.x, workload.model, workload.target
    together = max(1, rows // len(x))

    def call() -> Tensor:
        h = head(laid_out(x, layout))
        found: list[Tensor] = []
        for maps in h.split(together, 1):
            masks = functional.interpolate(maps, size=x.shape[2:], mode="bilinear")
            low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            masks = (masks - low) / torch.where(high > low, high - low, 1)
            shown = (masks.transpose(0, 1).unsqueeze(2) * x).flatten(0, 1)
            scores = model(laid_out(shown, layout))[:, target]
            found.append(scores.unflatten(0, (-1, len(x))).T)
        return _weighted(h, torch.cat(found, 1).softmax(1))

    return call


def ablation_cam(
    workload: Workload, *, place: Place, rows: int, layout: str = "contiguous"
) -> Call:
    """What the rest of the model loses without each channel, so many rows at once."""
    head, tail = halves(workload.model, place)
    x, target = workload.x, workload.target
    together = max(1, rows // len(x))

    def call() -> Tensor:
        h = head(laid_out(x, layout))
        found: list[Tensor] = []
        for some in torch.arange(h.shape[1]).split(together):
            kept = (torch.arange(h.shape[1]) != some.unsqueeze(1)).to(h.dtype)
            without = (kept[:, None, :, None, None] * h).flatten(0, 1)
            scores = tail(laid_out(without, layout))[:, target]
            found.append(scores.unflatten(0, (-1, len(x))).T)
        return _weighted(h, tail(h)[:, target, None] - torch.cat(found, 1))

    return call


def eigen_cam(workload: Workload, *, place: Place, layout: str = "contiguous") -> Call:
    """The first singular vector of the layer, times its singular value."""
    head, _ = halves(workload.model, place)

    def call() -> Tensor:
        h = head(laid_out(workload.x, layout))
        _, values, vectors = torch.linalg.svd(h.flatten(2), full_matrices=False)
        found = values[:, :1] * vectors[:, 0]
        # No activation is negative.
        return (found * found.sum(1, keepdim=True).sign()).unflatten(1, h.shape[2:])

    return call


def guided_grad_cam(workload: Workload, *, place: Place, layout: str = "contiguous") -> Call:
    """Guided backpropagation in a copy of the model, where Grad-CAM is positive."""
    coarse = class_activation(workload, name="grad_cam", place=place, layout=layout)
    guided = limits_rules.guided_backprop(workload, layout=layout)

    def call() -> Tensor:
        share = coarse().relu().unsqueeze(1)
        return guided() * functional.interpolate(share, size=workload.x.shape[2:], mode="nearest")

    return call


# --- attention ------------------------------------------------------------------------------------


def attention_rollout(workload: Workload) -> Call:
    """The model with its attention written out, and the product of the weights."""

    def call() -> Tensor:
        rolled: Tensor | None = None
        for weights in _weights(workload, recorded=False)[0]:
            both = (weights.mean(1) + torch.eye(weights.shape[-1], dtype=weights.dtype)) / 2
            rolled = both if rolled is None else both @ rolled
        assert rolled is not None
        return rolled

    return call


def gradient_rollout(workload: Workload) -> Call:
    """The same with weights times their gradients, of one backward pass."""

    def call() -> Tensor:
        layers, score = _weights(workload, recorded=True)
        gradients = torch.autograd.grad(score, layers, torch.ones_like(score))
        rolled = torch.eye(layers[0].shape[-1], dtype=score.dtype).expand(len(score), -1, -1)
        for weights, gradient in zip(layers, gradients, strict=True):
            rolled = rolled + (gradient * weights.detach()).relu().mean(1) @ rolled
        return rolled

    return call


def _weights(workload: Workload, *, recorded: bool) -> tuple[list[Tensor], Tensor]:
    """The attention weights of all layers, and the score that is computed with them."""
    model, x = workload.model, workload.x
    assert isinstance(model, Encoder)
    found: list[Tensor] = []
    with torch.set_grad_enabled(recorded):
        for layer in model.layers:
            assert isinstance(layer, EncoderLayer)
            x, weights = _attended(layer, x, recorded and not found)
            found.append(weights)
        score = model.head(torch.tanh(model.pooler(x[:, 0])))[:, workload.target]
    return found, score


def _attended(layer: EncoderLayer, x: Tensor, first: bool) -> tuple[Tensor, Tensor]:
    query, key, value = (
        part.unflatten(-1, (layer.heads, -1)).transpose(-3, -2)
        for part in layer.project(x).chunk(3, -1)
    )
    weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
    if first:  # what leads to it needs no gradient
        weights = weights.detach().requires_grad_()
    mixed = (weights @ value).transpose(-3, -2).flatten(-2)
    x = layer.norm_attention(x + layer.merge(mixed))
    return layer.norm_output(x + layer.feedforward(x)), weights


# --- patching -------------------------------------------------------------------------------------


def activation_patching(workload: Workload, *, place: Place, rows: int) -> Call:
    """The rest of the model with each position of a layer from the other run."""
    head, tail = halves(workload.model, place)
    x, target = workload.x, workload.target
    together = max(1, rows // len(x))

    def call() -> Tensor:
        clean, other = head(x), head(workload.baseline)
        positions = torch.arange(clean.shape[1])
        found: list[Tensor] = []
        for some in positions.split(together):
            here = (positions == some.unsqueeze(1))[:, None, :, None]
            patched = torch.where(here, other, clean).flatten(0, 1)
            found.append(tail(patched)[:, target].unflatten(0, (-1, len(x))).T)
        return torch.cat(found, 1) - tail(clean)[:, target, None]

    return call


def stream(model: nn.Module) -> list[str]:
    """Every layer of an encoder."""
    assert isinstance(model, Encoder)
    return [f"layers.{n}" for n in range(len(model.layers))]


def writers(model: nn.Module) -> list[str]:
    """The attentions and linear layers whose results are added to the stream."""
    return [f"{name}.{part}" for name in stream(model) for part in ("merge", "feedforward")]


def readers(model: nn.Module) -> list[str]:
    """The same parts, where they read the stream."""
    return [f"{name}.{part}" for name in stream(model) for part in ("project", "feedforward")]


def attribution_patching(workload: Workload) -> Call:
    """Hooks on two runs, and one backward pass."""
    model = copy.deepcopy(workload.model).requires_grad_(False)
    names = stream(model)

    def call() -> Tensor:
        with torch.enable_grad(), _kept(model, names, "output", recorded=True) as clean:
            score = model(workload.x)[:, workload.target]
        with torch.no_grad(), _kept(model, names, "output") as other:
            model(workload.baseline)
        gradients = torch.autograd.grad(score, clean, torch.ones_like(score))
        pairs = zip(gradients, other, clean, strict=True)
        return torch.stack([g * (b - a.detach()) for g, b, a in pairs])

    return call


def edge_attribution_patching(workload: Workload) -> Call:
    """The same for every pair, with zero for edges that lead backward."""
    model = copy.deepcopy(workload.model).requires_grad_(False)
    sources, destinations = writers(model), readers(model)
    # As modules are named in the order in which they are called.
    order = [name for name, _ in model.named_modules()]
    forward = torch.tensor(
        [[order.index(s) < order.index(d) for d in destinations] for s in sources]
    )

    def call() -> Tensor:
        with (
            torch.enable_grad(),
            _kept(model, sources, "output") as clean,
            _kept(model, destinations, "input", recorded=True) as read,
        ):
            score = model(workload.x)[:, workload.target]
        with torch.no_grad(), _kept(model, sources, "output") as other:
            model(workload.baseline)
        gradients = torch.autograd.grad(score, read, torch.ones_like(score))
        change = torch.stack(
            [(b - a.detach()).flatten(1) for a, b in zip(clean, other, strict=True)]
        )
        slope = torch.stack([gradient.flatten(1) for gradient in gradients])
        return torch.einsum("sbj, dbj -> bsd", change, slope) * forward

    return call


@contextmanager
def _kept(
    model: nn.Module, names: Sequence[str], of: str, *, recorded: bool = False
) -> Iterator[list[Tensor]]:
    """What passes some modules, in a list that is filled while the model runs."""
    found: list[Tensor] = []

    def keep(h: Tensor) -> Tensor:
        if recorded and not h.requires_grad:
            h = h.detach().requires_grad_()
        elif recorded and of == "input":
            h = h.view_as(h)  # what goes around the module does not pass here
        found.append(h)
        return h

    def after(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return keep(out)

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (keep(args[0]),)

    modules = list(map(model.get_submodule, names))
    handles = (
        [module.register_forward_hook(after) for module in modules]
        if of == "output"
        else [module.register_forward_pre_hook(before) for module in modules]
    )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _weighted(maps: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bkij, bk -> bij", maps, weights)
