"""Which words make a film review good? A Hugging Face encoder, explained word by word.

python examples/text_classifier.py [--out FOLDER] ["A sentence of your own." ...]

The encoder is all-MiniLM-L6-v2 as it comes. Its head is trained here, in seconds, on reviews of
some films, and tested on reviews of others. Gradients tell what each token adds, and hiding words
what each word adds, with standard errors.
"""

import argparse
import html
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

import assets
import attrib
from attrib import games, plot
from drawing import SIGNED, colour_scale, new_figure, save, signed_number
from reviewer import (
    Reviewer,
    accuracy,
    embedded,
    minilm,
    reviews_of_different_films,
    train_head,
)

SENTENCES = (
    "A gorgeous, witty, seductive movie.",
    "An utterly compelling story that grips from the first minute.",
    "It is beautifully shot, but painfully slow.",
    "A dull script wastes a wonderful cast.",
    "Lazy, joyless and far too long.",
)
TRAIN, TEST, SHOW = 2500, 500, 3  # reviews
LINE = 66  # letters in a line of the picture


class Explained(NamedTuple):
    """A text, the probability that it is a good review, and what every token adds to its logit."""

    text: str
    probability: float
    shares: list[tuple[int, int, float]]  # the token is text[first:last]
    error: float  # of completeness


class Words(NamedTuple):
    """Shapley values of the words of a text, in the logit of "good", with standard errors."""

    words: list[str]
    values: Tensor  # (word,)
    errors: Tensor
    gap: float  # of completeness


def main() -> None:
    """Train the head, explain sentences, and show them in the terminal, on a page, in a picture."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path(__file__).with_name("output"))
    arguments.add_argument("sentences", nargs="*", help="to be explained instead of ours")
    options = arguments.parse_args()
    # Half of the cores: threads that find theirs busy with something else hold up all the others.
    torch.set_num_threads(max(1, min(4, torch.get_num_threads() // 2)))

    encoder, tokenizer = minilm()
    train, test = reviews_of_different_films()
    sentences = options.sentences or SENTENCES
    unseen = [review.text for review in test[TEST : TEST + SHOW]]
    with torch.no_grad():  # with gradients on, attributions would keep their graphs for training
        head = train_head(encoder, tokenizer, train[:TRAIN])
        right = accuracy(head, encoder, tokenizer, test[:TEST])
        print(f"trained on {TRAIN} reviews; right on {right:.0%} of {TEST} about other films")
        model = Reviewer(encoder, head).eval()
        explained = explain(model, tokenizer, [*sentences, *unseen])
        by_word = [explain_words(model, tokenizer, sentence) for sentence in sentences]

    limit = max(abs(share) for one in explained for *_, share in one.shares)
    print(
        f"shares in the logit of “good”: orange raises it, blue lowers it, by {limit:.1f} at most"
    )
    for one in explained:
        words = in_terminal(one, limit)
        print(f"{one.probability:5.0%} good  {words}  (completeness error {one.error:+.4f})")
    for one in by_word:
        print(in_numbers(one))
    page = options.out / "text_classifier.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(as_html(explained, limit), encoding="utf-8")
    # Reviews belong to their authors; the picture, fit for documentation, has our sentences only.
    picture = draw(explained[: len(sentences)], limit, options.out / "text_classifier.png")
    words = draw_words(by_word, options.out / "text_classifier_words.png")
    print("page and pictures:", page, picture, words, sep="\n  ")


def explain(model: Reviewer, tokenizer: Any, texts: Sequence[str]) -> list[Explained]:
    """Attribute the logit of each text to its tokens: all in one batch, short texts padded."""
    options = {"padding": True, "truncation": True, "return_offsets_mapping": True}
    batch = tokenizer(list(texts), return_tensors="pt", **options)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    embeddings, baseline = embedded(model, tokenizer, ids)

    f = attrib.target(model)
    attribution = attrib.integrated_gradients(f, steps=32)(embeddings, baseline, mask)
    errors = attrib.metrics.completeness(f)(attribution, embeddings, baseline, mask)
    shares = attribution.sum(-1)  # a token is one thing, however many numbers embed it
    padding = shares[mask == 0]
    print(f"{len(padding)} tokens of padding get {float(padding.abs().sum())}")

    explained = []
    probabilities = f(embeddings, mask).sigmoid()
    for row, text in enumerate(texts):
        spans = zip(batch["offset_mapping"][row].tolist(), shares[row].tolist(), strict=True)
        # The ends and padding stand nowhere in the text: their spans are empty.
        tokens = [(first, last, share) for (first, last), share in spans if first < last]
        explained.append(Explained(text, float(probabilities[row]), tokens, float(errors[row])))
    return explained


def explain_words(model: Reviewer, tokenizer: Any, text: str) -> Words:
    """Attribute the logit of a text to its words: a word is hidden as a whole."""
    batch = tokenizer([text], return_tensors="pt", truncation=True)
    embeddings, baseline = embedded(model, tokenizer, batch["input_ids"])
    mask = batch["attention_mask"]
    groups = games.words(embeddings, batch.word_ids())
    f = attrib.target(model)
    draws = torch.Generator().manual_seed(0)
    options = {"groups": groups, "reduce": attrib.estimate, "generator": draws}
    count = int(groups.max()) + 1
    attribute = attrib.kernel_shap(f, samples=max(64, 4 * count), **options)
    value, stderr, _ = attribute(embeddings, baseline, mask)
    # All numbers that embed the tokens of a word hold the value of the word.
    first = [batch.word_to_tokens(word).start for word in range(count)]
    spans = [batch.word_to_chars(word) for word in range(count)]
    words = [printable(text[span.start : span.end]) for span in spans]
    values, errors = value[0, first, 0], stderr[0, first, 0]
    gap = values.sum() - (f(embeddings, mask) - f(baseline, mask))
    return Words(words, values, errors, float(gap))


def in_numbers(one: Words) -> str:
    """Return the words with the largest values, and their standard errors."""
    largest = one.values.abs().argsort(descending=True)[:3].tolist()
    words = (f"{one.words[i]} {one.values[i]:+.1f} ± {one.errors[i]:.1f}" for i in largest)
    total = signed_number(one.values.sum(), "+.1f")
    error = signed_number(one.gap, "+.0e")
    return f"by words: {', '.join(words)}; add up to {total}, completeness error {error}"


def in_terminal(explained: Explained, limit: float) -> str:
    """Return a text with shares as colours; as numbers without a terminal, or under NO_COLOR."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    words = []
    for text, share in pieces(explained):
        if share is None or (not coloured and abs(share) < 0.2 * limit):
            words.append(text)
        elif coloured:
            *paper, _ = (round(255 * part) for part in SIGNED(0.5 + 0.5 * share / limit))
            ink = 30 if sum(paper) > 330 else 97  # black or white
            words.append("\033[{};48;2;{};{};{}m{}\033[0m".format(ink, *paper, text))
        else:
            words.append("{}({})".format(text, signed_number(share, "+.1f")))
    return "".join(words)


