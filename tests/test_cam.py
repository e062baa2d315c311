"""Class activation maps against their formulas, written out channel by channel."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import attrib
from attrib import cam
from derivatives import check_derivatives, relative
from laws.state import changes, snapshot

EXACT = 1e-12
COUNT, CHANNELS = 3, 5

# Forward mode and some operations of torch, about themselves.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Net(nn.Module):
    """A layer with feature maps in one, two or three dimensions, and something curved behind it."""

    def __init__(self, dims: int = 2, smooth: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        pool = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1]
        self.front = nn.Sequential(conv(2, 4, 3, padding=1), self.act(smooth), pool(2))
        self.maps = nn.Sequential(conv(4, CHANNELS, 3, padding=1), self.act(smooth))
        places = math.prod(size // 2 for size in sizes(dims))
        first, last = nn.Linear(CHANNELS * places, 6), nn.Linear(6, 4)
        self.head = nn.Sequential(nn.Flatten(-dims - 1), first, nn.Tanh(), last)
        with torch.no_grad():
            self.maps[0].bias += 0.5  # no channel is dead
            last.weight[1:3] = last.weight[1:3].abs()
            first.weight.add_(0.02)  # so that the maps of these classes are positive somewhere

    @staticmethod
    def act(smooth: bool) -> nn.Module:
        return nn.Softplus() if smooth else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(self.front(x)))

    def site(self, x: Tensor) -> Tensor:
        """The feature maps, without attrib."""
        return self.maps(self.front(x))


def sizes(dims: int) -> tuple[int, ...]:
    return (8, 6, 4)[:dims]


def net(dims: int = 2, smooth: bool = False) -> Net:
    return Net(dims, smooth).double().eval()


def images(dims: int = 2, count: int = COUNT) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 2, *sizes(dims), dtype=torch.float64)


class Tokens(nn.Module):
    """A transformer over a class token and six patches, which stand in two rows of three."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (
            nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, activation="gelu")
            for _ in range(2)
        )
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unfold(-2, 2, 2).unfold(-2, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 6, 8)
        h = torch.cat([self.token.expand(len(patches), -1, -1), patches], 1)
        return self.head(self.second(self.first(h))[:, 0])


def tokens() -> tuple[Tokens, Tensor]:
    torch.manual_seed(1)
    return Tokens().double().eval(), torch.randn(COUNT, 2, 4, 6, dtype=torch.float64)


def grid(h: Tensor) -> Tensor:
    """Feature maps of the patches, without the class token."""
    return h[:, 1:].transpose(1, 2).unflatten(2, (2, 3))


GRADIENTS = {
    "grad_cam": cam.grad_cam,
    "grad_cam_plus_plus": cam.grad_cam_plus_plus,
    "hires_cam": cam.hires_cam,
    "xgrad_cam": cam.xgrad_cam,
    "layer_cam": cam.layer_cam,
}
MAPS: dict[str, Callable[..., Any]] = {
    **GRADIENTS,
    "score_cam": cam.score_cam,
    "score_cam increases": partial(cam.score_cam, softmax=False),
    "ablation_cam": cam.ablation_cam,
    "eigen_cam": cam.eigen_cam,
}
ALL = {**MAPS, "guided_grad_cam": cam.guided_grad_cam}
gradients = pytest.mark.parametrize("name", GRADIENTS)
maps = pytest.mark.parametrize("name", MAPS)
methods = pytest.mark.parametrize("name", ALL)
dimensions = pytest.mark.parametrize("dims", [1, 2, 3])


