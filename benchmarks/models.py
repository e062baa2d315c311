"""The models and data the benchmarks run on: hand-written modules, random weights, fixed seeds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Workload:
    """A model and the tensors every contender is given.

    Attributes:
        name: The key of WORKLOADS it was built from.
        model: In eval mode; takes a tensor (batch, *feature), returns (batch, classes).
        x: The examples, (batch, *feature).
        baseline: One baseline per example, shaped like x.
        baselines: A set to draw baselines from, (many, *feature).
        target: The class whose score is explained.
    """

    name: str
    model: nn.Module
    x: Tensor
    baseline: Tensor
    baselines: Tensor
    target: int = 1

    def head(self, batch: int) -> Workload:
        """The same workload with only its first `batch` examples."""
        return replace(self, x=self.x[:batch].clone(), baseline=self.baseline[:batch].clone())

    def double(self) -> Workload:
        """The same workload in float64, on a copy of the model."""
        return replace(
            self,
            model=copy.deepcopy(self.model).double(),
            x=self.x.double(),
            baseline=self.baseline.double(),
            baselines=self.baselines.double(),
        )


def build(name: str) -> Workload:
    """The workload of that name, the same bits at every call."""
    return WORKLOADS[name]()


def random_workload(
    name: str, model: Callable[[], nn.Module], batch: int, *feature: int
) -> Workload:
    """A model with random weights and normal inputs, the same bits at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = model().eval()
        _randomise(network)
        return Workload(
            name=name,
            model=network,
            x=torch.randn(batch, *feature),
            baseline=0.1 * torch.randn(batch, *feature),
            baselines=0.1 * torch.randn(32, *feature),
        )


def perceptron(
    features: int, width: int, activation: Callable[[], nn.Module] = nn.ReLU, classes: int = 10
) -> nn.Module:
    """Two hidden layers of one width."""
    return nn.Sequential(
        nn.Linear(features, width),
        activation(),
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, classes),
    )


class SmallCnn(nn.Module):
    """Three blocks of convolution, batch norm and ReLU, two pools, one linear layer."""

    def __init__(
        self,
        width: int = 32,
        classes: int = 10,
        pool: Callable[[int], nn.Module] = nn.MaxPool2d,
        side: int = 32,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, width),
            *_convolution(width, width),
            pool(2),
            *_convolution(width, 2 * width),
            pool(2),
        )
        self.head = nn.Linear(2 * width * (side // 4) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class BasicBlock(nn.Module):
    """The residual block of ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(inputs, outputs, stride=stride),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """The shapes of ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        widths = (64, 64, 128, 128, 256, 256, 512, 512)
        strides = (1, 1, 2, 1, 2, 1, 2, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks = nn.Sequential(
            *(
                BasicBlock(inputs, outputs, stride)
                for inputs, outputs, stride in zip((64, *widths), widths, strides, strict=False)
            )
        )
        self.head = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((-2, -1)))


class Vgg19(nn.Module):
    """The shapes of VGG-19 (Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(512 * 49, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class EncoderLayer(nn.Module):
    """Self-attention and a GELU layer, each with a residual and a layer norm behind it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm_output = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for part in self.project(x).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = self.norm_attention(x + self.merge(mixed.transpose(-3, -2).flatten(-2)))
        return self.norm_output(x + self.feedforward(x))


class Encoder(nn.Module):
    """A BERT-like encoder of embeddings (Devlin et al. 2019, https://arxiv.org/abs/1810.04805)."""

    def __init__(self, layers: int = 6, width: int = 384, heads: int = 12, classes: int = 10):
        super().__init__()
        self.layers = nn.Sequential(*(EncoderLayer(width, heads) for _ in range(layers)))
        self.pooler = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.pooler(self.layers(x)[:, 0])))


def _randomise(network: nn.Module) -> None:
    """He's initialisation keeps the signal alive through depth; batch norms get statistics."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.0)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp": lambda: random_workload("mlp", lambda: perceptron(13, 64), 512, 13),
    "mlp-wide": lambda: random_workload("mlp-wide", lambda: perceptron(128, 256), 512, 128),
    "mlp-500": lambda: random_workload(
        "mlp-500",
        lambda: nn.Sequential(nn.Linear(500, 512), nn.ReLU(), nn.Linear(512, 10)),
        *(64, 500),
    ),
    "mlp-gelu": lambda: random_workload("mlp-gelu", lambda: perceptron(13, 64, nn.GELU), 512, 13),
    "mlp-tanh": lambda: random_workload("mlp-tanh", lambda: perceptron(13, 64, nn.Tanh), 512, 13),
    "cnn": lambda: random_workload("cnn", SmallCnn, 16, 3, 32, 32),
    "cnn-average": lambda: random_workload(
        "cnn-average", lambda: SmallCnn(pool=nn.AvgPool2d), 16, 3, 32, 32
    ),
    "cnn-large": lambda: random_workload("cnn-large", lambda: SmallCnn(side=64), 4, 3, 64, 64),
    "resnet18": lambda: random_workload("resnet18", ResNet18, 2, 3, 224, 224),
    "vgg19": lambda: random_workload("vgg19", Vgg19, 1, 3, 224, 224),
    "bert": lambda: random_workload("bert", Encoder, 4, 64, 384),
}