def as_html(explained: Sequence[Explained], limit: float) -> str:
    """Return a page for light and dark screens that needs no network; all texts are escaped."""
    paragraphs = []
    for one in explained:
        words = []
        for text, share in pieces(one):
            word = html.escape(text)
            if share is not None:
                kind, number = "raises" if share > 0 else "lowers", signed_number(share, "+.2f")
                style = f"--strength:{abs(share) / limit:.3f}"
                word = f'<span class="{kind}" style="{style}" title="{number}">{word}</span>'
            words.append(word)
        paragraphs.append(
            f'<p><b>{one.probability:.0%} good</b> <span dir="auto">{"".join(words)}</span> '
            f"<small>completeness error {one.error:+.4f}</small></p>"
        )
    return PAGE.format(limit=f"{limit:.1f}", paragraphs="\n".join(paragraphs))


def draw(explained: Sequence[Explained], limit: float, path: Path) -> Path:
    """Draw texts in a font of fixed width, a coloured box behind each token."""
    lines: list[tuple[str, list[tuple[str, float | None]]]] = []
    for one in explained:
        lines.append((f"{one.probability:4.0%} good", []))
        for piece in pieces(one):
            if sum(len(text) for text, _ in lines[-1][1]) + len(piece[0]) > LINE:
                lines.append(("", []))
            lines[-1][1].append(piece)

    margin, height, letter = 12, 0.52, 0.094  # letters, inches, inches
    figure = new_figure((margin + LINE) * letter, (len(lines) + 1.6) * height)
    limits = {"xlim": (-margin, LINE), "ylim": (len(lines) + 1.2, -0.4)}
    axes = figure.subplots(subplot_kw=limits)
    axes.set_axis_off()
    for y, (verdict, parts) in enumerate(lines):
        axes.text(-1.5, y, verdict, ha="right", weight="bold", **FIXED_WIDTH)
        draw_line(axes, y, parts, limit)
    colour_scale(axes, limit, (0.16, 0.075, 0.3, 0.03))
    worst = max(abs(one.error) for one in explained)
    legend = (
        "share in the logit of “good”: blue lowers it, orange raises it\n"
        f"completeness error at most {worst:.3f}"
    )
    axes.text(LINE / 2 - 6, len(lines) + 0.55, legend, va="center", fontsize=8)
    return save(figure, path, dpi=130)


