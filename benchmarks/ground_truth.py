"""How close does every method come to attributions that are known?

python -m benchmarks.ground_truth            # prints both tables, a minute on one core
python -m benchmarks.ground_truth --write    # puts them into docs/ground-truth.md
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attrib
from attrib import games, metrics
from benchmarks.truths import FUNCTIONS, PLANTED, Problem

__all__ = ["LEFT_OUT", "METHODS", "Cell", "main", "score", "tables"]

PAGE = Path(__file__).parents[1] / "docs" / "ground-truth.md"

EXACT = 1e-6
"""The largest error, relative to the largest attribution, that counts as none."""

Explain = Callable[[Problem], Tensor]


def _plain(method: Callable[..., Any], **options: Any) -> Explain:
    return lambda p: method(p.f, **options)(p.x)


def _from_baseline(method: Callable[..., Any], **options: Any) -> Explain:
    return lambda p: method(p.f, **options)(p.x, p.baseline)


def _hiding(method: Callable[..., Any], **options: Any) -> Explain:
    return lambda p: method(p.f, groups=p.groups, **options)(p.x, p.baseline)


def _enumerating(method: Callable[..., Any]) -> Explain:
    """All coalitions where there are few features, samples where there are many."""

    def explain(p: Problem) -> Tensor:
        drawn = {"samples": 1000} if p.players > 12 else {}
        return method(p.f, groups=p.groups, **drawn)(p.x, p.baseline)

    return explain


def _noisy(method: Callable[..., Any]) -> Explain:
    """Noise of a tenth of the spread of the data."""
    return lambda p: method(attrib.saliency(p.f), 0.1 * float(p.x.std()))(p.x)


def _cam(method: Callable[..., Any]) -> Explain:
    def explain(p: Problem) -> Tensor:
        if p.site is None:
            raise NotImplementedError
        return attrib.upsample(method(p.f, p.site)(p.x), p.x.shape[-2:]).unsqueeze(1)

    return explain


def _guided_cam(p: Problem) -> Tensor:
    if p.site is None:
        raise NotImplementedError
    return attrib.guided_grad_cam(p.f, p.site)(p.x)


def _rollout(method: Callable[..., Any]) -> Explain:
    """What the class token is made of, itself left out."""

    def explain(p: Problem) -> Tensor:
        if p.x.ndim != 3:
            raise NotImplementedError
        found = method(p.f, head_fusion=None)(p.x)[:, 0].clone()
        found[:, 0] = 0
        return found.unsqueeze(-1)

    return explain


def _exact(p: Problem) -> Tensor:
    if p.players > 12:
        raise NotImplementedError
    return attrib.shapley_values(p.f, groups=p.groups)(p.x, p.baseline)


def _permuted(p: Problem) -> Tensor:
    return attrib.feature_permutation(p.f, groups=p.groups, samples=5)(p.x)


def _owen(p: Problem) -> Tensor:
    """Features in pairs, patches of an image in rows."""
    size = 7 if p.players > 12 else 2
    drawn = {"samples": 25} if p.players > 12 else {}
    unions = torch.arange(p.players) // size
    return attrib.owen_values(p.f, unions=unions, groups=p.groups, **drawn)(p.x, p.baseline)


def _occluded(p: Problem) -> Tensor:
    """Windows of one feature; of three by three pixels; of one word."""
    window = {2: (1,), 4: (1, 3, 3), 3: (1, p.x.shape[-1])}[p.x.ndim]
    return attrib.occlusion(p.f, window)(p.x, p.baseline)


def _masked(p: Problem) -> Tensor:
    if p.x.ndim == 3:  # words come and go as a whole
        flat = attrib.rise(lambda x: p.f(x.mT), cells=(5,))(p.x.mT, p.baseline.mT)
        return flat.mT
    return attrib.rise(p.f, cells=(7, 7) if p.x.ndim == 4 else (3,))(p.x, p.baseline)


def _blurred(p: Problem) -> Tensor:
    dims = (-2, -1) if p.x.ndim == 4 else (1 - p.x.ndim,)
    return attrib.blur_ig(p.f, dims=dims, max_sigma=5.0)(p.x)


def _over_noise(p: Problem) -> Tensor:
    noise = attrib.perturb.uniform(0.1 * float(p.x.std()))
    return attrib.smooth(attrib.input_x_gradient(p.f), noise)(p.x)


def _over_data(p: Problem) -> Tensor:
    return attrib.expected(attrib.deep_lift(p.f))(p.x, p.baselines)


def _with_partners(p: Problem) -> Tensor:
    """Interactions, summed over the second feature."""
    if p.x.ndim > 2:
        raise NotImplementedError
    return attrib.integrated_hessians(p.f)(p.x, p.baseline).sum(-1)


METHODS: dict[str, Explain] = {
    "saliency": _plain(attrib.saliency),
    "input_x_gradient": _plain(attrib.input_x_gradient),
    "smooth_grad": _noisy(attrib.smooth_grad),
    "smooth_grad_sq": _noisy(attrib.smooth_grad_sq),
    "var_grad": _noisy(attrib.var_grad),
    "smooth": _over_noise,
    "guided_backprop": _plain(attrib.guided_backprop),
    "deconvolution": _plain(attrib.deconvolution),
    "average_gradient": _from_baseline(attrib.average_gradient),
    "integrated_gradients": _from_baseline(attrib.integrated_gradients),
    "guided_ig": _from_baseline(attrib.guided_ig),
    "blur_ig": _blurred,
    "integrated_hessians": _with_partners,
    "expected_gradients": lambda p: attrib.expected_gradients(p.f, samples=50)(p.x, p.baselines),
    "deep_lift": _from_baseline(attrib.deep_lift),
    "expected": _over_data,
    "lrp": _plain(attrib.lrp),
    "excitation_backprop": _plain(attrib.excitation_backprop),
    "feature_ablation": _hiding(attrib.feature_ablation),
    "feature_inclusion": _hiding(attrib.feature_inclusion),
    "feature_permutation": _permuted,
    "occlusion": _occluded,
    "rise": _masked,
    "shapley_values": _exact,
    "shapley_sampling": _hiding(attrib.shapley_sampling),
    "kernel_shap": _hiding(attrib.kernel_shap, samples=1000),
    "unbiased_kernel_shap": _hiding(attrib.unbiased_kernel_shap, samples=1000),
    "svarm": _hiding(games.svarm),
    "owen_values": _owen,
    "banzhaf_values": _enumerating(attrib.banzhaf_values),
    "lime": _hiding(attrib.lime),
    "grad_cam": _cam(attrib.grad_cam),
    "grad_cam_plus_plus": _cam(attrib.grad_cam_plus_plus),
    "hires_cam": _cam(attrib.hires_cam),
    "xgrad_cam": _cam(attrib.xgrad_cam),
    "layer_cam": _cam(attrib.layer_cam),
    "ablation_cam": _cam(attrib.ablation_cam),
    "score_cam": _cam(attrib.score_cam),
    "eigen_cam": _cam(attrib.eigen_cam),
    "guided_grad_cam": _guided_cam,
    "attention_rollout": _rollout(attrib.attention_rollout),
    "gradient_rollout": _rollout(attrib.gradient_rollout),
}
"""Every public method that yields a map over its input, with its defaults where it has some."""

SLOPES = (
    *("saliency", "smooth_grad", "smooth_grad_sq", "var_grad", "average_gradient"),
    *("guided_backprop", "deconvolution", "guided_grad_cam"),
)
"""Methods whose numbers are per unit of the input: channels are added by size, not by sign."""

LEFT_OUT: Mapping[str, Iterable[str]] = {
    "about layers, neurons and edges": (
        *("activation", "activation_and_gradient", "activation_patching", "attribution_patching"),
        *("conductance", "edge_attribution_patching", "gradient_x_activation"),
        *("internal_influence", "layer", "neuron_conductance", "attention_maps"),
    ),
    "about pairs of features, or a game itself": ("interactions", "game"),
    "scores and sites": (
        *("batched", "contrast", "log_prob", "neuron", "override", "prob", "split", "tap"),
        *("target", "with_attention"),
    ),
    "another way to call or to measure methods": (
        *("check", "compare", "grad_and_score", "per_target", "progress", "upsample"),
        *("blur_path", "straight"),
    ),
    "features and kernels of games": (
        *("exponential_kernel", "pairwise", "patches", "slic", "superpixels", "tokens"),
        *("windows", "words"),
    ),
    "reducers": (
        *("estimate", "maximum", "mean", "minimum", "second_moment", "total", "variance"),
    ),
}
"""The other public functions, and why no row is theirs."""


class Cell(NamedTuple):
    """How good an attribution is.

    Attributes:
        first: For functions the cosine of the angle to the truth, for networks the share of the
            attribution where it should be; the mean over the rows.
        second: For functions the largest error relative to the largest attribution, for networks
            the share of the largest attributions that are where they should be.
    """

    first: float
    second: float


def score(method: str, problem: Problem) -> Cell | str:
    """How close a method comes; or why there is no number: ``"refuses"`` or ``"-"``."""
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            found = METHODS[method](problem)
    except NotImplementedError:
        return "-"
    except attrib.AttribError:
        return "refuses"
    if problem.truth.dtype == torch.bool:
        return _where(found.abs() if method in SLOPES else found, problem)
    return _how_much(found.to(problem.truth), problem.truth)


def tables(
    methods: Iterable[str] = tuple(METHODS),
    problems: Mapping[str, Callable[[], Problem]] | None = None,
) -> str:
    """A table in Markdown: a row for each method, a column for each problem."""
    columns = {name: make() for name, make in (problems or FUNCTIONS).items()}
    share = [f" ({p.chance:.2f})" if p.truth.dtype == torch.bool else "" for p in columns.values()]
    lines = [
        "| method | " + " | ".join(n + s for n, s in zip(columns, share, strict=True)) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for method in methods:
        cells = [score(method, problem) for problem in columns.values()]
        if any(isinstance(cell, Cell) for cell in cells):
            planted = [p.truth.dtype == torch.bool for p in columns.values()]
            shown = [_shown(cell, kind) for cell, kind in zip(cells, planted, strict=True)]
            lines.append(f"| `{method}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put them into {PAGE.name}")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    made = {"functions": tables(problems=FUNCTIONS), "planted": tables(problems=PLANTED)}
    if not write:
        print("\n\n".join(made.values()))
        return
    text = PAGE.read_text("utf-8")
    for name, table in made.items():
        between = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(between, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)
    PAGE.write_text(text, "utf-8")


def _how_much(found: Tensor, truth: Tensor) -> Cell:
    cosine = torch.nn.functional.cosine_similarity(found, truth, dim=-1).mean()
    return Cell(float(cosine), float((found - truth).abs().max() / truth.abs().max()))


def _where(found: Tensor, problem: Problem) -> Cell:
    """The mass and the rank of the size, channels added up, be they in front or at the end."""
    channels = 1 if problem.places == 2 else tuple(range(2, found.ndim))
    size = found.sum(channels).abs() if channels else found.abs()
    mass = metrics.relevance_mass()(size, problem.truth)
    rank = metrics.relevance_rank()(size, problem.truth)
    return Cell(float(mass.nan_to_num().mean()), float(rank.mean()))


def _shown(cell: Cell | str, planted: bool) -> str:
    if isinstance(cell, str):
        return cell
    if planted:
        return f"{cell.first:.2f} / {cell.second:.2f}"
    return "**exact**" if cell.second <= EXACT else f"{cell.first:.2f}"


if __name__ == "__main__":
    main()
