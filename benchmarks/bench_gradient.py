"""Rows of the gradient and path methods: their time, and the fixed cost of one small call."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks import limits, with_attrib, with_captum
from benchmarks.harness import Check, Goal, Row, options, same_evaluations, same_in_the_mean

LAYOUTS = ("contiguous", "channels_last")
IMAGES = ("cnn", "resnet18", "vgg19")
ROWS_TRIED = {
    "mlp": (1024, 4096),
    "mlp-wide": (1024, 4096),
    "cnn": (16, 32),
    "resnet18": (4, 8),
    "vgg19": (2,),
    "bert": (4, 16),
}
PARITY = Goal(captum=1.0, tuned=0.97, limit=1.05)
TARGETS = 10


def saliency(model: str, goal: Goal, batch: int | None = None, method: str = "saliency") -> Row:
    """The gradient."""
    return Row(
        method=method,
        model=model,
        attrib=with_attrib.saliency,
        captum=with_captum.saliency,
        limit=options(limits.saliency, layout=_layouts(model)),
        check=_same(model),
        goal=goal,
        batch=batch,
    )


def input_x_gradient(model: str, goal: Goal) -> Row:
    """The input times the gradient."""
    return Row(
        method="input x gradient",
        model=model,
        attrib=with_attrib.input_x_gradient,
        captum=with_captum.input_x_gradient,
        limit=options(limits.input_x_gradient, layout=_layouts(model)),
        check=_same(model),
        goal=goal,
    )


def integrated_gradients(
    model: str,
    steps: int,
    goal: Goal,
    batch: int | None = None,
    method: str = "IG",
    rows: tuple[int, ...] | None = None,
) -> Row:
    """Integrated gradients by a Gauss-Legendre rule of so many steps."""
    if rows is None:
        rows = (steps,) if batch == 1 else ROWS_TRIED[model]
    return Row(
        method=f"{method}, {steps} steps",
        model=model,
        attrib=partial(with_attrib.integrated_gradients, steps=steps),
        captum=partial(with_captum.integrated_gradients, steps=steps),
        tuned=options(partial(with_captum.integrated_gradients, steps=steps), rows=rows),
        limit=options(
            partial(limits.integrated_gradients, steps=steps), rows=rows, layout=_layouts(model)
        ),
        check=_same(model),
        goal=goal,
        batch=batch,
    )


def expected_gradients(model: str, samples: int, draws: int, goal: Goal) -> Row:
    """Expected gradients (Captum's GradientShap), without noise."""
    return Row(
        method=f"expected gradients, {samples} samples",
        model=model,
        attrib=partial(with_attrib.expected_gradients, samples=samples),
        captum=partial(with_captum.expected_gradients, samples=samples),
        limit=options(
            partial(limits.expected_gradients, samples=samples),
            rows=ROWS_TRIED[model],
            layout=_layouts(model),
        ),
        check=same_in_the_mean(draws),
        goal=goal,
    )


def smoothed_integrated_gradients(
    model: str, samples: int, steps: int, draws: int, goal: Goal
) -> Row:
    """Integrated gradients averaged over noisy copies (Captum's NoiseTunnel)."""
    task = {"samples": samples, "steps": steps, "std": 0.1}
    return Row(
        method=f"smoothed IG, {samples} x {steps}",
        model=model,
        attrib=partial(with_attrib.smoothed_integrated_gradients, **task),
        captum=partial(with_captum.smoothed_integrated_gradients, **task),
        tuned=options(
            partial(with_captum.smoothed_integrated_gradients, **task),
            together=(1,),
            rows=ROWS_TRIED[model],
        ),
        limit=options(
            partial(limits.smoothed_integrated_gradients, **task),
            rows=ROWS_TRIED[model],
            layout=_layouts(model),
        ),
        check=same_in_the_mean(draws),
        goal=goal,
    )


def saliency_per_target(model: str, goal: Goal) -> Row:
    """The gradients of ten outputs: one forward, where Captum needs ten."""
    return Row(
        method=f"saliency, {TARGETS} targets",
        model=model,
        attrib=partial(with_attrib.saliency_per_target, targets=TARGETS),
        captum=partial(with_captum.saliency_per_target, targets=TARGETS),
        limit=options(
            partial(limits.saliency_per_target, targets=TARGETS),
            backward=_backwards(model),
            layout=_layouts(model),
        ),
        check=_same(model),
        goal=goal,
    )


def input_x_gradient_per_target(model: str, goal: Goal) -> Row:
    """The input times the gradients of ten outputs."""
    return Row(
        method=f"input x gradient, {TARGETS} targets",
        model=model,
        attrib=partial(with_attrib.input_x_gradient_per_target, targets=TARGETS),
        captum=partial(with_captum.input_x_gradient_per_target, targets=TARGETS),
        limit=options(
            partial(limits.input_x_gradient_per_target, targets=TARGETS),
            backward=_backwards(model),
            layout=_layouts(model),
        ),
        check=_same(model),
        goal=goal,
    )


def _layouts(model: str) -> tuple[str, ...]:
    return LAYOUTS if model in IMAGES else LAYOUTS[:1]


def _same(model: str) -> Check:
    # Float64 convolutions are slow, and a few examples are as good a witness.
    return same_evaluations(examples=4 if model in IMAGES else None)


def _backwards(model: str) -> tuple[str, ...]:
    # torch has no batched backward of scaled dot product attention: it warns, and loops slowly.
    return ("loop",) if model == "bert" else ("loop", "batched")


TABULAR = Goal(captum=8.0, tuned=7.0, limit=1.15)
MANY_STEPS = Goal(captum=14.0, tuned=7.0, limit=1.15)
SMALL_CNN = Goal(captum=1.8, tuned=1.25, limit=1.05)
FIXED_COST = Goal(captum=1.0, limit=2.5)

_QUICK: tuple[Row, ...] = (
    saliency("mlp", TABULAR),
    input_x_gradient("mlp", TABULAR),
    integrated_gradients("mlp", 50, Goal(captum=12.0, tuned=7.0, limit=1.15)),
    expected_gradients("mlp", samples=25, draws=20, goal=Goal(captum=8.0, limit=1.15)),
    saliency_per_target("mlp", Goal(captum=15.0, limit=1.1)),
    saliency("mlp", FIXED_COST, batch=1, method="saliency of one row"),
    integrated_gradients("mlp", 50, FIXED_COST, batch=1, method="IG of one row"),
    saliency("cnn", Goal(limit=1.05)),
    integrated_gradients("cnn", 50, SMALL_CNN),
    saliency_per_target("cnn", Goal(captum=1.8, limit=1.1)),
)

ROWS: tuple[Row, ...] = (
    *(replace(row, quick=True) for row in _QUICK),
    integrated_gradients("mlp", 300, MANY_STEPS),
    smoothed_integrated_gradients("mlp", 10, 10, draws=5, goal=TABULAR),
    input_x_gradient_per_target("mlp", Goal(captum=15.0, limit=1.1)),
    saliency("mlp-wide", Goal(limit=1.15)),
    integrated_gradients("mlp-wide", 50, Goal(limit=1.15)),
    input_x_gradient("cnn", Goal(limit=1.05)),
    integrated_gradients("cnn", 300, SMALL_CNN, batch=2),
    expected_gradients("cnn", samples=25, draws=4, goal=Goal(limit=1.05)),
    smoothed_integrated_gradients("cnn", 5, 10, draws=3, goal=Goal(limit=1.05)),
    input_x_gradient_per_target("cnn", Goal(captum=1.8, limit=1.1)),
    saliency("resnet18", PARITY),
    integrated_gradients("resnet18", 8, PARITY),
    saliency_per_target("resnet18", Goal(limit=1.1)),
    saliency("vgg19", PARITY),
    integrated_gradients("vgg19", 4, PARITY),
    saliency("bert", PARITY),
    input_x_gradient("bert", PARITY),
    integrated_gradients("bert", 8, PARITY),
    saliency_per_target("bert", Goal(limit=1.1)),
)