def draw_line(axes: Axes, y: int, parts: list[tuple[str, float | None]], limit: float) -> None:
    """Draw a line of tokens; the largest shares get a number, as far as there is room."""
    x = 0
    numbers: list[tuple[float, float]] = []
    for text, share in parts:
        strength = 0.0 if share is None else share / limit
        if share is not None:
            colour = SIGNED(0.5 + 0.5 * strength)
            axes.add_patch(Rectangle((x, y - 0.26), len(text), 0.52, color=colour, linewidth=0))
            numbers.append((x + len(text) / 2, share))
        axes.text(x, y, text, color="white" if abs(strength) > 0.75 else "black", **FIXED_WIDTH)
        x += len(text)
    taken: list[float] = []
    for x, share in sorted(numbers, key=lambda number: -abs(number[1])):
        if abs(share) > 0.15 * limit and all(abs(x - other) > 3 for other in taken):
            number = signed_number(share, "+.1f")
            axes.text(x, y + 0.42, number, ha="center", va="center", fontsize=7)
            taken.append(x)


def draw_words(explained: Sequence[Words], path: Path) -> Path:
    """Draw a panel for each text, with a bar for each word, in their order."""
    columns = min(3, len(explained))
    rows = -(-len(explained) // columns)
    most = max(len(one.words) for one in explained)
    reach = max(float((one.values.abs() + 2 * one.errors).max()) for one in explained)
    figure = new_figure(3.3 * columns, (0.21 * most + 0.9) * rows + 0.4)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).flat
    for axes in grid[len(explained) :]:
        axes.set_axis_off()
    for axes, one in zip(grid, explained, strict=False):
        total = signed_number(one.values.sum(), "+.1f")
        plot.bar(
            one.words,
            one.values,
            error=one.errors,
            max_display=most,
            sort=False,
            scale=reach,
            unit="logits",
            ax=axes,
        )
        axes.set_title(f"all words: {total}", fontsize=9)
        axes.set_ylim(most - 0.4, -0.6)
        axes.tick_params(labelbottom=True)
    figure.supxlabel(
        "Shapley values of words in the logit of “good”: orange raises it, blue lowers it. Hidden "
        "words are masks.\nLines: two standard errors to each side.",
        fontsize=8,
    )
    return save(figure, path)


def pieces(explained: Explained) -> Iterator[tuple[str, float | None]]:
    """Cut a text into its tokens, with their shares, and what stands between them, without."""
    end = 0
    for first, last, share in explained.shares:
        if first > end:
            yield printable(explained.text[end:first]), None
        yield printable(explained.text[first:last]), share
        end = last
    if explained.text[end:]:
        yield printable(explained.text[end:]), None


def printable(text: str) -> str:
    """Replace control characters: they could recolour a terminal, or hide words in it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


FIXED_WIDTH: dict[str, Any] = {
    "family": "monospace",
    "fontsize": 11,
    "va": "center",
    "parse_math": False,  # a dollar in a review is a dollar
}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Which words make a film review good?</title>
<style>
:root {{ color-scheme: light dark; --raises: 240 162 77; --lowers: 98 160 216 }}
@media (prefers-color-scheme: dark) {{ :root {{ --raises: 163 74 0; --lowers: 20 84 156 }} }}
body {{ font: 1.1rem/2 system-ui, sans-serif; max-width: 50rem; margin: auto; padding: 1rem }}
h1 {{ font-size: 1.5rem; line-height: 1.3 }}
.raises {{ --colour: var(--raises); border-bottom: 2px solid rgb(var(--raises)) }}
.lowers {{ --colour: var(--lowers); border-bottom: 2px dashed rgb(var(--lowers)) }}
.raises, .lowers {{ background: rgb(var(--colour) / var(--strength)) }}
</style>
<h1>Which words make a film review good?</h1>
<p>The share of each token in the logit of “good”, by integrated gradients from a sentence of masks.
<span class="lowers" style="--strength:1">lowers it by {limit}</span> …
<span class="lowers" style="--strength:.5">half of that</span> … 0 …
<span class="raises" style="--strength:.5">half</span> …
<span class="raises" style="--strength:1">raises it by {limit}</span>.
Point at a token to read its number.</p>
{paragraphs}
</html>
"""


if __name__ == "__main__":
    try:
        main()
    except assets.AssetError as error:
        sys.exit(str(error))
