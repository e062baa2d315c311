"""Which explanation of a text classifier is good? Methods compared by two measures, and a third.

python examples/method_quality.py [--out FOLDER]

The table of the Captum paper (Kokhlikyan et al. 2020, figure 3) in kind: infidelity under normal
noise on the embeddings, and max-sensitivity in a box, for several methods on the film reviews of
text_classifier.py. A third column hides whole tokens instead. https://arxiv.org/abs/2009.07896
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import assets
import attrib
from attrib import metrics
from drawing import save
from reviewer import (
    Review,
    Reviewer,
    accuracy,
    embedded,
    minilm,
    reviews_of_different_films,
    train_head,
)

TRAIN, TEST, EXPLAINED = 800, 100, 8  # reviews
LONGEST = 60  # letters of a review that is explained
SIZE = 0.03  # the standard deviation of the noise, and the radius of the box
DRAWS, MOVES = 8, 3  # of the noise, and in the box


def main() -> None:
    """Train the head, measure the methods, and show the table in the terminal and as a picture."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    options = arguments.parse_args()
    # Half of the cores: threads that find theirs busy with something else hold up all the others.
    torch.set_num_threads(max(1, min(4, torch.get_num_threads() // 2)))

    encoder, tokenizer = minilm()
    train, test = reviews_of_different_films()
    with torch.no_grad():  # with gradients on, attributions would keep their graphs for training
        head = train_head(encoder, tokenizer, train[:TRAIN])
        right = accuracy(head, encoder, tokenizer, test[:TEST])
        print(f"trained on {TRAIN} reviews; right on {right:.0%} of {TEST} about other films")
        model = Reviewer(encoder, head).eval()
        f = attrib.target(model)
        embeddings, mask = read(model, tokenizer, short(test[TEST:]))
        # Hidden tokens, and the start of all paths, are embeddings of zeros.
        data = (embeddings, 0, mask)
        table = attrib.compare(methods(f, embeddings), columns(f, embeddings), data)
        nothing = metrics.infidelity(f, None, noise(), samples=DRAWS)
        print(f"in the logit of “good”, of {len(embeddings)} short reviews of those films:\n")
        print(table, end="\n\n")
        silent = nothing(torch.zeros_like(embeddings), *data).mean()
        print(f"an explanation that says nothing has an infidelity of {silent:.3g} under noise")
    print("picture:", save(table.figure(), options.out / "method_quality.png", dpi=110), sep="\n  ")


def methods(f: Any, embeddings: Tensor) -> dict[str, Any]:
    """Return attribution functions whose numbers are in units of the logit."""
    # Without a generator of its own it meets the same noise at every call: only x moves it.
    smooth = attrib.smooth_grad(attrib.saliency(f), SIZE, samples=4)
    return {
        "input x gradient": attrib.input_x_gradient(f),
        "input x smooth gradient": lambda x, mask: x * smooth(x, mask),
        "integrated gradients": attrib.integrated_gradients(f, steps=6),
        "DeepLift": attrib.deep_lift(f),
        "token ablation": spread(attrib.feature_ablation(f, groups=tokens(embeddings))),
    }


def columns(f: Any, embeddings: Tensor) -> dict[str, Callable[[Any], Any]]:
    """Return measures of an attribution function; each method meets the same draws."""
    hidden = tokens(embeddings)
    return {
        "infidelity, noise": lambda a: metrics.infidelity(
            f, a, noise(), samples=DRAWS, form="global"
        ),
        "infidelity, hidden tokens": lambda a: metrics.infidelity(
            f, a, metrics.hiding(hidden, generator=torch.Generator().manual_seed(0)), samples=12
        ),
        "max-sensitivity": lambda a: metrics.max_sensitivity(
            a,
            attrib.perturb.uniform(SIZE, generator=torch.Generator().manual_seed(1)),
            samples=MOVES,
            chunk_size=1,  # functions of one's own are else lifted by vmap: slow for attention
        ),
    }


def noise() -> Any:
    """Return normal noise, the same numbers every time."""
    return attrib.perturb.gaussian(SIZE, generator=torch.Generator().manual_seed(2))


def tokens(embeddings: Tensor) -> Tensor:
    """Return ids of features: all numbers that embed a token are one."""
    return torch.arange(embeddings.shape[1])[None, :, None]


def spread(attribute: Any) -> Any:
    """Divide what a token gets among the numbers that embed it, by the squares of their sizes.

    A step along the embedding of a token then changes the logit as much as hiding it, in part.
    """

    def attribution(x: Tensor, baseline: Any, mask: Tensor) -> Tensor:
        squares = x.square()
        return attribute(x, baseline, mask) * squares / squares.sum(-1, keepdim=True)

    return attribution


def short(reviews: Sequence[Review]) -> list[str]:
    """Return the texts of the first reviews that take little time."""
    return [review.text for review in reviews if len(review.text) <= LONGEST][:EXPLAINED]


def read(model: Reviewer, tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the embeddings of texts in one batch, and where they are not padding."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    return embedded(model, tokenizer, batch["input_ids"])[0], batch["attention_mask"]


if __name__ == "__main__":
    try:
        main()
    except assets.AssetError as error:
        sys.exit(str(error))
