"""Small studies of every kind, quick on one core, for the tests of `attrib.insights`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import attrib
from attrib import insights
from attrib.insights import Study

SHAPES = ("square", "circle", "stripe", "cross")
WORDS = [
    *("[PAD]", "[CLS]", "[SEP]", "the", "film", "was", "good", "bad", "dull", "bright", "not"),
    *("very", "story", "actor", "a", "and", "##ly", "slow", "fast", "funny", "sad"),
]
HOSTILE = [
    "<script>window.__xss=1</script>",
    "<img src=x onerror=window.__xss=1>",
    "--></style><b>bold</b>",
    "\u202egnp.exe",
    "null\x00byte",
    '"><svg onload=window.__xss=1>',
    "javascript:window.__xss=1",
    "x" * 10_000,
]


class Small(nn.Module):
    """A convolutional network on images of any size."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).amax((-1, -2)))


class Failing(nn.Module):
    """A model that raises for some of the images."""

    def __init__(self, cnn: nn.Module) -> None:
        super().__init__()
        self.cnn = cnn

    def forward(self, x: Tensor) -> Tensor:
        # Of the whole image, so that no baseline, noise or path is like it.
        if ((x[:, :, -1, -1].sum(-1) * 1000).round() % 3 == 0).any() and not (x == 0).all():
            raise RuntimeError("the model does not like this image, see /home/somebody/model.py")
        return self.cnn(x)


