"""How long one output takes, as a multiple of all outputs of the same model.

    python -m benchmarks.last_layer

CPU seconds of `attrib.target(model, index)` over those of the model by itself, and of the gradient
over that by hand, in interleaved rounds on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import attrib
from benchmarks.models import EncoderLayer, perceptron


def language_model(width: int = 384, words: int = 50_257) -> nn.Module:
    """The shapes of a small language model, with a vocabulary as large as that of GPT-2."""
    layers = (EncoderLayer(width, 6) for _ in range(12))
    return nn.Sequential(*layers, nn.Linear(width, words, bias=False))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int | tuple[int, int]]] = {
    "13 columns, 64 x 64, 10 classes": (lambda: perceptron(13, 64), (3072, 13), 1),
    "13 columns, 64 x 64, 100 classes": (lambda: perceptron(13, 64, classes=100), (3072, 13), 1),
    "128 columns, 256 x 256, 10 classes": (lambda: perceptron(128, 256), (2048, 128), 1),
    "language model, 2 x 64 tokens": (language_model, (2, 64, 384), (-1, 11)),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.last_layer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| model | score | gradient |\n| --- | ---: | ---: |")
    for name, (build, shape, index) in MODELS.items():
        found, slopes = measured(build().eval(), torch.randn(shape), index, rounds)
        print(f"| {name} | {found} | {slopes} |", flush=True)


@torch.no_grad()
def measured(
    model: nn.Module, x: Tensor, index: int | tuple[int, int], rounds: int
) -> tuple[str, str]:
    """The ratios of the score and of its gradient."""
    path = index if isinstance(index, tuple) else (index,)
    score = attrib.target(model, index)
    saliency = attrib.saliency(score)

    def chosen(x: Tensor) -> Tensor:
        return model(x)[(slice(None), *path)]

    def slope(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            total = chosen(leaf).sum()
        return torch.autograd.grad(total, leaf)[0]

    torch.testing.assert_close(score(x), chosen(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(saliency(x), slope(x), rtol=1e-4, atol=1e-5)
    return (
        _ratio({"own": lambda: score(x), "all": lambda: chosen(x)}, rounds),
        _ratio({"own": lambda: saliency(x), "all": lambda: slope(x)}, rounds),
    )


def _ratio(calls: Mapping[str, Callable[[], Tensor]], rounds: int) -> str:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            start, turns = time.process_time(), 0
            while turns == 0 or time.process_time() - start < 0.05:
                call()
                turns += 1
            seconds[name].append((time.process_time() - start) / turns)
    ratios = [own / whole for own, whole in zip(seconds["own"], seconds["all"], strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"


if __name__ == "__main__":
    main()
