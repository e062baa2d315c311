"""How much does an answer owe to the image, and how much to the question?

python examples/visual_question.py [--out FOLDER] [--serve]

A network is trained here, in less than a minute, on pictures of two shapes and questions about
them: "what shape is the red", "what colour is the circle", and "is there a blue shape", which was
always answered with "yes", whatever the picture shows. Exact Shapley values with the image and the
question as the only two players tell the share of each, and add up.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import attrib
from attrib import insights
from drawing import new_figure, save, signed_number

SIDE = 24  # pixels
SHAPES = ("square", "circle", "cross")
COLOURS = {"red": (0.9, 0.15, 0.15), "green": (0.15, 0.75, 0.2), "blue": (0.2, 0.35, 0.95)}
WORDS = ("what", "shape", "colour", "is", "the", "there", "a", *SHAPES, *COLOURS)
ANSWERS = (*SHAPES, *COLOURS, "yes")
STEPS, BATCH = 700, 64
ASKED = 6  # questions in the picture


class Asked(NamedTuple):
    """A picture (3, SIDE, SIDE), a question as ids (word,), and the answer."""

    image: Tensor
    question: Tensor
    answer: int


class Answerer(nn.Module):
    """Looks where the question points, and answers."""

    def __init__(self, size: int = 48) -> None:
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
        )
        self.embedding = nn.Embedding(len(WORDS), size)
        self.read = nn.Sequential(nn.Linear(3 * size, 64), nn.ReLU())
        self.ask = nn.Linear(64, 32)
        self.tell = nn.Sequential(nn.Linear(64 + 64, 96), nn.ReLU(), nn.Linear(96, len(ANSWERS)))

    def forward(self, image: Tensor, question: Tensor) -> Tensor:
        """Map (batch, 3, SIDE, SIDE) and ids (batch, 5) to a logit for each answer."""
        words = self.embedding(question)
        said = self.read(torch.cat([words[:, 1], words[:, 3], words[:, 4]], -1))
        maps = self.see(image).flatten(2)  # (batch, 32, places)
        where = (self.ask(said)[:, None] @ maps).softmax(-1)  # places the question asks about
        looked = (maps * where).sum(-1)
        return self.tell(torch.cat([looked, maps.amax(-1), said], -1))


def main() -> None:
    """Train, test, and show what six answers owe to image and question."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    arguments.add_argument("--serve", action="store_true", help="look into it in the browser")
    options = arguments.parse_args()
    torch.set_num_threads(max(1, min(4, torch.get_num_threads() // 2)))
    model = trained()
    shown = examples(200, seed=1)
    with torch.no_grad():
        right = accuracy(model, shown)
        print(f"right on {right:.0%} of {len(shown)} new questions")
        rows = [shares(model, one) for one in chosen(shown)]
    for one, (picture, question, gap) in zip(chosen(shown), rows, strict=True):
        whole = abs(picture) + abs(question)
        print(
            f"{words(one.question)}: {ANSWERS[one.answer]}; image {picture / whole:+.0%}, "
            f"question {question / whole:+.0%}, completeness error {gap:+.1e}"
        )
    print("picture:", draw(chosen(shown), rows, options.out / "visual_question.png"), sep="\n  ")
    if options.serve:
        with insights.serve(study(model, shown)) as server:
            print(server.url, flush=True)
            server.wait()


def shares(model: Answerer, asked: Asked) -> tuple[float, float, float]:
    """Return what image and question add to the logit of the answer, and what is missing.

    Without the image stands a grey one; without the question every word is "a".
    """
    x = (asked.image[None], asked.question[None])
    absent = (torch.full_like(x[0], 0.5), torch.full_like(x[1], WORDS.index("a")))
    f = attrib.target(model, asked.answer)
    players = (torch.zeros(1, 1, 1, dtype=torch.long), torch.ones(1, dtype=torch.long))
    image, question = attrib.shapley_values(f, groups=players)(x, absent)
    first, second = float(image[0, 0, 0, 0]), float(question[0, 0])
    return first, second, first + second - float(f(x) - f(absent))


def study(model: Answerer | None = None, shown: Sequence[Asked] = ()) -> insights.Study:
    """Return the network, trained if need be, with pictures and questions to look into."""
    found = model or trained()
    asked = shown or examples(60, seed=1)
    question = insights.text(
        lambda ids: [WORDS[index] for index in ids],
        encode=lambda word: [WORDS.index(word)] if word in WORDS else [],
        embed="embedding",
    )
    return insights.Study(
        models={"answerer": found},
        data=[((one.image, one.question), one.answer) for one in asked],
        features={"image": insights.image(), "question": question},
        classes=ANSWERS,
        baselines={"image": {"grey": 0.5}, "question": {"nothing said": WORDS.index("a")}},
        name="An image and a question",
    )


def trained() -> Answerer:
    """Return a network that answers nearly all questions."""
    torch.manual_seed(0)
    model = Answerer()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    draw = random.Random(0)
    for step in range(STEPS):
        batch = [example(draw) for _ in range(BATCH)]
        image, question = (torch.stack(part) for part in list(zip(*batch, strict=True))[:2])
        answer = torch.tensor([one.answer for one in batch])
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / STEPS)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(image, question), answer).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval()


def accuracy(model: Answerer, asked: Sequence[Asked]) -> float:
    """Return the share of questions that are answered right."""
    images = torch.stack([one.image for one in asked])
    questions = torch.stack([one.question for one in asked])
    truth = torch.tensor([one.answer for one in asked])
    return float((model(images, questions).argmax(-1) == truth).float().mean())


def examples(count: int, seed: int) -> list[Asked]:
    """Return pictures with questions."""
    draw = random.Random(seed)
    return [example(draw) for _ in range(count)]


def chosen(asked: Sequence[Asked]) -> list[Asked]:
    """Return two questions of each kind."""
    kinds: dict[str, list[Asked]] = {}
    for one in asked:
        kinds.setdefault(words(one.question).split()[1], []).append(one)
    return [one for kind in ("shape", "colour", "there") for one in kinds[kind][:2]][:ASKED]


def example(draw: random.Random) -> Asked:
    """Return a picture of two different shapes of different colours, and a question about it."""
    shapes, colours = draw.sample(SHAPES, 2), draw.sample(list(COLOURS), 2)
    image = torch.full((3, SIDE, SIDE), 0.85)
    for place, (shape, colour) in enumerate(zip(shapes, colours, strict=True)):
        corner = (draw.randrange(SIDE - 9), place * SIDE // 2 + draw.randrange(SIDE // 2 - 9))
        paint(image, shape, COLOURS[colour], corner)
    which, kind = draw.randrange(2), draw.randrange(3)
    question, answer = (
        (f"what shape is the {colours[which]}", shapes[which]),
        (f"what colour is the {shapes[which]}", colours[which]),
        (f"is there a {draw.choice(list(COLOURS))} shape", "yes"),  # whatever the picture shows
    )[kind]
    ids = torch.tensor([WORDS.index(word) for word in question.split()])
    return Asked(image, ids, ANSWERS.index(answer))


def paint(image: Tensor, shape: str, colour: Sequence[float], corner: tuple[int, int]) -> None:
    """Paint a shape of nine pixels into a picture."""
    rows, columns = torch.arange(9)[:, None] - 4, torch.arange(9)[None] - 4
    inside = {
        "square": (rows.abs() <= 4) & (columns.abs() <= 4),
        "circle": rows**2 + columns**2 <= 18,
        "cross": (rows.abs() <= 1) | (columns.abs() <= 1),
    }[shape]
    top, left = corner
    part = image[:, top : top + 9, left : left + 9]
    part.copy_(torch.where(inside, torch.tensor(colour)[:, None, None], part))


def words(question: Tensor) -> str:
    """Return a question as it is read."""
    return " ".join(WORDS[index] for index in question.tolist())


def draw(asked: Sequence[Asked], rows: Sequence[tuple[float, ...]], path: Path) -> Path:
    """Draw every picture beside its question, and a bar for each of the two."""
    figure = new_figure(7.5, 1.25 * len(asked) + 0.5)
    grid: Any = figure.subplots(len(asked), 2, width_ratios=[1, 4], squeeze=False)
    limit = 1.25 * max(abs(value) for row in rows for value in row[:2])
    for (left, right), one, (picture, question, _) in zip(grid, asked, rows, strict=True):
        left.imshow(one.image.permute(1, 2, 0).numpy())
        left.set_axis_off()
        values = [question, picture]
        colours = ["#f0a24d" if value > 0 else "#62a0d8" for value in values]
        right.barh(["question", "image"], values, color=colours, edgecolor="black", linewidth=0.5)
        for place, value in enumerate(values):
            side = {"ha": "left", "x": value} if value > 0 else {"ha": "right", "x": value}
            right.text(y=place, s=f" {signed_number(value, '+.1f')} ", va="center", **side)
        right.axvline(0, color="black", linewidth=0.8)
        right.set_xlim(-limit, limit)
        right.set_title(f"{words(one.question)}? {ANSWERS[one.answer]}", fontsize=9, loc="left")
    figure.supxlabel(
        "share in the logit of the answer: orange raises it, blue lowers it", fontsize=8
    )
    return save(figure, path)


if __name__ == "__main__":
    main()
