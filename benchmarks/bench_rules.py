"""Rows of the methods that change derivatives: DeepLift, DeepLiftShap, guided backpropagation.

Captum is compared where it is right: it is not where a ReLU meets a max-pool (captum #1104), nor
with operations that are no modules.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import limits_rules, with_attrib, with_captum
from benchmarks.harness import Goal, Make, Row, options, same_evaluations

LAYOUTS = ("contiguous", "channels_last")


def deep_lift(model: str, goal: Goal, *, captum: bool, batch: int | None = None) -> Row:
    """DeepLift with its rescale rule."""
    return _row(
        "DeepLift",
        model,
        goal,
        with_attrib.deep_lift,
        with_captum.deep_lift if captum else None,
        _limit(limits_rules.deep_lift, model),
        batch,
    )


def guided_backprop(model: str, goal: Goal) -> Row:
    """Guided backpropagation."""
    return _row(
        "guided backprop",
        model,
        goal,
        with_attrib.guided_backprop,
        with_captum.guided_backprop,
        _limit(limits_rules.guided_backprop, model),
        None,
    )


def deep_lift_shap(model: str, goal: Goal, batch: int) -> Row:
    """DeepLift averaged over 32 baselines."""
    return _row(
        "DeepLiftShap, 32 baselines",
        model,
        goal,
        with_attrib.deep_lift_shap,
        with_captum.deep_lift_shap,
        options(limits_rules.deep_lift_shap, rows=(1024, 4096)),
        batch,
    )


def _row(
    method: str,
    model: str,
    goal: Goal,
    attrib: Make,
    captum: Make | None,
    limit: dict[str, Make],
    batch: int | None,
) -> Row:
    images = model in ("cnn", "cnn-average", "resnet18", "vgg19")
    return Row(
        method=method,
        model=model,
        attrib=attrib,
        captum=captum,
        limit=limit,
        check=same_evaluations(examples=4 if images else None),
        goal=goal,
        batch=batch,
    )


def _limit(make: Make, model: str) -> dict[str, Make]:
    return options(make, layout=LAYOUTS[:1] if model.startswith("mlp") else LAYOUTS)


TABULAR = Goal(captum=4.0, limit=1.2)
SMALL_CNN = Goal(captum=1.8, limit=1.2)
LARGE = Goal(captum=1.0, limit=1.2)

ROWS: tuple[Row, ...] = (
    replace(deep_lift("mlp", TABULAR, captum=True), quick=True),
    replace(guided_backprop("mlp", TABULAR), quick=True),
    deep_lift_shap("mlp", TABULAR, batch=128),
    deep_lift("cnn", Goal(limit=1.2), captum=False),
    deep_lift("cnn-average", SMALL_CNN, captum=True),
    replace(guided_backprop("cnn", SMALL_CNN), quick=True),
    deep_lift("resnet18", Goal(limit=1.2), captum=False),
    guided_backprop("resnet18", LARGE),
    deep_lift("vgg19", Goal(limit=1.2), captum=False),
    guided_backprop("vgg19", LARGE),
)
