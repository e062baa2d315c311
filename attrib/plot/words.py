"""From the pieces of a tokenizer to words, and to what they contribute."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attrib._checks import check_choice
from attrib.errors import AttribValueError
from attrib.plot._arrays import check_names, numbers, shape, total
from attrib.plot.colors import Array

# The stubs of NumPy leave some types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

__all__ = ["Merge", "Pool", "is_special", "merge_tokens", "per_token"]

Merge: TypeAlias = Literal["wordpiece", "sentencepiece", "bpe"] | Sequence[int | None] | None
Pool: TypeAlias = Literal["sum", "mean", "max"]

_KINDS = ("wordpiece", "sentencepiece", "bpe")
_SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<\|?/?[A-Za-z_]\w*\|?>")


def merge_tokens(
    tokens: Sequence[object], attr: Any, merge: Merge = None, *, pool: Pool = "sum"
) -> tuple[list[str], Array]:
    """Words, and what each contributes, from pieces of words.

    Args:
        tokens: The pieces, ``(tokens,)``.
        attr: What each contributes, ``(tokens,)``, or ``(tokens, embedding)``, which is summed.
        merge: How pieces go together: ``"wordpiece"`` (``##`` goes on with a word),
            ``"sentencepiece"`` (``▁`` begins one), ``"bpe"`` (``Ġ`` begins one, bytes are written
            as characters, as in GPT-2); or the number of the word of each token, such as the
            ``word_ids()`` of a tokenizer gives. ``None``: not at all.
        pool: What a word contributes: the ``"sum"`` of its pieces, their ``"mean"``, or ``"max"``,
            the one of largest size.

    Returns:
        The words and their attributions. Special tokens stay alone.

    Raises:
        AttribError: If there are not as many attributions as tokens.

    Example:
        >>> merge_tokens(["play", "##ing", "chess"], [0.5, 0.25, 1.0], "wordpiece")
        (['playing', 'chess'], array([0.75, 1.  ]))
    """
    check_choice(pool, "pool", ("sum", "mean", "max"))
    pieces = [str(token) for token in tokens]
    values = per_token(attr, len(pieces))
    if merge is None:
        return pieces, values
    starts = _starts(pieces, merge)
    words = [_without_marks(pieces[a:b], merge) for a, b in _spans(starts)]
    return words, _pooled(values, np.flatnonzero(starts), pool)


def per_token(attr: Any, count: int, name: str = "attr") -> Array:
    """One number for each token, the sum over the dimensions of an embedding."""
    values = numbers(attr, name)
    if not values.ndim or len(values) != count:
        raise AttribValueError(
            f"{name}: one number for each token, got shape {shape(values)} for {count} tokens; "
            f"pass the attribution of one text, such as {name}[0]",
            code=f"{name}.shape",
        )
    return total(values.reshape(count, -1), 1) if values.size else np.zeros(count)


def is_special(token: str) -> bool:
    """Whether a token stands for no text: ``[CLS]``, ``</s>``, ``<|endoftext|>``."""
    return _SPECIAL.fullmatch(token.strip()) is not None


def _starts(pieces: list[str], merge: Any) -> list[bool]:
    """Whether each piece begins a word."""
    if isinstance(merge, str):
        check_choice(merge, "merge", _KINDS)
        marks = {"wordpiece": ("##",), "sentencepiece": ("▁",), "bpe": ("Ġ", "Ċ")}[merge]
        goes_on = merge == "wordpiece"
        starts = [piece.startswith(marks) != goes_on or is_special(piece) for piece in pieces]
        alone = [True, *map(is_special, pieces)]
        return [start or after for start, after in zip(starts, alone, strict=False)]
    check_names(merge, len(pieces), "merge", "")
    previous = [object(), *merge]
    return [
        number is None or number != before for number, before in zip(merge, previous, strict=False)
    ]


def _spans(starts: list[bool]) -> Iterator[tuple[int, int]]:
    places = [place for place, first in enumerate(starts) if first]
    return zip(places, [*places[1:], len(starts)], strict=True)


def _without_marks(pieces: list[str], merge: Any) -> str:
    if len(pieces) == 1 and is_special(pieces[0]):
        return pieces[0]
    if merge == "bpe":
        return _text_of_bytes("".join(pieces)).strip(" ")
    if merge == "wordpiece":
        return pieces[0] + "".join(piece.removeprefix("##") for piece in pieces[1:])
    return "".join(re.sub("^(##|▁|Ġ)", "", piece) for piece in pieces)


def _pooled(values: Array, starts: NDArray[np.intp], pool: Pool) -> Array:
    """One number for each word, from those of its pieces."""
    if not starts.size:
        return np.zeros(0)
    if pool == "max":
        most, least = (each.reduceat(values, starts) for each in (np.maximum, np.minimum))
        return np.where(most >= -least, most, least)
    with np.errstate(invalid="ignore"):  # infinities of both signs
        sums = np.add.reduceat(values, starts)
    return sums / np.diff(starts, append=len(values)) if pool == "mean" else sums


def _text_of_bytes(text: str) -> str:
    """Undo GPT-2's way to write every byte as a character that can be seen."""
    table = _bytes_of_characters()
    if any(character not in table for character in text):
        return text
    return bytes(table[character] for character in text).decode("utf-8", "replace")


@cache
def _bytes_of_characters() -> dict[str, int]:
    # Radford et al. (2019): bytes that are printed in Latin-1 stand for themselves, the others for
    # the characters from U+0100 on, in their order.
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printed]
    return {chr(b): b for b in printed} | {chr(256 + n): b for n, b in enumerate(hidden)}
