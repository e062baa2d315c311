"""Coloured text: one view of it for notebooks, terminals, files and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attrib.errors import AttribTypeError
from attrib.plot import _text_figure, _text_html
from attrib.plot._arrays import total
from attrib.plot._heat import heats
from attrib.plot._passages import Passage
from attrib.plot.colors import Palette, Sign
from attrib.plot.labels import signed, visible
from attrib.plot.markup import page
from attrib.plot.terminal import (
    coloured_passage,
    marked_passage,
    plain_text,
    styled_passage,
    supports_colour,
)
from attrib.plot.words import Merge, Pool, merge_tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TextRecord", "TextView", "text", "texts"]


@dataclass(frozen=True)
class TextRecord:
    """A text, what its tokens contribute, and what the model made of it.

    Attributes:
        tokens: ``(tokens,)``.
        attr: ``(tokens,)``, or ``(tokens, embedding)``, which is summed.
        true: The class that it belongs to.
        predicted: The class that the model chose.
        probability: With which probability.
        target: The class that the attribution is about.
        gap: How far the sum of the attributions is from what it should be, see
            `attrib.metrics.completeness`.
    """

    tokens: Sequence[object]
    attr: Any
    true: object = None
    predicted: object = None
    probability: float | None = None
    target: object = None
    gap: float | None = None


@dataclass(frozen=True, repr=False)
class TextView:
    """Coloured text, as `attrib.plot.text` and `attrib.plot.texts` return it.

    Notebooks show it as HTML; ``str`` and ``print`` give it in colours where the terminal has them
    (and ``NO_COLOR`` is not set), with numbers beside the stronger tokens elsewhere.
    """

    passages: tuple[Passage, ...]
    title: str | None
    colorbar: bool

    def __str__(self) -> str:
        colour = supports_colour()
        write = coloured_passage if colour else marked_passage
        lines = [] if self.title is None else [visible(self.title)]
        return "\n".join([*lines, *(write(passage) for passage in self.passages)])

    __repr__ = __str__

    def to_html(self) -> str:
        """A page of its own with all of the text, to be written to a file."""
        body = _text_html.fragment(self.passages, self.title, self.colorbar, limit=None)
        return str(page(self.title or "Attribution of a text", body))

    def figure(self, *, ax: Any = None) -> Figure:
        """The text as a figure of matplotlib, drawn into axes where some are given."""
        return _text_figure.draw(self.passages, self.title, self.colorbar, ax)

    def _repr_html_(self) -> str:
        limit = 200_000  # bytes: notebooks keep what they show
        return str(_text_html.fragment(self.passages, self.title, self.colorbar, limit=limit))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        plain = "\n".join(marked_passage(passage) for passage in self.passages)
        return {"text/html": self._repr_html_(), "text/plain": plain}

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        if self.title is not None:
            yield plain_text(self.title)
        for passage in self.passages:
            yield styled_passage(passage)


def text(
    tokens: Sequence[object],
    attr: Any,
    *,
    merge: Merge = None,
    pool: Pool = "sum",
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
) -> TextView:
    """Tokens in the colours of what they contribute.

    What raises the score is underlined, what lowers it is underlined by dashes. Spaces are kept
    where tokens have them; other tokens are set apart by one.

    Args:
        tokens: ``(tokens,)``. Any text is shown as it is: nothing in it is obeyed as HTML or by a
            terminal.
        attr: ``(tokens,)``, or ``(tokens, embedding)``, which is summed.
        merge: How to put pieces of words together: ``"wordpiece"``, ``"sentencepiece"``, ``"bpe"``,
            or the number of the word of each token; see `attrib.plot.words.merge_tokens`.
        pool: What a word contributes: ``"sum"``, ``"mean"`` or ``"max"``.
        sign, clip, scale, palette, unit, title, colorbar: As for `attrib.plot.image`.

    Returns:
        A view: HTML in a notebook, colours or marks when printed, ``view.to_html()`` for a file,
        ``view.figure()`` for matplotlib.

    Raises:
        AttribError: If there are not as many attributions as tokens.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> text(["not", "bad", "at", "all"], [-0.5, 0.9, 0.01, 0.3])
        not(−0.50) bad(+0.90) at all(+0.30)
    """
    record = TextRecord(tokens, attr)
    options: Any = {"sign": sign, "clip": clip, "scale": scale, "palette": palette, "unit": unit}
    return TextView(_passages([record], merge, pool, options, table=False), title, colorbar)


def texts(
    records: Sequence[TextRecord],
    *,
    merge: Merge = None,
    pool: Pool = "sum",
    sign: Sign = "all",
    clip: float = 99.0,
    scale: float | None = None,
    palette: Palette = "attrib",
    unit: str = "attribution",
    title: str | None = None,
    colorbar: bool = True,
) -> TextView:
    """Several texts on one scale, with what the model made of each.

    Args:
        records: The texts, each an `attrib.plot.TextRecord`.
        merge, pool, sign, clip, scale, palette, unit, title, colorbar: As for `attrib.plot.text`.

    Returns:
        A view, as from `attrib.plot.text`.

    Raises:
        AttribError: If a record does not have as many attributions as tokens.

    Warns:
        PlotWarning: If the picture shows less than it seems to.

    Example:
        >>> texts([TextRecord(["good"], [0.9], true="pos", predicted="pos", probability=0.98)])
        true pos · predicted pos (0.98) · sum +0.90
        good(+0.90)
    """
    for record in records:
        if not isinstance(record, TextRecord):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AttribTypeError(
                f"records: must be attrib.plot.TextRecord, got {type(record).__name__}; one text "
                "is shown by attrib.plot.text(tokens, attr)",
                code="records.type",
            )
    options: Any = {"sign": sign, "clip": clip, "scale": scale, "palette": palette, "unit": unit}
    return TextView(_passages(records, merge, pool, options, table=True), title, colorbar)


def _passages(
    records: Sequence[TextRecord], merge: Merge, pool: Pool, options: Any, *, table: bool
) -> tuple[Passage, ...]:
    merged = [merge_tokens(record.tokens, record.attr, merge, pool=pool) for record in records]
    shown = heats([values for _, values in merged], **options)
    return tuple(
        Passage(words, heat, _facts(record, float(total(values, 0))) if table else ())
        for record, (words, values), heat in zip(records, merged, shown, strict=True)
    )


def _facts(record: TextRecord, total: float) -> tuple[tuple[str, str], ...]:
    predicted = "" if record.predicted is None else str(record.predicted)
    if record.probability is not None:
        predicted = f"{predicted} ({float(record.probability):.2f})".strip()
    facts = {
        "true": "" if record.true is None else str(record.true),
        "predicted": predicted,
        "target": "" if record.target is None else str(record.target),
        "sum": signed(total),
        "gap": "" if record.gap is None else signed(float(record.gap)),
    }
    return tuple((name, fact) for name, fact in facts.items() if fact)
