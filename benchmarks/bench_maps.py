"""Rows of class activation maps, attention rollout, and patching between two runs.

The rows of patching belong together: the first-order effects of all entries of all layers take a
fraction of the time of the true effects of the positions of one layer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks import limits_maps, with_attrib, with_captum
from benchmarks.harness import Goal, Make, Row, options, same_evaluations
from benchmarks.limits_layers import Place

LAYOUTS = ("contiguous", "channels_last")
NAMES = {
    "grad_cam_plus_plus": "Grad-CAM++",
    "hires_cam": "HiResCAM",
    "xgrad_cam": "XGrad-CAM",
    "layer_cam": "Layer-CAM",
}


def by_gradients(name: str, model: str, place: Place, goal: Goal) -> Row:
    """A map by one gradient."""
    task = {"name": name, "place": place}
    return Row(
        method=f"{NAMES[name]}, {place}",
        model=model,
        attrib=partial(with_attrib.class_activation, **task),
        limit=options(partial(limits_maps.class_activation, **task), layout=LAYOUTS),
        check=same_evaluations(examples=4),
        goal=goal,
    )


def by_evaluations(name: str, model: str, place: Place, rows: tuple[int, ...], goal: Goal) -> Row:
    """A map by one evaluation for each channel of a layer."""
    made = {"score_cam": limits_maps.score_cam, "ablation_cam": limits_maps.ablation_cam}[name]
    task: dict[str, Place] = {"place": place}
    return Row(
        method=f"{'Score' if name == 'score_cam' else 'Ablation'}-CAM, {place}",
        model=model,
        attrib=partial(with_attrib.class_activation, name=name, **task),
        limit=options(partial(made, **task), rows=rows, layout=LAYOUTS),
        check=same_evaluations(examples=2),
        goal=goal,
    )


def eigen_cam(model: str, goal: Goal) -> Row:
    """The first principal direction of the last layer."""
    return Row(
        method="Eigen-CAM, late",
        model=model,
        attrib=partial(with_attrib.class_activation, name="eigen_cam", place="late"),
        limit=options(partial(limits_maps.eigen_cam, place="late"), layout=LAYOUTS),
        check=same_evaluations(examples=4),
        goal=goal,
    )


def guided_grad_cam(model: str, goal: Goal) -> Row:
    """Guided Grad-CAM, upsampled as Captum does by default."""
    return Row(
        method="guided Grad-CAM, late",
        model=model,
        attrib=partial(with_attrib.guided_grad_cam, place="late"),
        captum=partial(with_captum.guided_grad_cam, place="late"),
        limit=options(partial(limits_maps.guided_grad_cam, place="late"), layout=LAYOUTS),
        check=same_evaluations(examples=4),
        goal=goal,
    )


def on_bert(method: str, ours: Make, theirs: dict[str, Make], goal: Goal, batch: int = 4) -> Row:
    """A method of a transformer."""
    return Row(
        method=method,
        model="bert",
        attrib=ours,
        limit=theirs,
        check=same_evaluations(examples=1),
        goal=goal,
        batch=batch,
    )


CLOSE = Goal(limit=1.1)
WITH_CAPTUM = Goal(captum=1.0, limit=1.1)

ROWS: tuple[Row, ...] = (
    *(by_gradients(name, "cnn", "late", CLOSE) for name in NAMES),
    by_evaluations("score_cam", "cnn", "late", (128, 512), CLOSE),
    replace(by_evaluations("ablation_cam", "cnn", "late", (128, 512), CLOSE), quick=True),
    by_evaluations("ablation_cam", "cnn", "middle", (128, 512), CLOSE),
    replace(eigen_cam("cnn", CLOSE), quick=True),
    replace(guided_grad_cam("cnn", WITH_CAPTUM), quick=True),
    by_gradients("layer_cam", "resnet18", "middle", CLOSE),
    guided_grad_cam("resnet18", WITH_CAPTUM),
    on_bert(
        "attention rollout",
        with_attrib.attention_rollout,
        options(limits_maps.attention_rollout),
        CLOSE,
    ),
    on_bert(
        "gradient-weighted rollout",
        with_attrib.gradient_rollout,
        options(limits_maps.gradient_rollout),
        CLOSE,
    ),
    on_bert(
        "attribution patching, all layers",
        with_attrib.attribution_patching,
        options(limits_maps.attribution_patching),
        CLOSE,
    ),
    on_bert(
        "edge attribution patching, all layers",
        with_attrib.edge_attribution_patching,
        options(limits_maps.edge_attribution_patching),
        Goal(limit=1.15),
    ),
    on_bert(
        "activation patching, middle, every position",
        partial(with_attrib.activation_patching, place="middle"),
        options(partial(limits_maps.activation_patching, place="middle"), rows=(4, 16)),
        Goal(limit=1.3),
    ),
)
