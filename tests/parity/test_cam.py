"""Class activation maps against Captum, and against the package grad-cam after what it does to a
map: rectify, scale to [0, 1], resize, scale again.

grad-cam imports torchvision for transforms of pictures, which no map needs; where it is not
installed an empty stand-in is there while grad-cam is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib import cam

from .comparing import assert_close, relative

captum = pytest.importorskip("captum.attr")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*require gradients:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*requires_grad:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning"),
]

SINGLE = 3e-6
"""grad-cam ends in float32, whatever it starts with."""


class Net(nn.Module):
    """A convolutional network in one, two or three dimensions."""

    def __init__(self, dims: int = 2, pool: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        mean = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1]
        self.front = nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), mean(pool))
        self.maps = nn.Sequential(conv(4, 5, 3, padding=1), nn.ReLU())
        places = torch.Size(size // pool for size in SIZES[:dims]).numel()
        first, last = nn.Linear(5 * places, 6), nn.Linear(6, 4)
        self.head = nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)
        with torch.no_grad():
            first.weight.mul_(3).add_(0.05)
            last.weight[1].abs_()
            self.maps[0].bias[1] += 1

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(self.front(x)))


SIZES = (8, 6, 4)


def net(dims: int = 2, pool: int = 2) -> tuple[Net, Tensor]:
    model = Net(dims, pool).double().eval()
    return model, torch.randn(3, 2, *SIZES[:dims], dtype=torch.float64)


dimensions = pytest.mark.parametrize("dims", [1, 2, 3])


# --- Captum -------------------------------------------------------------------------------------


@dimensions
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layer", ["maps", "front", "front.0"])
def test_grad_cam_is_captums(dims: int, relu: bool, layer: str) -> None:
    model, x = net(dims)
    method = captum.LayerGradCam(model, model.get_submodule(layer))
    theirs = method.attribute(x, target=1, relu_attributions=relu)
    ours = cam.grad_cam(attrib.target(model, 1), layer)(x)
    # A dimension of one channel is all that differs.
    assert_close((ours.relu() if relu else ours)[:, None], theirs)


def test_the_map_of_an_input_is_captums() -> None:
    model, x = net()
    theirs = captum.LayerGradCam(model, model.maps).attribute(
        x, target=2, attribute_to_layer_input=True
    )
    ours = cam.grad_cam(attrib.target(model, 2), attrib.Site("maps", of="input"))(x)
    assert_close(ours[:, None], theirs)


@dimensions
@pytest.mark.parametrize("mode", ["nearest", "linear", "area"])
def test_upsample_is_captums_interpolate(dims: int, mode: Any) -> None:
    model, x = net(dims)
    torchs = ("linear", "bilinear", "trilinear")[dims - 1] if mode == "linear" else mode
    small = captum.LayerGradCam(model, model.maps).attribute(x, target=1)
    theirs = captum.LayerAttribution.interpolate(small, tuple(x.shape[2:]), torchs)
    ours = cam.upsample(cam.grad_cam(attrib.target(model, 1), "maps")(x), x.shape[2:], mode)
    assert_close(ours[:, None], theirs)


@dimensions
def test_guided_grad_cam_is_captums(dims: int) -> None:
    model, x = net(dims)
    f = attrib.target(model, 1)
    linear = ("linear", "bilinear", "trilinear")[dims - 1]
    for mode, torchs in [("nearest", "nearest"), ("linear", linear)]:
        theirs = captum.GuidedGradCam(model, model.maps).attribute(
            x, target=1, interpolate_mode=torchs
        )
        assert theirs.abs().max() > 0
        assert_close(cam.guided_grad_cam(f, "maps", mode=mode)(x), theirs)


def test_captum_passes_over_a_relu6() -> None:
    model, x = net()
    model.front[1], model.maps[1] = nn.ReLU6(), nn.ReLU6()
    f = attrib.target(model, 1)
    theirs = captum.GuidedGradCam(model, model.maps).attribute(x, target=1)
    share = cam.upsample(cam.grad_cam(f, "maps")(x).relu(), x.shape[2:], "nearest")[:, None]
    assert_close(attrib.saliency(f)(x) * share, theirs)
    ours = cam.guided_grad_cam(f, "maps", mode="nearest")(x)
    assert_close(attrib.guided_backprop(f)(x) * share, ours)
    assert relative(ours.detach(), theirs.detach()) > 0.01


def test_a_layer_without_places_is_refused_where_captum_multiplies_by_its_gradient() -> None:
    model, x = net()
    layer = model.head[1]
    theirs = captum.LayerGradCam(model, layer).attribute(x, target=1)
    f = attrib.target(model, 1)
    assert_close(attrib.gradient_x_activation(f, layer)(x).sum(1, keepdim=True), theirs)
    with pytest.raises(attrib.AttribError, match="no spatial dimensions"):
        cam.grad_cam(f, layer)(x)


class Reused(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh()).square().mean((2, 3))


def test_of_a_layer_used_twice_captum_shows_the_last_call() -> None:
    model, x = Reused().double().eval(), net()[1]
    theirs = captum.LayerGradCam(model, model.layer).attribute(x, target=1)
    f = attrib.target(model, 1)
    assert_close(cam.grad_cam(f, attrib.Site("layer", call=1))(x)[:, None], theirs)
    with pytest.raises(attrib.AttribError, match="reached 2 times"):
        cam.grad_cam(f, "layer")(x)


# --- grad-cam -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> Any:
    for name in ("cv2", "ttach", "sklearn", "scipy", "matplotlib"):
        pytest.importorskip(name)
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        pytest.skip("needs the package grad-cam")
    stand_ins = {} if importlib.util.find_spec("torchvision") else _stand_ins()
    sys.modules.update(stand_ins)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("pytorch_grad_cam")
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _stand_ins() -> dict[str, types.ModuleType]:
    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.functional"]
    modules = {name: types.ModuleType(name) for name in names}
    vars(modules[names[1]]).update(Compose=None, Normalize=None, ToTensor=None)
    vars(modules[names[2]]).update(resize=None)
    return modules


def shown(package: Any, name: str, model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """What the package gives its user, for the second output."""
    method = getattr(package, name)(model, [layer])
    found = torch.from_numpy(method(x, _targets(x)))
    method.activations_and_grads.release()  # or it would, whenever it is collected
    return found


def raw(package: Any, name: str, model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """The map before the package does anything to it."""
    method = getattr(package, name)(model, [layer])
    kept: list[Any] = []
    inner = method.get_cam_image

    def keep(*args: Any) -> Any:
        kept.append(inner(*args))
        return kept[-1]

    method.get_cam_image = keep
    method(x, _targets(x))
    method.activations_and_grads.release()
    return torch.from_numpy(kept[0])


def _targets(x: Tensor) -> list[Any]:
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    return [targets.ClassifierOutputTarget(1) for _ in x]


def processed(maps: Tensor, size: torch.Size) -> Tensor:
    """A map as the package shows it."""
    return scaled(cam.upsample(scaled(maps.relu()).float(), size))


def scaled(maps: Tensor) -> Tensor:
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax((1, 2), keepdim=True))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("GradCAM", cam.grad_cam),
        ("HiResCAM", cam.hires_cam),
        ("LayerCAM", cam.layer_cam),
        ("GradCAMPlusPlus", cam.grad_cam_plus_plus),
        ("XGradCAM", cam.xgrad_cam),
        ("AblationCAM", cam.ablation_cam),
    ],
)
def test_a_map_looks_like_that_of_grad_cam(
    package: Any, name: str, method: Callable[..., Any]
) -> None:
    model, x = net()
    with torch.no_grad():
        model.head[3].weight.mul_(30)  # what it adds to denominators is small beside that
    maps = method(attrib.target(model, 1), "maps")(x).detach()
    assert (maps > 0).flatten(1).any(1).all()
    found = processed(maps, x.shape[2:])
    assert relative(shown(package, name, model, model.maps, x), found) <= SINGLE


@pytest.mark.parametrize(
    ("name", "method"),
    [("GradCAM", cam.grad_cam), ("HiResCAM", cam.hires_cam), ("LayerCAM", cam.layer_cam)],
)
def test_a_map_in_three_dimensions_is_that_of_grad_cam(
    package: Any, name: str, method: Callable[..., Any]
) -> None:
    model, x = net(3)
    ours = method(attrib.target(model, 1), "maps")(x).detach()
    assert_close(ours, raw(package, name, model, model.maps, x))


def test_several_layers_are_their_mean_to_grad_cam(package: Any) -> None:
    model, x = net()
    method = package.GradCAM(model, [model.front, model.maps])
    theirs = torch.from_numpy(method(x, _targets(x)))
    method.activations_and_grads.release()
    maps = cam.grad_cam(attrib.target(model, 1), ["front", "maps"])(x)
    first, second = (cam.upsample(scaled(m.relu()).float(), x.shape[2:]) for m in maps)
    assert relative(scaled((first + second) / 2).detach(), theirs) <= SINGLE


def test_tokens_are_reshaped_as_by_grad_cam(package: Any) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, activation="gelu")
    model = nn.Sequential(nn.Identity(), layer, Pooled(), nn.Linear(8, 4)).double().eval()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    grid = lambda h: h[:, 1:].transpose(1, 2).unflatten(2, (2, 3))
    x.requires_grad_()
    for name, method in [("GradCAM", cam.grad_cam), ("HiResCAM", cam.hires_cam)]:
        theirs = getattr(package, name)(model, [model[0]], reshape_transform=grid)
        seen = theirs.activations_and_grads
        seen(x)[:, 1].sum().backward()
        pair = seen.activations[0].numpy(), seen.gradients[0].numpy()
        expected = torch.from_numpy(theirs.get_cam_image(x, model[0], None, *pair, False))
        seen.release()
        ours = method(attrib.target(model, 1), "0", reshape=grid)(x).detach()
        assert_close(ours, expected)


class Pooled(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h.mean(1)


# Where grad-cam is something else, each by its cause.


def test_grad_cam_adds_a_millionth_to_the_squared_gradients_of_plus_plus(package: Any) -> None:
    """So that its weights vanish where gradients are small, as those of means over places are."""
    model, x = net()
    with torch.no_grad():
        model.head[3].weight.mul_(1e-3)
    f = attrib.target(model, 1)
    activation, gradient = attrib.activation_and_gradient(f, "maps")(x)
    square, cube = gradient.square(), gradient**3
    alpha = square / (2 * square + activation.sum((2, 3), keepdim=True) * cube + 1e-6)
    weights = (gradient.relu() * alpha).sum((2, 3))
    theirs = raw(package, "GradCAMPlusPlus", model, model.maps, x)
    assert_close(torch.einsum("bk,bkhw->bhw", weights, activation), theirs)
    assert relative(theirs, cam.grad_cam_plus_plus(f, "maps")(x).detach()) > 0.5


def test_grad_cam_adds_a_little_to_the_sums_of_x_grad(package: Any) -> None:
    """Which is much where activations are small."""
    model, x = net()
    with torch.no_grad():
        for parameter in model.maps.parameters():
            parameter.mul_(1e-7)
        model.head[1].weight.mul_(1e7)
    f = attrib.target(model, 1)
    activation, gradient = attrib.activation_and_gradient(f, "maps")(x)
    sums = activation.sum((2, 3)) + 1e-7
    weights = (gradient * activation).sum((2, 3)) / sums
    theirs = raw(package, "XGradCAM", model, model.maps, x)
    assert_close(torch.einsum("bk,bkhw->bhw", weights, activation), theirs)
    assert relative(theirs, cam.xgrad_cam(f, "maps")(x).detach()) > 0.01


def test_grad_cam_aligns_the_corners_of_the_masks_of_score_cam(package: Any) -> None:
    """Which moves them where the layer is coarser than the input; otherwise the maps agree."""
    model, x = net(pool=1)
    ours = processed(cam.score_cam(attrib.target(model, 1), "maps")(x).detach(), x.shape[2:])
    assert relative(shown(package, "ScoreCAM", model, model.maps, x).to(ours), ours) <= SINGLE

    model, x = net(pool=2)
    a = attrib.activation(model, "maps")(x)
    masks = F.interpolate(a, size=x.shape[2:], mode="bilinear", align_corners=True)
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    masks = (masks - low) / (high - low + 1e-8)
    scores = torch.stack([model(x * mask[:, None])[:, 1] for mask in masks.unbind(1)], 1)
    theirs = raw(package, "ScoreCAM", model, model.maps, x)
    weights = scores.softmax(1)
    assert relative(torch.einsum("bk,bkhw->bhw", weights, a).detach(), theirs) <= SINGLE
    assert relative(cam.score_cam(attrib.target(model, 1), "maps")(x).detach(), theirs) > 1e-3


def test_grad_cam_ablates_with_ten_million_where_activations_are_negative(package: Any) -> None:
    model, x = net()
    layer = model.maps[0]
    a = attrib.activation(model, "maps.0")(x)
    losses = torch.zeros(3, 5, dtype=torch.float64)
    for row, example in enumerate(a):
        for k in range(5):
            without = example.clone()
            without[k] = example.min() - 1e7
            score, less = (model.head(h[None].relu())[0, 1] for h in (example, without))
            losses[row, k] = (score - less) / score
    theirs = raw(package, "AblationCAM", model, layer, x)
    assert relative(torch.einsum("bk,bkhw->bhw", losses, a).detach(), theirs) <= 1e-4
    assert relative(cam.ablation_cam(attrib.target(model, 1), layer)(x).detach(), theirs) > 0.01


def test_grad_cam_reverses_the_ablations_of_a_negative_score(package: Any) -> None:
    """It divides by the score, as the paper does; the paper's is a probability."""
    model, x = net()
    with torch.no_grad():
        model.head[3].bias[1] = -20.0
    f = attrib.target(model, 1)
    assert f(x).max() < 0
    ours = cam.ablation_cam(f, "maps")(x) / f(x)[:, None, None]
    theirs = raw(package, "AblationCAM", model, model.maps, x)
    assert relative(theirs, ours.detach()) <= 1e-4
    assert float((ours * cam.ablation_cam(f, "maps")(x)).max()) <= 0


