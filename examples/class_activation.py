"""Where does EfficientNet-Lite0 look? Class activation maps on the photos of image_classifier.py.

python examples/class_activation.py [--out FOLDER]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import assets
import attrib
from drawing import signed_number
from image_classifier import (
    PHOTOS,
    SIZE,
    SOFTEN,
    TWO_CLASSES,
    Explained,
    Picture,
    class_names,
    classify,
    draw,
    efficientnet_lite0,
    load,
    to_input,
)

LAST = attrib.Site("_avg_pooling", of="input")  # 1280 feature maps of 7 x 7 places
MIDDLE = attrib.Site("_blocks.11._depthwise_conv", of="input")  # 672 of 14 x 14
LEGEND = (
    "Orange raises the logit of the class, blue lowers it, purple is a size without a sign. Maps "
    "are upsampled from the places of a layer; scales are in logits per place, that of "
    f"Ablation-CAM in logits times activations. For display, maps are averaged over {SOFTEN} "
    "pixels, and full colour stands for the 99th percentile."
)


def main() -> None:
    """Show where four methods look on every photo, and what tells two classes apart on one."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    # Half of the cores: threads that find theirs busy with something else hold up all the others.
    torch.set_num_threads(max(1, min(4, torch.get_num_threads() // 2)))

    model, names = efficientnet_lite0(), class_names()
    with torch.no_grad():  # with gradients on, every map would keep its graph for training
        explained = [explain(model, names, name) for name in PHOTOS]
        pair = explain_difference(model, names, *TWO_CLASSES)

    files = [draw(explained, out / "class_activation.png", LEGEND)]
    for name, one in zip(PHOTOS, explained, strict=True):
        files.append(draw([one], out / f"class_activation_{name}.png", LEGEND))
    files.append(draw([pair], out / "class_activation_difference.png", LEGEND))
    print("pictures:", *files, sep="\n  ")


def explain(model: nn.Module, names: Sequence[str], name: str) -> Explained:
    """Show what of a photo the logit of its most probable class rests on, by four methods."""
    photo = load(name)
    x = to_input(photo)
    best, verdict = classify(model, names, x)
    f = attrib.target(model, best)

    coarse = attrib.grad_cam(f, LAST)(x)
    # Behind this layer are a mean and a linear layer, so the map adds up to the logit.
    bias = model.get_submodule("_fc").bias[best]
    total, logit = coarse.sum(), f(x) - bias
    note = f"adds up to {signed_number(total, '+.2f')},\nthe logit without its bias"
    print(
        f"{name}: {', '.join(verdict)}\n  Grad-CAM adds up to {signed_number(total, '+.3f')}, "
        f"the logit without its bias is {signed_number(logit, '+.3f')}"
    )
    grad_cam = Picture("Grad-CAM", in_pixels(coarse), note)

    # A gradient is not a share of the score, so we show its size: the largest of the channels.
    detail = attrib.guided_grad_cam(f, LAST)(x).abs().amax(1)[0]
    guided = Picture(
        "guided Grad-CAM", detail, "size of the guided gradient,\ntimes Grad-CAM", False
    )

    finer = attrib.layer_cam(f, MIDDLE)(x)
    layer_cam = Picture("Layer-CAM", in_pixels(finer), "of a layer with 14 x 14 places")

    without = attrib.ablation_cam(f, LAST)(x)
    ablation = Picture("Ablation-CAM", in_pixels(without), "one channel at a time\nset to zero")
    return Explained(photo, "\n".join(verdict), [grad_cam, guided, layer_cam, ablation])


def explain_difference(
    model: nn.Module, names: Sequence[str], name: str, classes: Sequence[str]
) -> Explained:
    """Show what speaks for two classes on one photo, and what for the second rather than the first.

    The maps of the two classes share their forward pass. A difference of logits is a score as well.
    """
    photo = load(name)
    x = to_input(photo)
    _, verdict = classify(model, names, x)
    first, second = targets = [names.index(label) for label in classes]
    maps = attrib.per_target(lambda f: attrib.grad_cam(f, LAST), model, targets)(x)
    pictures = [
        Picture(f"for “{label}”", in_pixels(one), f"adds up to {signed_number(one.sum(), '+.2f')}")
        for label, one in zip(classes, maps, strict=True)
    ]
    rather = attrib.target(model, lambda logits: logits[:, second] - logits[:, first])
    difference = attrib.grad_cam(rather, LAST)(x)
    note = f"rather than “{classes[0]}”"
    pictures.append(Picture(f"for “{classes[1]}”", in_pixels(difference), note))
    for label, raises in zip(classes, (-difference, difference), strict=True):
        print(f"{name}, for “{label}”: {centre(raises):.0%} of the width from the left")
    return Explained(photo, "\n".join(verdict), pictures)


def in_pixels(cam: Tensor) -> Tensor:
    """Return a map (1, height, width) at the resolution of the photo, (SIZE, SIZE)."""
    return attrib.upsample(cam, (SIZE, SIZE))[0]


def centre(cam: Tensor) -> Tensor:
    """Return where the positive part of a map is centred, between the left edge, 0, and 1."""
    columns = cam.relu().sum((0, 1))
    places = (torch.arange(len(columns)) + 0.5) / len(columns)
    return (columns * places).sum() / columns.sum()


if __name__ == "__main__":
    try:
        main()
    except assets.AssetError as error:
        sys.exit(str(error))