class Reader(nn.Module):
    """A transformer on token ids, with a mask of what is no padding."""

    def __init__(self, words: int, classes: int, size: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        layer = nn.TransformerEncoderLayer(size, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(size, classes)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        found = self.encoder(self.embedding(ids))
        if mask is None:
            return self.head(found.mean(1))
        weights = mask[..., None].to(found.dtype)
        return self.head((found * weights).sum(1) / weights.sum(1))


class Both(nn.Module):
    """An image and a question in one model."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.see = Small(3, 8)
        self.read = Reader(words, 8)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(8, classes))

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        return self.head(self.see(image) * self.read(ids))


class Wave(nn.Module):
    """A one-dimensional convolutional network."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 6, 5, padding=2)
        self.relu = nn.ReLU()
        self.more = nn.Conv1d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.more(self.relu(self.conv(x))).relu().mean(-1))


def fitted(model: nn.Module, data: list[Any], steps: int = 60) -> nn.Module:
    """A model trained on a study's data for a moment, so that its attributions mean something."""
    found = torch.optim.Adam(model.parameters(), lr=0.02)
    inputs = [one[0] if isinstance(one[0], tuple) else (one[0],) for one in data]
    x = [torch.stack(parts) for parts in zip(*inputs, strict=True)]
    labels = torch.tensor([label for _, label in data])
    with torch.enable_grad():
        for _ in range(steps):
            found.zero_grad()
            loss = nn.functional.cross_entropy(model(*x), labels)
            loss.backward()
            found.step()
    found.zero_grad()
    return model.eval().requires_grad_(False)


def picture(kind: int, seed: int, size: int = 24, channels: int = 3) -> Tensor:
    """A shape on noise."""
    draw = torch.Generator().manual_seed(seed)
    image = 0.25 * torch.rand(channels, size, size, generator=draw)
    top, left = torch.randint(2, size // 3, (2,), generator=draw).tolist()
    rows, columns = torch.arange(size)[:, None], torch.arange(size)[None]
    side = size // 2
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    middle = side / 2
    shapes = (
        inside,
        (rows - top - middle) ** 2 + (columns - left - middle) ** 2 < middle**2,
        inside & (rows % 4 < 2),
        inside
        & (
            ((rows - columns - top + left).abs() < 2)
            | ((rows + columns - top - left - side).abs() < 2)
        ),
    )
    image[kind % channels] += 0.75 * shapes[kind]
    return image.clamp(0, 1)


def photos(count: int = 14, channels: int = 3, size: int = 24) -> list[Any]:
    """Images with labels, the last two with wrong ones."""
    found = [(picture(i % 4, i, size, channels), i % 4) for i in range(count)]
    wrong = [(image, (label + 1) % 4) for image, label in found[-2:]]
    return [*found[:-2], *wrong]


def sentence(seed: int, length: int = 9) -> Tensor:
    """Token ids between [CLS] and [SEP]."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, len(WORDS), (length - 2,), generator=draw)
    return torch.cat([torch.tensor([1]), ids, torch.tensor([2])])


def decode(ids: Any) -> list[str]:
    return [WORDS[i] for i in ids]


def encode(word: str) -> list[int]:
    return [WORDS.index(part) if part in WORDS else 0 for part in word.split()] or [0]


def image_study(**changed: Any) -> Study:
    torch.manual_seed(0)
    data = photos()
    given: dict[str, Any] = {
        "models": {"cnn": fitted(Small(3, 4), data[:-2])},
        "data": data,
        "features": {"photo": insights.image()},
        "classes": SHAPES,
        "name": "shapes",
    }
    return Study(**{**given, **changed})


def text_study() -> Study:
    torch.manual_seed(0)
    data = [
        ((ids := sentence(i), torch.ones(len(ids))), int(bool((ids == 6).any()))) for i in range(12)
    ]
    model = fitted(Reader(len(WORDS), 2), data)
    feature = insights.text(decode, encode=encode, embed="embedding", merge="wordpiece")
    return Study(
        models={"reader": model},
        data=data,
        features={"review": feature},
        classes=["bad", "good"],
        baselines={"review": {"padding": 0, "the": 3}},
        name="reviews",
    )


def table_study() -> Study:
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    x[:, 4] = (x[:, 4] > 0).float()
    data = [(row, int(row[0] - row[1] + row[4] > 0)) for row in x]
    model = fitted(nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2)), data)
    feature = insights.tabular(
        ["age", "weight", "pulse", "dose", "sex"],
        units={"age": "years", "weight": "kg"},
        categories={"sex": ["f", "m"]},
    )
    return Study(
        models=model, data=data, features={"patient": feature}, classes=["well", "ill"], name="ward"
    )


def series_study(steps: int = 120, count: int = 8) -> Study:
    torch.manual_seed(0)
    time_ = torch.linspace(0, 6, steps)
    data = []
    for i in range(count):
        wave = torch.stack([torch.sin((1 + i % 2) * 3 * time_), torch.cos(time_)])
        data.append((wave + 0.1 * torch.randn(2, steps), i % 2))
    model = fitted(Wave(2, 2), data)
    feature = insights.timeseries(["lead I", "lead II"], dt=0.05, unit="s")
    return Study(
        models=model, data=data, features={"ecg": feature}, classes=["slow", "fast"], name="waves"
    )


def modal_study() -> Study:
    torch.manual_seed(0)
    data = [((picture(i % 4, i), sentence(i, 6)), i % 4) for i in range(8)]
    model = fitted(Both(len(WORDS), 4), data)
    return Study(
        models=model,
        data=data,
        features={
            "photo": insights.image(),
            "question": insights.text(decode, embed="read.embedding"),
        },
        classes=SHAPES,
        name="an image and a question",
    )


def regression_study() -> Study:
    torch.manual_seed(0)
    data = [(row, float(row.sum())) for row in torch.randn(20, 3)]
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).eval()
    return Study(
        models=model, data=data, features={"row": insights.tabular(["a", "b", "c"])}, name="numbers"
    )


def bare_regression_study() -> Study:
    study = regression_study()
    data = [row for row, _ in study.data]
    return Study(models=study.models, data=data, features=study.features, name="bare numbers")


def binary_study() -> Study:
    torch.manual_seed(0)
    data = [(row, int(row[0] > 0)) for row in torch.randn(12, 3)]
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    return Study(
        models=model,
        data=data,
        features={"row": insights.tabular(["a", "b", "c"])},
        classes=["no", "yes"],
        name="one logit",
    )


def slowly(
    f: Any, *, steps: int = 40, seconds: float = 0.05, calls: list[int] | None = None
) -> Callable[..., Any]:
    """Integrated gradients that take their time, one step after another."""

    def attribute(x: Tensor, *args: Any) -> Tensor:
        def wait(h: Tensor, *more: Any) -> Tensor:
            time.sleep(seconds)
            return f(h, *more)

        return attrib.integrated_gradients(wait, steps=steps, chunk_size=1)(x, 0.0, *args)

    return attribute


def broken_method(f: Any, *, strength: float = 1.0) -> Callable[..., Any]:
    """A method that always raises."""

    def attribute(x: Tensor, *args: Any) -> Tensor:
        raise ZeroDivisionError("this method is broken, see /home/somebody/secret/file.py")

    return attribute


def hungry(f: Any) -> Callable[..., Any]:
    """A method that runs out of memory."""

    def attribute(x: Tensor, *args: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    return attribute


def constant(f: Any, *, value: float = 0.0) -> Callable[..., Any]:
    """The same attribution for every entry."""
    return lambda x, *args: torch.full_like(x, value)


def spoiled(f: Any) -> Callable[..., Any]:
    """NaN, infinities and numbers."""

    def attribute(x: Tensor, *args: Any) -> Tensor:
        found = attrib.saliency(f)(x, *args).clone()
        found[..., 0, 0], found[..., 0, 1], found[..., 0, 2] = math.nan, math.inf, -math.inf
        return found

    return attribute


def slow_study() -> Study:
    return image_study(methods={"slow": slowly, **insights.methods()}, name="slow")


def broken_study() -> Study:
    study = image_study()
    methods = {**insights.methods(), "broken": broken_method, "hungry": hungry}
    return image_study(models={"cnn": Failing(study.models["cnn"])}, methods=methods, name="broken")


def two_study() -> Study:
    torch.manual_seed(1)
    other = fitted(Small(3, 4), photos(), steps=4)
    return image_study(models={**image_study().models, "other": other}, name="two models")


def thousand_study() -> Study:
    torch.manual_seed(0)
    names = [f"class {i} with quite a long name, as they are in taxonomies" for i in range(1000)]
    return image_study(models=Small(3, 1000).eval(), classes=names, name="a thousand classes")


def grey_study() -> Study:
    torch.manual_seed(0)
    data = photos(8, channels=1, size=12)
    return image_study(models=fitted(Small(1, 4), data), data=data, name="grey")


def hostile_study() -> Study:
    torch.manual_seed(0)
    names = [*HOSTILE, "plain"]

    def read(ids: Any) -> list[str]:
        return [names[i] for i in ids]

    data = [(torch.arange(len(names)), i % 2) for i in range(3)]
    model = Reader(len(names), 2).eval()

    def raising(f: Any) -> Any:
        raise RuntimeError(HOSTILE[0] + HOSTILE[1])

    return Study(
        models={HOSTILE[0]: model},
        data=data,
        features={HOSTILE[1]: insights.text(read, embed="embedding")},
        classes=[HOSTILE[2], HOSTILE[5]],
        methods={**insights.methods(), HOSTILE[1]: raising},
        baselines={HOSTILE[1]: {HOSTILE[0]: 8}},
        names=[HOSTILE[0], HOSTILE[3], HOSTILE[4]],
        name=HOSTILE[0],
    )


def unlabelled_study() -> Study:
    return image_study(data=[image for image, _ in photos()], name="unlabelled")


def degenerate_study() -> Study:
    methods = {
        "zero": constant,
        "spoiled": spoiled,
        "one": partial(constant, value=1.0),
        **insights.methods(),
    }
    return image_study(methods=methods, name="degenerate")


def long_text_study() -> Study:
    torch.manual_seed(0)
    data = [(sentence(i, 4000), i % 2) for i in range(2)]

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(len(WORDS), 8), nn.Linear(8, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embedding(ids).tanh().mean(1))

    feature = insights.text(decode, embed="embedding", merge="wordpiece")
    return Study(models=Bag().eval(), data=data, features={"text": feature}, name="long text")


def array_study() -> Study:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 3)).eval()
    data = [(torch.randn(2, 3, 4), i % 3) for i in range(4)]
    return Study(models=model, data=data, features={"tensor": insights.array()}, name="arrays")


STUDIES: dict[str, Callable[[], Study]] = {
    "images": image_study,
    "text": text_study,
    "table": table_study,
    "series": series_study,
    "modal": modal_study,
    "regression": regression_study,
    "bare_regression": bare_regression_study,
    "binary": binary_study,
    "slow": slow_study,
    "broken": broken_study,
    "two_models": two_study,
    "thousand": thousand_study,
    "grey": grey_study,
    "hostile": hostile_study,
    "unlabelled": unlabelled_study,
    "degenerate": degenerate_study,
    "long_text": long_text_study,
    "long_series": partial(series_study, steps=10_000, count=4),
    "array": array_study,
}
"""Every study, made when it is asked for."""


def __getattr__(name: str) -> Study:
    if name not in STUDIES:
        raise AttributeError(name)
    study = STUDIES[name]()
    globals()[name] = study  # the next one who asks gets the same
    return study
