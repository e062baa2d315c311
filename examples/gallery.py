"""Draw every kind of picture of attrib.plot, from real models: the gallery of docs/plots.md.

python examples/gallery.py [--out FOLDER]
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import assets
import attrib
from attrib import games, plot
from diabetes import Table
from diabetes import load as load_table
from drawing import blur, save
from image_classifier import (
    BLUR,
    SIZE,
    SOFTEN,
    class_names,
    efficientnet_lite0,
    to_input,
)
from image_classifier import load as load_photo

LAST = attrib.Site("_avg_pooling", of="input")
WORDS = {"not": -1.2, "dull": -2.0, "never": -0.8, "wonderful": 2.4, "bright": 1.1, "cast": 0.3}
REVIEWS = ("never dull , with a wonderful cast", "bright colours do not save a dull film")


def main() -> None:
    """Draw all of them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    out: Path = arguments.parse_args().out
    torch.set_num_threads(max(1, min(4, torch.get_num_threads() // 2)))
    torch.manual_seed(0)

    with torch.no_grad():  # with gradients on, every attribution would keep its graph for training
        photos, charts = [*of_a_photo()], [*of_series(), *of_text()]
    charts += of_a_table()
    files = [
        *(small(save(figure, out / f"plots_{name}.png", dpi=72)) for name, figure in photos),
        *(save(figure, out / f"plots_{name}.png") for name, figure in charts),
    ]
    print("pictures:", *files, sep="\n  ")


def of_a_photo() -> Iterator[tuple[str, Figure]]:
    """What a network owes to a photo of a cat: modes, methods, segments, deletion curves."""
    model, photo = efficientnet_lite0(), load_photo("cat")
    x = to_input(photo)
    baseline = blur(x, BLUR)
    f = attrib.target(model, class_names().index("Egyptian cat"))

    maps = {
        "Grad-CAM": attrib.upsample(attrib.grad_cam(f, LAST)(x), (SIZE, SIZE))[0],
        "integrated gradients": attrib.integrated_gradients(f, steps=32)(x, baseline).sum(1)[0],
        "saliency": attrib.saliency(f)(x).sum(1)[0],
    }
    # Single pixels of a ReLU network flicker, regions do not.
    soft = {name: blur(heat[None, None], SOFTEN)[0, 0] for name, heat in maps.items()}
    heat, unit = soft["Grad-CAM"], "logits per pixel"
    yield (
        "modes",
        plot.image(heat, photo, mode=("original", "overlay", "blend", "heatmap"), unit=unit),
    )
    more = ("mask", "alpha", "contour", "top")
    yield "more_modes", plot.image(heat, photo, mode=more, sign="positive", top=10, unit=unit)
    yield "compare", plot.compare(soft, photo, share_scale=False, unit="as each method has it")

    groups = games.slic(x, segments=24)
    of_segments = attrib.feature_ablation(f, groups=groups)(x, baseline)
    ids = groups[0, 0]
    each = torch.stack([of_segments[0, 0][ids == number][0] for number in ids.unique()])
    yield "mask", plot.mask(photo, ids, each, unit="logits that the segment adds")

    curves = {}
    for name, one in maps.items():
        per_segment = torch.stack([one[ids == number].sum() for number in ids.unique()])
        curves[name] = attrib.metrics.curve(f, groups=groups)(per_segment[None], x, baseline)
    yield "curve", plot.curve(curves, ylabel="logit", xlabel="share of the segments hidden")


def of_series() -> Iterator[tuple[str, Figure]]:
    """What the loudest moment of three waves, smoothed, owes to each of them."""
    time = torch.linspace(0, 4, 400)
    waves = torch.stack(
        [torch.sin(9 * time) * torch.exp(-((time - 2.6) ** 2)), torch.cos(3 * time), time % 1 - 0.5]
    )
    mix = nn.Conv1d(3, 1, 31, padding="same")
    f = lambda x: mix(x)[..., 0, :].logsumexp(-1)
    heat = attrib.integrated_gradients(f)(waves)
    names = ["burst", "swell", "saw"]
    for mode in ("overlay", "line", "strip"):
        figure = plot.timeseries(heat, waves, time, mode=mode, channels=names)
        yield f"series_{mode}", figure


def of_text() -> Iterator[tuple[str, Figure]]:
    """What a sum of weights of words owes to each: easily checked."""
    records = []
    for review in REVIEWS:
        tokens = review.split()
        shares = torch.tensor([WORDS.get(token, 0.0) for token in tokens])
        score = float(shares.sum())
        label = "good" if score > 0 else "bad"
        probability = float(torch.sigmoid(shares.sum().abs()))
        records.append(plot.TextRecord(tokens, shares, predicted=label, probability=probability))
    yield "text", plot.texts(records, unit="logits of “good”").figure()

    tokens = REVIEWS[0].split()
    weights = torch.tensor([[WORDS.get(token, 0.0) for token in tokens]])
    parts = torch.tensor([[1.0], [-1.0]]) * weights
    yield "tokens", plot.tokens2d(tokens, ["good", "bad"], parts, unit="logits")


def of_a_table() -> Iterator[tuple[str, Figure]]:
    """What a network trained on the diabetes table owes to its columns."""
    table = load_table()
    model, names = trained(table), list(table.names)
    f = attrib.target(model, 0)
    with torch.no_grad():
        shares = attrib.expected_gradients(f, samples=64)(table.x, table.x)
        base = float(f(table.x).mean())
        order = f(table.x).argsort()
    most, unit = order[-1], "points of the disease score"
    values = table.x[most]
    yield "bar", plot.bar(names, shares[most], values=values, unit=unit)
    yield (
        "waterfall",
        plot.waterfall(shares[most], values, names, base=base, max_display=8, unit=unit),
    )
    yield "force", plot.force(shares[most], values, names, base=base, unit=unit)
    yield "beeswarm", plot.beeswarm(shares, table.x, names, unit=unit)
    first, second = shares.abs().mean(0).topk(2).indices.tolist()
    yield (
        "scatter",
        plot.scatter(
            shares[:, first],
            table.x[:, first],
            colour=table.x[:, second],
            name=names[first],
            colour_name=names[second],
            unit=unit,
        ),
    )
    yield "heatmap", plot.heatmap(shares, names, max_display=8, unit=unit)

    thirds = lambda y: torch.bucketize(y, y.quantile(torch.tensor([1 / 3, 2 / 3])))
    with torch.no_grad():
        true, predicted = thirds(table.y), thirds(f(table.x))
    counts = torch.zeros(3, 3).index_put_((true, predicted), torch.tensor(1.0), accumulate=True)
    yield "confusion", plot.confusion(counts, ["low", "middle", "high"])


def small(path: Path) -> Path:
    """Write a picture again, in 256 colours: of photos, more of them make large files."""
    with Image.open(path) as picture:
        full = picture.convert("RGB")
    few = full.quantize(palette=full.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)
    few.save(path, optimize=True)
    return path


def trained(table: Table) -> nn.Module:
    """A small network that predicts the disease score."""
    model = nn.Sequential(nn.Linear(table.x.shape[1], 32), nn.GELU(), nn.Linear(32, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
    mean, std = table.y.mean(), table.y.std()
    for _ in range(300):
        loss = (model(table.x)[:, 0] - (table.y - mean) / std).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        model[2].weight.mul_(std)
        model[2].bias.mul_(std).add_(mean)
    return model.eval()


if __name__ == "__main__":
    try:
        main()
    except assets.AssetError as error:
        sys.exit(str(error))
