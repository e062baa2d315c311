"""Rows of the methods that hide features."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks import limits_games, with_attrib, with_captum
from benchmarks.harness import Goal, Row, options, same_evaluations

IMAGES = ("cnn", "cnn-large", "resnet18", "vgg19")
LAYOUTS = ("contiguous", "channels_last")
ROWS_TRIED = {
    "mlp": (1024, 4096),
    "mlp-wide": (64, 128),
    "mlp-500": (1024, 4096),
    "cnn": (16, 32),
    "cnn-large": (8, 16),
    "resnet18": (4, 8),
    "vgg19": (4,),
    "bert": (4, 16),
}
TOGETHER_TRIED = {
    "mlp": (4, 13),
    "mlp-wide": (32, 128),
    "mlp-500": (16, 64),
    "cnn": (16, 32, 64),
    "cnn-large": (4, 8, 16),
    "resnet18": (1, 4),
    "vgg19": (4,),
    "bert": (4, 16),
}
"""How many perturbations Captum is let evaluate at once, where it is tuned."""


def feature_ablation(
    model: str, name: str, size: tuple[int, ...], goal: Goal, batch: int | None = None
) -> Row:
    """The score without each group of entries."""
    return Row(
        method=f"feature ablation, {name}",
        model=model,
        attrib=partial(with_attrib.feature_ablation, size=size),
        captum=partial(with_captum.feature_ablation, size=size),
        tuned=options(
            partial(with_captum.feature_ablation, size=size), together=TOGETHER_TRIED[model]
        ),
        limit=options(
            partial(limits_games.feature_ablation, size=size),
            rows=ROWS_TRIED[model],
            layout=_layouts(model),
        ),
        check=same_evaluations(examples=2),
        goal=goal,
        batch=batch,
    )


def occlusion(model: str, window: int, stride: int, goal: Goal, batch: int) -> Row:
    """The score behind square windows over all channels."""
    task = {"window": window, "stride": stride}
    return Row(
        method=f"occlusion, windows of {window}, steps of {stride}",
        model=model,
        attrib=partial(with_attrib.occlusion, **task),
        captum=partial(with_captum.occlusion, **task),
        tuned=options(partial(with_captum.occlusion, **task), together=TOGETHER_TRIED[model]),
        limit=options(
            partial(limits_games.occlusion, **task),
            rows=ROWS_TRIED[model],
            layout=_layouts(model),
        ),
        check=same_evaluations(examples=2),
        goal=goal,
        batch=batch,
    )


def _layouts(model: str) -> tuple[str, ...]:
    return LAYOUTS if model in IMAGES else LAYOUTS[:1]


TABULAR = Goal(captum=1.5, tuned=1.0, limit=1.25)
ONE_ROW = Goal(captum=10.0, tuned=2.0, limit=1.5)
SMALL_CNN = Goal(captum=4.0, tuned=1.5, limit=1.05)
# What a window does not reach is not computed again.
REACH = Goal(captum=8.0, tuned=4.0, limit=0.4)
VGG = Goal(captum=4.0, tuned=4.0, limit=0.3)
RESNET = Goal(captum=1.5, tuned=1.5, limit=0.8)
RANK_ONE = Goal(captum=8.0, tuned=6.0, limit=0.2)
# The score of the input itself is evaluated twice, which shows where features are few.
FEW = Goal(captum=1.0, tuned=0.9, limit=1.15)

ROWS: tuple[Row, ...] = (
    replace(feature_ablation("mlp", "13 columns", (1,), TABULAR), quick=True),
    feature_ablation("mlp-wide", "128 columns of one row", (1,), ONE_ROW, batch=1),
    replace(
        feature_ablation("cnn", "64 patches of one image", (4, 4), SMALL_CNN, batch=1),
        quick=True,
    ),
    feature_ablation("mlp-500", "500 columns", (1,), RANK_ONE),
    feature_ablation("cnn", "1024 pixels of one image", (1, 1), REACH, batch=1),
    occlusion("cnn", 8, 4, SMALL_CNN, batch=1),
    occlusion("cnn", 8, 1, REACH, batch=1),
    occlusion("cnn", 2, 2, REACH, batch=1),
    occlusion("cnn-large", 8, 4, REACH, batch=1),
    feature_ablation("vgg19", "49 patches of one image", (32, 32), VGG, batch=1),
    feature_ablation("resnet18", "49 patches of one image", (32, 32), RESNET, batch=1),
    feature_ablation("bert", "16 pieces of a text", (4, 0), FEW, batch=1),
)
