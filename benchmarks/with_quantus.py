"""python -m benchmarks.with_quantus: measures that Quantus 0.6 computes too, the same numbers.

Quantus is no dependency; the table needs `pip install --no-deps quantus opencv-python-headless
cachetools pandas` beside the extras `plot`, `metrics` and `superpixels`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
import quantus
import torch
from torch import Tensor, nn

import attrib
from attrib import metrics

QUIET: dict[str, Any] = {"disable_warnings": True, "display_progressbar": False}
SIGNED: dict[str, Any] = {**QUIET, "abs": False, "normalise": False}
SIZES: dict[str, Any] = {**QUIET, "abs": True, "normalise": False}
ROUNDS = 5


class Pair(NamedTuple):
    """The same numbers from two libraries.

    Attributes:
        theirs: What Quantus says, ``(examples, ...)`` in any nesting.
        ours: What attrib says.
    """

    theirs: Callable[[], Any]
    ours: Callable[[], Tensor]


def pairs(batch: int = 64, side: int = 12) -> dict[str, Pair]:
    """A small network on small images, with attributions and masks at random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (side - 2) ** 2, 3)
        model = nn.Sequential(*layers).eval()
        x, a = torch.rand(batch, 1, side, side), torch.randn(batch, 1, side, side)
        mask, classes = torch.rand(batch, 1, side, side) > 0.6, torch.randint(3, (batch,))
    # Quantus flips pixels of probabilities, and looks at logits elsewhere.
    logit, f = attrib.target(model, classes), attrib.prob(model, classes)
    saliency = attrib.saliency(logit)
    moved = x.flip(0)

    def explain(model: Any, inputs: Any, targets: Any, **options: Any) -> Any:
        own = attrib.saliency(attrib.target(model, torch.as_tensor(targets)))
        return own(torch.as_tensor(inputs)).numpy()

    def theirs(metric: Any, attribution: Tensor | None = a, **more: Any) -> Callable[[], Any]:
        given = None if attribution is None else attribution.numpy()
        data = {"x_batch": x.numpy(), "y_batch": classes.numpy(), "a_batch": given, "device": "cpu"}
        return lambda: metric(model=model, **data, **more)

    def replaced(arr: Any, **options: Any) -> Any:
        return moved.numpy().reshape(arr.shape)

    masks, black = {"s_batch": mask.numpy()}, {"perturb_baseline": 0.0}
    step = {"features_in_step": 1, **black}
    pearson = quantus.similarity_func.correlation_pearson
    move = {"perturb_func": replaced, "perturb_func_kwargs": {}, "nr_samples": 2}
    return {
        "sparseness": Pair(theirs(quantus.Sparseness(**SIZES)), lambda: metrics.sparseness()(a)),
        "entropy": Pair(theirs(quantus.Complexity(**SIZES)), lambda: metrics.entropy()(a)),
        "faithfulness_estimate": Pair(
            theirs(quantus.FaithfulnessEstimate(similarity_func=pearson, **step, **SIGNED)),
            lambda: metrics.faithfulness_estimate(logit)(a, x),
        ),
        "curve": Pair(
            theirs(quantus.PixelFlipping(**step, **SIGNED)),
            lambda: metrics.curve(f)(a, x).scores[1:].T,
        ),
        "relevance_mass": Pair(
            theirs(quantus.RelevanceMassAccuracy(**SIGNED), a.clamp_min(0), **masks),
            lambda: metrics.relevance_mass()(a, mask),
        ),
        "relevance_rank": Pair(
            theirs(quantus.RelevanceRankAccuracy(**SIGNED), **masks),
            lambda: metrics.relevance_rank()(a, mask),
        ),
        "top_k": Pair(
            theirs(quantus.TopKIntersection(k=10, **SIGNED), **masks),
            lambda: metrics.top_k(k=10)(a, mask),
        ),
        "pointing_game": Pair(
            theirs(quantus.PointingGame(**SIGNED), **masks),
            lambda: metrics.pointing_game()(a, mask),
        ),
        "max_sensitivity": Pair(
            theirs(quantus.MaxSensitivity(**move, **SIGNED), None, explain_func=explain),
            lambda: metrics.max_sensitivity(saliency, lambda x: moved, samples=2)(x),
        ),
        "local_lipschitz": Pair(
            theirs(quantus.LocalLipschitzEstimate(**move, **SIGNED), None, explain_func=explain),
            lambda: metrics.local_lipschitz(saliency, lambda x: moved, samples=2)(x),
        ),
    }


def distance(pair: Pair) -> float:
    """The largest difference between the two, as a share of the largest number."""
    with torch.no_grad():
        ours = pair.ours().double().numpy()
        theirs = numpy.asarray(pair.theirs(), dtype=float).reshape(ours.shape)
    return float(abs(ours - theirs).max() / abs(theirs).max())


def seconds(call: Callable[[], Any]) -> float:
    """CPU time of one call, the best of a few."""
    times: list[float] = []
    with torch.no_grad():
        for _ in range(ROUNDS):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print a row for each measure."""
    torch.set_num_threads(1)
    print(f"| measure | Quantus {quantus.__version__}, ms | attrib, ms | ratio | apart |")
    print("|---|---|---|---|---|")
    for name, pair in pairs().items():
        apart, theirs, ours = distance(pair), seconds(pair.theirs), seconds(pair.ours)
        times = f"{1e3 * theirs:.2f} | {1e3 * ours:.2f} | {theirs / ours:.1f}"
        print(f"| {name} | {times} | {apart:.0e} |")


if __name__ == "__main__":
    main()