def test_grad_cam_centres_the_maps_of_eigen_cam_and_leaves_their_sign_to_chance(
    package: Any,
) -> None:
    """The paper projects the activations as they are. Of the sign, see
    https://github.com/jacobgil/pytorch-grad-cam/issues/315."""
    model, x = net()
    normalised = nn.Sequential(model.front, nn.InstanceNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    normalised = normalised.double().eval()
    normalised(x)
    f = attrib.target(normalised, 1)
    # Nothing is left to centre behind this layer.
    ours = cam.eigen_cam(f, "1")(x).detach()
    theirs = raw(package, "EigenCAM", normalised, normalised[1], x).double()
    signs = (ours * theirs).sum((1, 2)).sign()[:, None, None]
    assert relative(theirs * signs, ours) <= SINGLE

    centred = attrib.activation(model, "maps")(x)
    centred = centred - centred.mean((2, 3), keepdim=True)
    f = attrib.batched(lambda a: attrib.tap("centred", a).sum((1, 2, 3)))
    ours = cam.eigen_cam(f, "centred")(centred).detach()
    theirs = raw(package, "EigenCAM", model, model.maps, x).double()
    signs = (ours * theirs).sum((1, 2)).sign()[:, None, None]
    assert relative(theirs * signs, ours) <= SINGLE
    plain = cam.eigen_cam(attrib.target(model, 1), "maps")(x).detach()
    assert relative(theirs * signs, plain) > 0.1
