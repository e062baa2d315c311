"""Which regions of a photo make EfficientNet-Lite0 see an espresso, a palace, a lakeside?

python examples/superpixels.py [--out FOLDER]

Superpixels, regions of similar colour, are hidden by blurring them. Their Shapley values share out
what the photo gains over its blurred self, and come with standard errors.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import assets
import attrib
from attrib import games, plot
from attrib.types import Attribute, Score
from drawing import blur, new_figure, save, signed_number
from image_classifier import BLUR, class_names, efficientnet_lite0, load, to_input

QUESTIONS = (("espresso", ("espresso",)), ("palace", ("palace", "lakeside")))
SEGMENTS = 40  # superpixels that are asked for; small ones are joined to others
SAMPLES = 240  # photos with some of them hidden
NUMBERED = 8  # superpixels with a bar
HIDDEN = 3  # superpixels left out at the end, to see what becomes of the class


class Explained(NamedTuple):
    """Shapley values of the superpixels of a photo for a class, the largest in size first."""

    photo: Tensor  # (3, height, width), values in [0, 1]
    label: str
    places: Tensor  # (height, width): the place of each pixel's superpixel in that order
    values: Tensor  # (superpixel,), in logits
    errors: Tensor  # their standard errors
    gap: float  # of completeness
    probability: float  # of the class
    hidden: float  # the same without the HIDDEN superpixels that raise it most


def main() -> None:
    """Explain the classes, and draw a row for each of them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    # Half of the cores: threads that find theirs busy with something else hold up all the others.
    torch.set_num_threads(max(1, min(4, torch.get_num_threads() // 2)))

    model, names = efficientnet_lite0(), class_names()
    torch.manual_seed(0)
    with torch.no_grad():  # with gradients on, every evaluation would keep its graph for training
        explained = [
            one
            for photo, labels in QUESTIONS
            for one in explain(model, load(photo), {name: names.index(name) for name in labels})
        ]
    for one in explained:
        print(f"{one.label}: {in_words(one)}".replace("\n", " "))
        for place in range(3):
            print(f"  superpixel {place + 1}: {one.values[place]:+.2f} ± {one.errors[place]:.2f}")
    print("picture:", draw(explained, out / "superpixels.png"), sep="\n  ")


def explain(model: nn.Module, photo: Tensor, classes: dict[str, int]) -> list[Explained]:
    """Attribute the logits of some classes to superpixels; they share all evaluations."""
    x = to_input(photo)
    baseline = blur(x, BLUR)
    groups = games.slic(x, segments=SEGMENTS)
    _, first = np.unique(groups, return_index=True)  # a pixel of each superpixel

    def method(f: Score) -> Attribute:
        options = {"samples": SAMPLES, "groups": groups, "reduce": attrib.estimate}
        attribute = attrib.kernel_shap(f, **options)
        return lambda *data: attribute(*data)[:2]  # values and standard errors

    found = attrib.per_target(method, model, list(classes.values()))(x, baseline)
    explained = []
    for (label, target), *rows in zip(classes.items(), *found, strict=True):
        values, errors = (row[0, 0].flatten()[first] for row in rows)
        logit = attrib.target(model, target)
        gap = float(values.sum() - (logit(x) - logit(baseline)))

        v = games.game(attrib.prob(model, target), x, baseline, groups=groups)
        present = torch.ones(2, v.players, dtype=torch.bool)
        present[1, values.topk(HIDDEN).indices] = False
        probabilities = v(present)[:, 0].tolist()

        order = values.abs().argsort(descending=True)
        places = order.argsort()[groups[0, 0]]
        explained.append(
            Explained(photo, label, places, values[order], errors[order], gap, *probabilities)
        )
    return explained


def in_words(one: Explained) -> str:
    """Say what the values add up to, and what becomes of the class without the largest."""
    total = signed_number(one.values.sum(), "+.2f")
    return (
        f"{len(one.values)} superpixels add up to {total},\n"
        f"completeness error {signed_number(one.gap, '+.0e')}; without the {HIDDEN}\n"
        f"that raise it most, {one.probability:.0%} become {one.hidden:.0%}"
    )


def draw(explained: Sequence[Explained], path: Path) -> Path:
    """Draw a row for each class: superpixels, their values, and the largest with their errors."""
    figure = new_figure(8.6, 3.05 * len(explained) + 0.4)
    grid = figure.subplots(len(explained), 3, width_ratios=(1, 1, 1.1))
    for (left, middle, right), one in zip(grid, explained, strict=True):
        names = [str(place + 1) for place in range(NUMBERED)]
        labels = dict(enumerate(names + [""] * (len(one.values) - NUMBERED)))
        plot.mask(one.photo, one.places, labels=labels, ax=left)
        left.set_title(f"“{one.label}”, {one.probability:.0%}", fontsize=9)
        plot.image(one.values[one.places], one.photo, unit=in_words(one), ax=middle)
        middle.set_title("Shapley values of superpixels", fontsize=9)
        largest, unit = one.values[:NUMBERED], "logits, with two standard errors"
        plot.bar(names, largest, error=one.errors[:NUMBERED], sort=False, unit=unit, ax=right)
        right.set_title(f"the {NUMBERED} largest", fontsize=9)
    figure.supxlabel(
        "Orange raises the logit of the class, blue lowers it. What is hidden is blurred. "
        f"KernelSHAP from {SAMPLES} photos with hidden superpixels,\nwhich the two classes of the "
        "second photo share.",
        fontsize=8,
    )
    return save(figure, path)


if __name__ == "__main__":
    try:
        main()
    except assets.AssetError as error:
        sys.exit(str(error))