def close(found: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert expected.abs().max() > 0
    assert relative(found, expected) <= tolerance


# --- formulas -----------------------------------------------------------------------------------


def activation_and_gradient(model: Net, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """By plain autograd, on the two halves of the network."""
    a = model.site(x).detach().requires_grad_()
    (g,) = torch.autograd.grad(model.head(a)[:, index].sum(), a)
    return a.detach(), g


def written_out(name: str, a: Tensor, g: Tensor) -> Tensor:
    """One example, channel by channel."""
    cam = torch.zeros_like(a[0])
    for activation, gradient in zip(a, g, strict=True):
        places = activation.numel()
        if name == "grad_cam":
            cam += gradient.sum() / places * activation
        elif name == "grad_cam_plus_plus":
            # Equation 19 of the paper, with the derivatives of exp(f) less their factor exp(f).
            second, third = gradient**2, gradient**3
            alpha = second / (2 * second + activation.sum() * third)
            cam += (alpha * gradient.clamp(min=0)).sum() * activation
        elif name == "hires_cam":
            cam += gradient * activation
        elif name == "xgrad_cam":
            cam += (activation / activation.sum() * gradient).sum() * activation
        elif name == "layer_cam":
            cam += gradient.clamp(min=0) * activation
    return cam


@gradients
@dimensions
def test_a_map_is_its_formula(name: str, dims: int) -> None:
    model, x = net(dims), images(dims)
    a, g = activation_and_gradient(model, x, 1)
    expected = torch.stack([written_out(name, *pair) for pair in zip(a, g, strict=True)])
    close(GRADIENTS[name](attrib.target(model, 1), "maps")(x).detach(), expected)
    assert expected.shape == (COUNT, *(size // 2 for size in sizes(dims)))


def test_grad_cam_of_a_mean_and_a_linear_layer_is_the_class_activation_map() -> None:
    """Zhou et al. (2016), https://arxiv.org/abs/1512.04150, over the number of places."""
    torch.manual_seed(0)
    last = nn.Linear(4, 3).double()
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    x = torch.randn(COUNT, 4, 5, 7, dtype=torch.float64)
    expected = torch.einsum("c,bchw->bhw", last.weight[2], x) / 35
    f = attrib.target(model, 2)
    close(cam.grad_cam(f, "0")(x), expected)
    # A mean takes its gradient alike from all places.
    close(cam.hires_cam(f, "0")(x), expected)
    close(cam.xgrad_cam(f, "0")(x), expected)
    close(
        cam.ablation_cam(f, "0")(x),
        torch.einsum("bc,bchw->bhw", last.weight[2] * x.mean((2, 3)), x),
    )


@pytest.mark.parametrize("method", [cam.hires_cam, cam.xgrad_cam])
def test_a_map_adds_up_to_a_linear_score(method: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    last = nn.Linear(CHANNELS * 12, 3).double()
    model = nn.Sequential(net().front, net().maps, nn.Flatten(), last)
    x = images()
    found = method(attrib.target(model, 0), "1")(x).sum((1, 2))
    close(found, attrib.target(model, 0)(x) - last.bias[0])


def test_grad_cam_plus_plus_has_the_weights_that_derivatives_of_the_exponential_give() -> None:
    torch.manual_seed(0)
    a = torch.rand(4, 6, dtype=torch.float64)
    slope = torch.randn(4, 6, dtype=torch.float64)

    def score(h: Tensor) -> Tensor:
        return (slope * h).sum((-1, -2)) + 0.3

    def derivatives(order: int) -> Tensor:
        """Of exp(f), by every entry as often as the order says."""
        found = torch.zeros_like(a)
        for k in range(4):
            for p in range(6):

                def along(t: Tensor, k: int = k, p: int = p) -> Tensor:
                    return score(a + t * F.one_hot(torch.tensor(6 * k + p), 24).view(4, 6)).exp()

                for _ in range(order):
                    along = torch.func.grad(along)
                found[k, p] = along(torch.zeros((), dtype=torch.float64))
        return found

    first, second, third = map(derivatives, (1, 2, 3))
    alpha = second / (2 * second + a.sum(1, keepdim=True) * third)
    weights = (alpha * first.relu()).sum(1)
    f = lambda x: score(attrib.tap("maps", x))
    found = cam.grad_cam_plus_plus(f, "maps")(a)
    close(found * score(a).exp(), weights @ a)


def test_a_channel_that_adds_up_to_zero_has_no_xgrad_weight() -> None:
    x = torch.tensor([[[1.0, -1.0], [0.0, 0.0], [2.0, 3.0]]], dtype=torch.float64)
    f = attrib.batched(lambda x: attrib.tap("maps", x).square().sum((1, 2)))
    close(cam.xgrad_cam(f, "maps")(x), torch.tensor([[10.4, 15.6]], dtype=torch.float64))


# --- Eigen-CAM ----------------------------------------------------------------------------------


def principal(a: Tensor) -> Tensor:
    """Of one example, by the singular value decomposition."""
    matrix = a.flatten(1).T
    _, _, directions = torch.linalg.svd(matrix, full_matrices=False)
    projection = matrix @ directions[0]
    if projection[projection.abs().argmax()] < 0:
        projection = -projection
    return projection.view(a.shape[1:])


@dimensions
@pytest.mark.parametrize("smooth", [False, True], ids=["relu", "softplus"])
def test_eigen_cam_is_the_projection_on_the_first_singular_vector(dims: int, smooth: bool) -> None:
    model, x = net(dims, smooth), images(dims)
    found = cam.eigen_cam(attrib.target(model, 1), "maps")(x)
    close(found, torch.stack([principal(a) for a in model.site(x)]))
    assert found.min() >= 0  # as no activation is negative


@pytest.mark.parametrize("shape", [(3, 20), (20, 3), (4, 4)], ids=["few", "many", "square"])
def test_eigen_cam_of_channels_and_places_in_any_number(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, *shape, dtype=torch.float64)
    f = attrib.batched(lambda x: attrib.tap("maps", x).sum((1, 2)))
    close(cam.eigen_cam(f, "maps")(x), torch.stack([principal(a) for a in x]))


def test_eigen_cam_is_the_same_for_every_class() -> None:
    model, x = net(), images()
    one, other = (cam.eigen_cam(attrib.target(model, k), "maps")(x) for k in (0, 3))
    assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(5, 30), (30, 5)], ids=["few", "many"])
def test_eigen_cam_has_derivatives_beside_channels_that_are_never_active(
    shape: tuple[int, int],
) -> None:
    """Where torch's own have none: the singular value zero is there more than once."""
    torch.manual_seed(0)
    x = torch.randn(2, *shape, dtype=torch.float64)
    x[:, 1:4] = 0
    f = attrib.batched(lambda x: attrib.tap("maps", x).sum((1, 2)))
    weight, direction = torch.randn(2, shape[1], dtype=torch.float64), torch.randn_like(x)

    def loss(x: Tensor) -> Tensor:
        return (weight * cam.eigen_cam(f, "maps")(x)).sum()

    slope = (torch.func.grad(loss)(x) * direction).sum()
    step = 1e-6 * direction
    assert relative((loss(x + step) - loss(x - step)) / 2e-6, slope) <= 1e-7


def test_second_derivatives_of_eigen_cam_are_exact() -> None:
    torch.manual_seed(0)
    x, direction = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    f = lambda x: attrib.tap("maps", x).sum((-1, -2))
    slope = torch.func.grad(lambda x: cam.eigen_cam(f, "maps")(x).square().sum().sqrt())
    for example in x:
        _, found = torch.func.jvp(slope, (example,), (direction,))
        step = 1e-5 * direction
        close(found, (slope(example + step) - slope(example - step)) / 2e-5, 1e-8)


def test_eigen_cam_of_nothing_is_zero_and_has_finite_derivatives() -> None:
    f = attrib.batched(lambda x: attrib.tap("maps", x).sum((1, 2)))
    for shape in [(2, 3, 5), (2, 5, 3), (2, 1, 1)]:
        x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        found = cam.eigen_cam(f, "maps")(x)
        assert not found.any()
        (slope,) = torch.autograd.grad(found.sum(), x)
        assert slope.isfinite().all()


def test_eigen_cam_of_what_is_not_a_number_is_none_where_the_score_does_not_look() -> None:
    x = torch.rand(2, 3, 4)
    x[1, 2, 3] = torch.inf
    f = attrib.batched(lambda x: attrib.tap("maps", x)[..., 0].sum(1))
    found = cam.eigen_cam(f, "maps")(x)
    assert found[1].isnan().all()
    close(found[:1], cam.eigen_cam(f, "maps")(x[:1]), 1e-6)


# --- Score-CAM ----------------------------------------------------------------------------------


def increases(model: Net, x: Tensor, baseline: Tensor, index: int, mode: str) -> Tensor:
    """Example by example and channel by channel."""
    rows: list[Tensor] = []
    for example, a in zip(x, model.site(x), strict=True):
        row: list[Tensor] = []
        for channel in a:
            mask = F.interpolate(channel[None, None], size=example.shape[1:], mode=mode)[0]
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            shown = mask * example + (1 - mask) * baseline
            row.append((model(shown[None]) - model(baseline.expand(1, *example.shape)))[0, index])
        rows.append(torch.stack(row))
    return torch.stack(rows)


@dimensions
def test_score_cam_is_its_formula(dims: int) -> None:
    model, x = net(dims), images(dims)
    mode = ("linear", "bilinear", "trilinear")[dims - 1]
    c, a = increases(model, x, torch.zeros(()).double(), 1, mode), model.site(x).flatten(2)
    f = attrib.target(model, 1)
    found = cam.score_cam(f, "maps")(x)
    close(found.flatten(1), torch.einsum("bk,bkp->bp", c.softmax(1), a))
    found = cam.score_cam(f, "maps", softmax=False)(x)
    close(found.flatten(1), torch.einsum("bk,bkp->bp", c, a))


def test_score_cam_shows_a_baseline_where_the_map_is_low() -> None:
    model, x = net(), images()
    baseline = torch.randn(2, 1, 1, dtype=torch.float64)
    c = increases(model, x, baseline, 2, "nearest")
    found = cam.score_cam(attrib.target(model, 2), "maps", softmax=False, mode="nearest")(
        x, baseline
    )
    close(found, torch.einsum("bk,bkhw->bhw", c, model.site(x)))


def test_a_map_that_is_the_same_everywhere_shows_nothing() -> None:
    f = attrib.batched(lambda x: attrib.tap("maps", x).square().sum((1, 2)))
    x = torch.tensor([[[2.0, 2.0], [0.0, 4.0]]], dtype=torch.float64)
    found = cam.score_cam(f, "maps", softmax=False)(x)
    close(found, torch.tensor([[0.0, 80.0]], dtype=torch.float64))  # (2² + 4²) * (0, 4)


def test_score_cam_masks_every_leaf_that_has_places_and_carries_integers_along() -> None:
    model, x = net(), images()
    fine = torch.randn(COUNT, 16, 12, dtype=torch.float64)
    label = torch.arange(COUNT)

    def f(pair: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        first, second, label = pair
        h = attrib.tap("maps", model.site(first))
        return model.head(h).gather(1, label[:, None])[:, 0] * second.mean((1, 2))

    found = cam.score_cam(attrib.batched(f), "maps", softmax=False)((x, fine, label))
    c = torch.zeros(COUNT, CHANNELS, dtype=torch.float64)
    for k, channel in enumerate(model.site(x).unbind(1)):
        masks = [
            F.interpolate(channel[:, None], size=t.shape[-2:], mode="bilinear") for t in (x, fine)
        ]
        low, high = ([getattr(m, by)((2, 3), True) for m in masks] for by in ("amin", "amax"))
        shown = [(m - a) / (b - a) for m, a, b in zip(masks, low, high, strict=True)]
        nothing = f((0 * x, 0 * fine, label))
        c[:, k] = f((shown[0] * x, shown[1][:, 0] * fine, label)) - nothing
    close(found, torch.einsum("bk,bkhw->bhw", c, model.site(x)))


# --- Ablation-CAM -------------------------------------------------------------------------------


@dimensions
def test_ablation_cam_is_its_formula(dims: int) -> None:
    model, x = net(dims), images(dims)
    a = model.site(x)
    losses = torch.zeros(COUNT, CHANNELS, dtype=torch.float64)
    for k in range(CHANNELS):
        without = a.clone()
        without[:, k] = 0
        losses[:, k] = (model.head(a) - model.head(without))[:, 1]
    found = cam.ablation_cam(attrib.target(model, 1), "maps")(x)
    close(found.flatten(1), torch.einsum("bk,bkp->bp", losses, a.flatten(2)))


class Rows(TorchDispatchMode):
    """How many examples convolutions and linear layers see."""

    def __init__(self) -> None:
        super().__init__()
        self.convolved: list[int] = []
        self.mapped: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default and not args[0].is_meta:
            self.convolved.append(len(args[0]))
        if func is torch.ops.aten.addmm.default:
            self.mapped.append(len(args[1]))
        return func(*args, **(kwargs or {}))


def test_ablation_evaluates_only_what_is_behind_the_layer() -> None:
    model, x = net(), images()
    method = cam.ablation_cam(attrib.target(model, 1), "maps", chunk_size=2)
    with torch.no_grad():
        method(x)
        with Rows() as seen:
            method(x)
    assert seen.convolved == [COUNT, COUNT]
    # Two channels at a time, and the score itself; the network ends with two linear layers.
    assert sorted(seen.mapped) == 4 * [COUNT] + 4 * [2 * COUNT]


def test_ablation_leaves_the_class_token_alone() -> None:
    model, x = tokens()
    f = attrib.target(model, 1)
    head, tail = attrib.split(f, "first")
    h = head(x)
    losses = torch.zeros(COUNT, 8, dtype=torch.float64)
    for k in range(8):
        without = h.clone()
        without[:, 1:, k] = 0
        losses[:, k] = f(x) - tail(without, x)
    found = cam.ablation_cam(f, "first", reshape=grid)(x)
    close(found, torch.einsum("bk,bkhw->bhw", losses, grid(h)))


def test_places_that_reshape_pads_belong_to_no_channel() -> None:
    model, x = tokens()
    f = attrib.target(model, 1)
    plain = cam.ablation_cam(f, "first", reshape=grid)(x)
    padded = cam.ablation_cam(f, "first", reshape=lambda h: F.pad(grid(h), (0, 1)))(x)
    close(padded, F.pad(plain, (0, 1)))


@pytest.mark.parametrize("name", ["score_cam", "score_cam increases", "ablation_cam"])
@pytest.mark.parametrize("chunk_size", [1, 2, CHANNELS, 100, None])
@pytest.mark.parametrize("marked", [True, False], ids=["folded", "mapped"])
def test_a_map_does_not_depend_on_the_chunk_size(
    name: str, chunk_size: int | None, marked: bool
) -> None:
    model, x = net(), images()
    f = attrib.target(model, 1) if marked else lambda x: model(x)[..., 1]
    with torch.no_grad():
        expected = MAPS[name](attrib.target(model, 1), "maps")(x)
        close(MAPS[name](f, model.maps, chunk_size=chunk_size)(x), expected)


def test_no_more_channels_are_evaluated_at_once_than_asked_for() -> None:
    model, x = net(), images()
    rows: list[int] = []
    model.head.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    with torch.no_grad():
        cam.score_cam(attrib.target(model, 1), "maps", chunk_size=2)(x)
    assert max(rows) == 2 * COUNT
    assert sum(rows) == COUNT + CHANNELS * COUNT


# --- guided Grad-CAM ----------------------------------------------------------------------------


def test_guided_grad_cam_is_guided_backprop_where_grad_cam_is_positive() -> None:
    model, x = net(), 5 * images()
    with torch.no_grad():
        model.head[1].weight[:, :24] *= -1  # of two channels
    f = attrib.target(model, 1)
    signed = cam.grad_cam(f, "maps")(x)
    assert signed.min() < 0 < signed.max()
    positive = signed.relu()[:, None]
    for mode, torchs in [("linear", "bilinear"), ("nearest", "nearest"), ("cubic", "bicubic")]:
        resized = F.interpolate(positive, size=x.shape[2:], mode=torchs)
        found = cam.guided_grad_cam(f, "maps", mode=mode)(x)
        close(found.detach(), (attrib.guided_backprop(f)(x) * resized).detach())


def test_guided_grad_cam_follows_the_structure_of_sites_and_input() -> None:
    model, x = net(), images()
    f = attrib.target(model, 1)
    wrapped = attrib.target(lambda first, second: model(first) + 0 * second.mean(), 1)
    count = torch.arange(COUNT)
    inside = lambda pair: f(pair[0]) + 0 * pair[1]
    found = cam.guided_grad_cam(inside, {"a": model.maps, "b": model.maps[0]})((x, count))
    assert found["a"][1] is None
    close(found["a"][0].detach(), cam.guided_grad_cam(f, "maps")(x).detach())
    close(found["b"][0].detach(), cam.guided_grad_cam(f, "maps.0")(x).detach())
    both = cam.guided_grad_cam(wrapped, model.maps)((x, x[:, :, :4]))
    close(both[0].detach(), found["a"][0].detach())
    assert not both[1].any()


# --- upsampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "torchs"),
    [
        ("linear", ("linear", "bilinear", "trilinear")),
        ("nearest", ("nearest",) * 3),
        ("area", ("area",) * 3),
        ("cubic", ("", "bicubic", "")),
    ],
)
@dimensions
def test_upsample_is_what_torch_does_for_any_batch(
    mode: Any, torchs: tuple[str, ...], dims: int
) -> None:
    if not torchs[dims - 1]:
        with pytest.raises(attrib.AttribError, match="no such interpolation") as error:
            cam.upsample(torch.rand(4, 4, 4), (8,) * dims, mode)
        assert error.value.code == "mode.unknown"
        return
    torch.manual_seed(0)
    small, size = torch.randn(2, 3, *(3, 4, 2)[:dims], dtype=torch.float64), (7, 5, 4)[:dims]
    expected = F.interpolate(small, size=size, mode=torchs[dims - 1])
    close(cam.upsample(small, size, mode), expected)
    close(cam.upsample(small[0, 0], size, mode), expected[0, 0])
    close(cam.upsample({"a": [small]}, list(size), mode)["a"][0], expected)
    close(torch.vmap(lambda t: cam.upsample(t, size, mode))(small), expected)
    tangent = torch.randn_like(small)
    _, moved = torch.func.jvp(lambda t: cam.upsample(t, size, mode), (small,), (tangent,))
    close(moved, F.interpolate(tangent, size=size, mode=torchs[dims - 1]))


def test_upsample_keeps_constants_and_repeats_neighbours() -> None:
    for mode in ("linear", "nearest", "cubic", "area"):
        close(cam.upsample(torch.full((2, 3), 1.5), (6, 7), mode), torch.full((6, 7), 1.5), 1e-6)
    small = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    close(
        cam.upsample(small, (4, 4), "nearest"),
        small.repeat_interleave(2, 0).repeat_interleave(2, 1),
    )
    close(cam.upsample(torch.arange(6.0), (2,), "area"), torch.tensor([1.0, 4.0]))


# --- sites --------------------------------------------------------------------------------------


@gradients
def test_one_evaluation_serves_all_sites(name: str) -> None:
    model, x = net(), images()
    f, calls = attrib.target(model, 1), []
    model.front.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        together = GRADIENTS[name](f, {"early": "front", "late": ["maps"]})(x)
    assert len(calls) == 1
    close(together["early"], GRADIENTS[name](f, "front")(x).detach())
    close(together["late"][0], GRADIENTS[name](f, "maps")(x).detach())


@maps
def test_a_tree_of_sites_gives_a_tree_of_maps(name: str) -> None:
    model, x = net(), images()
    f = attrib.target(model, 1)
    early, late = MAPS[name](f, (model.front, "maps"))(x)
    close(early, MAPS[name](f, "front")(x))
    close(late, MAPS[name](f, "maps")(x))


@maps
def test_a_tap_the_input_of_a_module_and_a_closure_are_sites(name: str) -> None:
    model, x = net(), images()
    expected = MAPS[name](attrib.target(model, 1), "maps")(x)
    close(MAPS[name](attrib.target(model, 1), attrib.Site("head", of="input"))(x), expected)
    close(MAPS[name](attrib.batched(lambda x: model(x)[:, 1]), model.maps)(x), expected)
    tapped = lambda x: model.head(attrib.tap("here", model.site(x)))[:, 1]
    close(MAPS[name](tapped, "here")(x), expected)


@gradients
def test_all_calls_of_a_layer_have_maps(name: str) -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1).double()
    f = lambda x: layer(layer(x).tanh()).square().mean((1, 2, 3))
    both = GRADIENTS[name](attrib.batched(f), attrib.Site(layer, call="all"))(images())
    assert [tuple(found.shape) for found in both] == [(COUNT, 8, 6)] * 2
    last = GRADIENTS[name](attrib.batched(f), attrib.Site(layer, call=1))(images())
    close(both[1].detach(), last.detach())


@maps
def test_tokens_stand_where_reshape_puts_them(name: str) -> None:
    """A layer of tokens is explained like the feature maps that it is rearranged to."""
    model, x = tokens()

    def as_maps(x: Tensor) -> Tensor:
        h = attrib.activation(model, "first")(x)
        placed = attrib.tap("maps", grid(h))
        h = torch.cat([h[:, :1], placed.flatten(2).transpose(1, 2)], 1)
        return model.head(model.second(h)[:, 0])[:, 1]

    with torch.no_grad():
        expected = MAPS[name](attrib.batched(as_maps), "maps")(x)
        found = MAPS[name](attrib.target(model, 1), "first", reshape=grid)(x)
    assert found.shape == (COUNT, 2, 3)
    close(found, expected)


# --- laws ---------------------------------------------------------------------------------------


@methods
def test_an_example_is_explained_alone_and_without_a_batch_dimension_alike(name: str) -> None:
    model, x = net(), images()
    f = attrib.target(model, 1)
    together = ALL[name](f, "maps")(x).detach()
    for example, expected in zip(x, together, strict=True):
        close(ALL[name](f, "maps")(example[None])[0].detach(), expected)
        close(ALL[name](f, "maps")(example).detach(), expected)
        close(ALL[name](lambda x: model(x)[..., 1], model.maps)(example).detach(), expected)


@methods
def test_there_may_be_any_number_of_batch_dimensions(name: str) -> None:
    x = torch.randn(6, 2, 4, 5, dtype=torch.float64)
    f = lambda x: attrib.tap("maps", x.sin().relu()).square().mean((-1, -2, -3))
    nested = ALL[name](f, "maps")(x.unflatten(0, (2, 3)))
    close(nested.flatten(0, 1).detach(), ALL[name](f, "maps")(x).detach())


@methods
def test_vmap_is_a_loop(name: str) -> None:
    model, x = net(), images()
    f = attrib.target(model, 1)
    for grad_mode in (True, False):
        with torch.set_grad_enabled(grad_mode):
            found = torch.vmap(ALL[name](f, "maps"))(x)
            close(found.detach(), ALL[name](f, "maps")(x).detach())
            every = torch.vmap(lambda k: ALL[name](attrib.target(model, k), "maps")(x))
            close(every(torch.arange(4))[1].detach(), found.detach())


@methods
def test_a_compiled_map_is_the_map(name: str) -> None:
    model, x = net(), images()
    torch._dynamo.reset()
    method = ALL[name](attrib.target(model, 1), "maps")
    compiled = torch.compile(method, fullgraph=True, backend="aot_eager")
    for grad_mode in (True, False):
        with torch.set_grad_enabled(grad_mode):
            close(compiled(x).detach(), method(x).detach())


@methods
def test_tokens_are_compiled_too(name: str) -> None:
    model, x = tokens()
    torch._dynamo.reset()
    method = ALL[name](attrib.target(model, 1), "first", reshape=grid)
    with torch.no_grad():
        compiled = torch.compile(method, fullgraph=True, backend="aot_eager")
        close(compiled(x), method(x))


@methods
def test_derivatives_of_a_map_are_exact(name: str) -> None:
    model, x = net(smooth=name != "guided_grad_cam"), images(count=2)
    if name == "guided_grad_cam":
        model.front[1] = nn.Tanh()  # kinks only where the rule is

    def method(f: Any) -> Any:
        if name == "guided_grad_cam":
            return cam.guided_grad_cam(f, model.maps)
        small = ALL[name](f, model.maps)
        return lambda x: cam.upsample(small(x), x.shape[2:])[:, None]

    check_derivatives(method, model, x)


@methods
def test_forward_and_reverse_mode_agree(name: str) -> None:
    model, x = net(smooth=True), images()
    method, tangent = ALL[name](attrib.target(model, 1), "maps"), torch.randn_like(x)
    found, forward = torch.func.jvp(method, (x,), (tangent,))
    _, pull_back = torch.func.vjp(method, x)
    weight = torch.randn_like(found)
    close((forward * weight).sum(), (pull_back(weight)[0] * tangent).sum(), 1e-10)


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_map_has_the_dtype_of_the_model(name: str, dtype: torch.dtype) -> None:
    model, x = net(), images()
    with torch.no_grad():
        expected = ALL[name](attrib.target(model, 1), "maps")(x)
        found = ALL[name](attrib.target(net().to(dtype), 1), "maps")(x.to(dtype))
    assert found.dtype == dtype
    scale = expected.abs().max()
    if name in ("score_cam increases", "ablation_cam"):  # differences of rounded scores
        scale = scale + model(x)[:, 1].abs().max() * model.site(x).sum(1).max()
    assert (found.double() - expected).abs().max() <= 16 * torch.finfo(dtype).eps * scale


@methods
def test_nothing_is_left_behind(name: str) -> None:
    model, x = net(), images()
    method = ALL[name](attrib.target(model, 1), "maps")
    before = snapshot(model, [x])
    method(x)
    with pytest.raises(RuntimeError):
        method(x[:, :1])
    assert changes(before, snapshot(model, [x])) == []


@methods
def test_threads_do_not_see_each_other(name: str) -> None:
    model, x = net(), images()
    method = ALL[name](attrib.target(model, 1), "maps")
    expected, found = method(x).detach(), [torch.empty(0)] * 4

    def run(place: int) -> None:
        found[place] = method(x).detach()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        close(one, expected)


@methods
def test_an_example_that_is_not_a_number_spoils_no_other(name: str) -> None:
    model, x = net(), images()
    method = ALL[name](attrib.target(model, 1), "maps")
    expected = method(x)[[0, 2]].detach()
    x[1, 0, 3, 3] = torch.nan
    with pytest.warns(attrib.NonFiniteWarning):
        found = method(x).detach()
    assert found[1].isnan().all()
    close(found[[0, 2]], expected)


@methods
def test_maps_are_smoothed_in_large_batches(name: str) -> None:
    """A target of each example is folded along with it."""
    model, x = net(), images()
    index = torch.tensor([0, 3, 1])

    def smoothed(f: Any, chunk_size: Any) -> Tensor:
        draws = torch.Generator().manual_seed(0)
        method = ALL[name](f, model.maps)
        return attrib.smooth_grad(method, 0.1, samples=4, generator=draws, chunk_size=chunk_size)(x)

    with torch.no_grad():
        one_by_one = smoothed(attrib.target(model, index), 1)
        close(smoothed(attrib.target(model, index), None), one_by_one)
        loop = lambda x: model(x).gather(-1, index[:, None])[:, 0]
        close(smoothed(loop, None), one_by_one)


@methods
def test_a_map_of_one_example_is_smoothed_too(name: str) -> None:
    model, x = net(), images()[0]
    f = attrib.target(model, 1)

    def smoothed(chunk_size: Any) -> Tensor:
        draws = torch.Generator().manual_seed(0)
        method = ALL[name](f, "maps")
        return attrib.smooth_grad(method, 0.1, samples=4, generator=draws, chunk_size=chunk_size)(x)

    with torch.no_grad():
        close(smoothed(None), smoothed(1))


@methods
def test_several_targets_share_a_forward_pass(name: str) -> None:
    model, x = net(), images()
    with torch.no_grad():
        found = attrib.per_target(lambda f: ALL[name](f, "maps"), model, [2, 1])(x)
        for k, one in zip([2, 1], found, strict=True):
            close(one, ALL[name](attrib.target(model, k), "maps")(x))


@methods
def test_further_arguments_reach_the_score(name: str) -> None:
    model, x = net(), images()
    scale = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    f = attrib.batched(lambda x, scale: scale * model(x)[:, 1])
    baseline = (0,) if name.startswith("score") else ()
    found = ALL[name](f, model.maps)(x, *baseline, scale)
    for k in range(COUNT):
        g = lambda x, k=k: scale[k] * model(x)[:, 1]
        expected = ALL[name](attrib.batched(g), model.maps)(x[k : k + 1], *baseline)
        close(found[k : k + 1].detach(), expected.detach())


@pytest.mark.parametrize("name", [*GRADIENTS, "guided_grad_cam"])
def test_a_score_without_a_derivative_is_refused(name: str) -> None:
    head = net().head  # whose parameters have derivatives
    f = lambda x: head[1:](attrib.tap("maps", x).detach().flatten(1)[:, :60])[:, 0]
    for grad_mode in (True, False):
        with torch.set_grad_enabled(grad_mode), pytest.raises(attrib.AttribError) as error:
            ALL[name](f, "maps")(images())
        assert error.value.code == "site.unused"


@pytest.mark.parametrize("name", [*GRADIENTS, "guided_grad_cam"])
def test_a_score_that_is_computed_in_inference_mode_is_refused(name: str) -> None:
    f = lambda x: torch.inference_mode()(lambda h: h.sum((1, 2, 3)))(attrib.tap("maps", x))
    with torch.no_grad(), pytest.raises(attrib.AttribError) as error:
        ALL[name](f, "maps")(images())
    assert error.value.code == "site.unused"


def test_maps_of_maps() -> None:
    """A score may be made of class activation maps itself."""
    model, x = net(smooth=True), images()
    inner = cam.grad_cam(attrib.target(model, 1), "maps")
    found = cam.hires_cam(lambda x: inner(attrib.tap("image", x)).sum((1, 2)), "image")(x)
    slope = attrib.saliency(lambda x: inner(x).sum((1, 2)))(x)
    close(found.detach(), (x * slope).sum(1).detach())


# --- refusals -----------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Net, Any, Tensor], Any], str]] = {
    "no score": (lambda m, f, x: cam.grad_cam(3, "maps")(x), "f.type"),
    "no score to ablate": (lambda m, f, x: cam.ablation_cam(3, "maps")(x), "f.type"),
    "no site": (lambda m, f, x: cam.grad_cam(f, "nap")(x), "site.unknown"),
    "no spatial dimensions": (lambda m, f, x: cam.grad_cam(f, "head")(x), "site.spatial"),
    "nothing to ablate": (lambda m, f, x: cam.ablation_cam(f, "head")(x), "site.spatial"),
    "no places for the first component": (
        lambda m, f, x: cam.eigen_cam(f, "head")(x),
        "site.spatial",
    ),
    "no places to show": (lambda m, f, x: cam.score_cam(f, "head")(x), "site.spatial"),
    "reshape that is no function": (
        lambda m, f, x: cam.grad_cam(f, "maps", reshape=(4, 3))(x),
        "reshape.type",
    ),
    "reshape that returns no tensor": (
        lambda m, f, x: cam.grad_cam(f, "maps", reshape=lambda h: [h])(x),
        "reshape.type",
    ),
    "reshape that loses the batch": (
        lambda m, f, x: cam.hires_cam(f, "maps", reshape=lambda h: h.flatten(0, 1)[None])(x),
        "reshape.shape",
    ),
    "reshape that leaves no places": (
        lambda m, f, x: cam.layer_cam(f, "maps", reshape=lambda h: h.mean((2, 3)))(x),
        "reshape.shape",
    ),
    "reshape that computes": (
        lambda m, f, x: cam.ablation_cam(f, "maps", reshape=lambda h: 2 * h)(x),
        "reshape.values",
    ),
    "reshape that computes in bounds": (
        lambda m, f, x: cam.ablation_cam(f, "maps", reshape=lambda h: h - (h > 1) * 1)(x),
        "reshape.values",
    ),
    "several tensors": (
        lambda m, f, x: cam.ablation_cam(lambda x: sum(_TWICE(x)).mean((1, 2, 3)), _TWICE)(x),
        "site.several",
    ),
    "unknown mode": (
        lambda m, f, x: cam.guided_grad_cam(f, "maps", mode="bilinear"),
        "mode.unknown",
    ),
    "unknown mode of masks": (
        lambda m, f, x: cam.score_cam(f, "maps", mode="slow"),
        "mode.unknown",
    ),
    "a leaf without places": (
        lambda m, f, x: cam.guided_grad_cam(lambda p: f(p[0]) + p[1], m.maps)((x, x[:, 0, 0, 0])),
        "x.spatial",
    ),
    "a leaf without places to hide": (
        lambda m, f, x: cam.score_cam(lambda p: f(p[0]) + p[1], m.maps)((x, x[:, 0, 0, 0])),
        "x.spatial",
    ),
    "integers to hide": (
        lambda m, f, x: cam.score_cam(lambda x: f(x.double()), m.maps)(x.long()),
        "x.dtype",
    ),
    "a baseline that does not fit": (
        lambda m, f, x: cam.score_cam(f, "maps")(x, torch.zeros(3)),
        "baseline.shape",
    ),
    "no chunk": (lambda m, f, x: cam.ablation_cam(f, "maps", chunk_size=0), "chunk_size.range"),
    "a chunk in words": (
        lambda m, f, x: cam.score_cam(f, "maps", chunk_size="x"),
        "chunk_size.type",
    ),
    "no sites at all": (lambda m, f, x: cam.grad_cam(f, []), "site.type"),
    "no sites to ablate": (lambda m, f, x: cam.ablation_cam(f, [])(x), "site.type"),
    "integers at the site": (
        lambda m, f, x: cam.grad_cam(lambda x: attrib.tap("a", x.long()).sum((1, 2, 3)) * 0.5, "a")(
            x
        ),
        "site.dtype",
    ),
    "an overridden score": (
        lambda m, f, x: cam.grad_cam(attrib.override(f, {}), "maps"),
        "override.called",
    ),
    "a score of several numbers": (lambda m, f, x: cam.grad_cam(m, m.maps)(x), "score.shape"),
    "size that is a number": (lambda m, f, x: cam.upsample(x, 3), "size.type"),
    "size in halves": (lambda m, f, x: cam.upsample(x, (1.5, 2)), "size.type"),
    "size of nothing": (lambda m, f, x: cam.upsample(x, (0, 2)), "size.range"),
    "no size": (lambda m, f, x: cam.upsample(x, ()), "size.range"),
    "size in four dimensions": (lambda m, f, x: cam.upsample(x, (1, 2, 3, 4)), "size.range"),
    "unknown upsampling": (lambda m, f, x: cam.upsample(x, (3, 3), "bilinear"), "mode.unknown"),
    "upsampling of integers": (lambda m, f, x: cam.upsample(x.long(), (3, 3)), "attribution.type"),
    "upsampling of a number": (lambda m, f, x: cam.upsample(2.0, (3, 3)), "attribution.type"),
    "upsampling of too little": (
        lambda m, f, x: cam.upsample(x[0, 0, 0], (3, 3)),
        "attribution.shape",
    ),
}


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin(), x.cos()


_TWICE = Twice()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_words(case: str) -> None:
    call, code = REFUSED[case]
    model = net()
    with pytest.raises(attrib.AttribError) as error:
        call(model, attrib.target(model, 1), images())
    assert error.value.code == code
    assert ", got " in str(error.value)


def test_an_error_of_reshape_passes_with_a_note() -> None:
    with pytest.raises(RuntimeError) as error:
        cam.grad_cam(attrib.target(net(), 1), "maps", reshape=lambda h: h.view(7))(images())
    notes: list[str] = getattr(error.value, "__notes__", ["reshape"])
    assert any("reshape" in note for note in notes)
