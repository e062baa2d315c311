"""Rows of Shapley values, KernelSHAP and LIME."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import captum.attr
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from torch import Tensor

import attrib
from attrib.games import kernel, sampling, surrogate
from benchmarks import limits_shapley
from benchmarks.harness import Goal, Row, options, same_in_the_mean
from benchmarks.limits_games import tiles
from benchmarks.models import Workload

Call = Callable[[], Tensor]

ROWS_TRIED = {"mlp": (1024, 4096), "cnn": (16, 32), "resnet18": (4, 8)}
TOGETHER_TRIED = {"mlp": (13, 1000), "cnn": (16, 64), "resnet18": (1, 4)}
"""How many perturbations Captum is let evaluate at once, where it is tuned."""


class Method(NamedTuple):
    """A method that draws coalitions.

    Attributes:
        name: What is computed, of so many samples.
        attrib: ``attrib(workload, samples, size)``.
        captum: The same, which also takes how many perturbations are evaluated ``together``.
        limit: The same, which also takes ``rows`` and ``layout``.
    """

    name: str
    attrib: Callable[..., Call]
    captum: Callable[..., Call]
    limit: Callable[..., Call]

    def row(
        self,
        model: str,
        size: Sequence[int],
        samples: int,
        draws: int,
        goal: Goal,
        batch: int | None = None,
    ) -> Row:
        """So many samples of players that are boxes of a size."""
        task: dict[str, Any] = {"samples": samples, "size": size}
        captum = partial(self.captum, **task)
        layouts = ("contiguous",) if model == "mlp" else ("contiguous", "channels_last")
        return Row(
            method=self.name.format(samples) + (" of one row" if batch == 1 else ""),
            model=model,
            attrib=partial(self.attrib, **task),
            captum=captum,
            tuned=options(captum, together=TOGETHER_TRIED[model]),
            limit=options(partial(self.limit, **task), rows=ROWS_TRIED[model], layout=layouts),
            check=same_in_the_mean(draws),
            goal=goal,
            batch=batch,
        )


def _shapley_sampling(workload: Workload, *, samples: int, size: Sequence[int]) -> Call:
    method = sampling.shapley_sampling(
        _score(workload), samples=samples, design="independent", groups=_groups(workload, size)
    )
    return lambda: method(workload.x, workload.baseline)


def _kernel_shap(workload: Workload, *, samples: int, size: Sequence[int]) -> Call:
    method = kernel.kernel_shap(_score(workload), samples=samples, groups=_groups(workload, size))
    return lambda: method(workload.x, workload.baseline)


def _lime(workload: Workload, *, samples: int, size: Sequence[int]) -> Call:
    method = surrogate.lime(
        _score(workload),
        samples=samples,
        similarity=lambda coalitions: torch.ones(len(coalitions)),
        groups=_groups(workload, size),
    )
    return lambda: method(workload.x, workload.baseline)


def _groups(workload: Workload, size: Sequence[int]) -> Tensor | None:
    return None if set(size) == {1} else tiles(workload.x, size)


def _score(workload: Workload) -> Any:
    return attrib.target(workload.model, workload.target)


def _captum_shapley_sampling(
    workload: Workload, *, samples: int, size: Sequence[int], together: int = 1
) -> Call:
    return _captum(
        captum.attr.ShapleyValueSampling(workload.model), workload, samples, size, together
    )


def _captum_kernel_shap(
    workload: Workload, *, samples: int, size: Sequence[int], together: int = 1
) -> Call:
    return _captum(captum.attr.KernelShap(workload.model), workload, samples, size, together)


def _captum_lime(
    workload: Workload, *, samples: int, size: Sequence[int], together: int = 1
) -> Call:
    method = captum.attr.Lime(
        workload.model,
        interpretable_model=SkLearnLinearRegression(),
        similarity_func=lambda *_, **__: 1.0,
    )
    return _captum(method, workload, samples, size, together)


def _captum(
    method: Any, workload: Workload, samples: int, size: Sequence[int], together: int
) -> Call:
    mask = tiles(workload.x, size).expand(1, *workload.x.shape[1:]).contiguous()

    def call() -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method.attribute(
                workload.x,
                baselines=workload.baseline,
                target=workload.target,
                feature_mask=mask,
                n_samples=samples,
                perturbations_per_eval=together,
            )

    return call


# Each order drawn for itself, as Captum draws them.
SHAPLEY_SAMPLING = Method(
    "Shapley values, {} orders",
    _shapley_sampling,
    _captum_shapley_sampling,
    limits_shapley.shapley_sampling,
)
KERNEL_SHAP = Method(
    "KernelSHAP, {} coalitions", _kernel_shap, _captum_kernel_shap, limits_shapley.kernel_shap
)
# Least squares with equal weights, where Captum's and LIME's similarities agree.
LIME = Method("LIME, {} coalitions", _lime, _captum_lime, limits_shapley.lime)

ONE_ROW = Goal(captum=80.0, tuned=25.0, limit=1.3)
ONE_REGRESSION = Goal(captum=70.0, tuned=35.0, limit=1.3)
SMALL_CNN = Goal(captum=2.0, tuned=1.2, limit=1.3)

ROWS: tuple[Row, ...] = (
    SHAPLEY_SAMPLING.row("mlp", (1,), 25, draws=20, goal=ONE_ROW, batch=1),
    SHAPLEY_SAMPLING.row("mlp", (1,), 25, draws=3, goal=Goal(captum=1.3, limit=1.15)),
    KERNEL_SHAP.row("mlp", (1,), 208, draws=20, goal=ONE_REGRESSION, batch=1),
    LIME.row("mlp", (1,), 208, draws=20, goal=Goal(captum=60.0, tuned=30.0, limit=1.3), batch=1),
    SHAPLEY_SAMPLING.row("cnn", (8, 8), 25, draws=4, goal=SMALL_CNN, batch=1),
    KERNEL_SHAP.row("cnn", (8, 8), 256, draws=4, goal=SMALL_CNN, batch=1),
)
