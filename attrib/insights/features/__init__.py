"""The kinds of input that a study may have, and how each is shown, hidden and edited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrib._checks import check_callable, check_choice, check_number
from attrib.errors import AttribTypeError, AttribValueError
from attrib.insights.features.array import ArrayFeature, largest
from attrib.insights.features.feature import Feature, Grouping
from attrib.insights.features.image import Image
from attrib.insights.features.series import TimeSeries
from attrib.insights.features.table import Tabular
from attrib.insights.features.text import SPECIAL, Merge, Text

__all__ = [
    "Feature",
    "Grouping",
    "array",
    "image",
    "largest",
    "tabular",
    "text",
    "timeseries",
]


def image(*, denorm: tuple[Any, Any] | None = None) -> Feature:
    """Images ``(channels, height, width)`` or ``(height, width)``.

    Args:
        denorm: ``(mean, std)`` of the normalisation, numbers or one number per channel: pixels are
            shown as ``x * std + mean``, from 0 to 1. Without it the range is guessed: 0 to 1, 0 to
            255, or from the least to the largest value.

    Returns:
        The feature, for `attrib.insights.Study`.

    Raises:
        AttribTypeError: If `denorm` is not a pair.

    Example:
        >>> from attrib import insights
        >>> insights.image(denorm=((0.5, 0.5, 0.5), 0.25)).kind
        'image'
    """
    pair = denorm is None or (isinstance(denorm, (tuple, list)) and len(denorm) == 2)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not pair:
        raise AttribTypeError(
            f"denorm: must be a pair (mean, std), got {type(denorm).__name__}", code="denorm.type"
        )
    return Image(denorm)


def text(
    decode: Callable[[Any], Sequence[str]],
    *,
    encode: Callable[[str], Sequence[int]] | None = None,
    embed: Any = None,
    merge: Merge = "words",
    special: Iterable[str] = SPECIAL,
) -> Feature:
    """Texts as token ids ``(tokens,)``.

    Args:
        decode: From a list of ids to as many strings, e.g. ``tokenizer.convert_ids_to_tokens``.
        encode: From a word to ids, so that tokens can be replaced on the screen.
        embed: Where ids become numbers that have derivatives, for the methods that need them: a
            module inside of the model, or its dotted name, if the model takes ids; a function from
            ids ``(batch, tokens)`` to embeddings if it takes embeddings.
        merge: How the tokenizer says where a word begins: ``"words"`` (every token is one),
            ``"wordpiece"`` (``##`` goes on), ``"sentencepiece"`` (``▁`` begins), ``"bpe"`` (``Ġ``
            begins) or ``"characters"``.
        special: Tokens that stand for no text; they are shown dimmed.

    Returns:
        The feature, for `attrib.insights.Study`.

    Raises:
        AttribTypeError: If `decode` or `encode` is not a function.
        AttribValueError: For an unknown `merge`.

    Example:
        >>> from attrib import insights
        >>> words = ["the", "film"]
        >>> insights.text(lambda ids: [words[i] for i in ids]).kind
        'text'
    """
    check_callable(decode, "decode", "pass e.g. tokenizer.convert_ids_to_tokens")
    if encode is not None:
        check_callable(encode, "encode", "pass a function from a word to a list of ids")
    check_choice(merge, "merge", ("words", "wordpiece", "sentencepiece", "bpe", "characters"))
    return Text(decode, encode, embed, merge, frozenset(special))


def tabular(
    columns: Iterable[str],
    *,
    units: Mapping[str, str] | Iterable[str] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    scale: tuple[Any, Any] | None = None,
) -> Feature:
    """Rows of a table, ``(columns,)``.

    Args:
        columns: Their names.
        units: The unit of some columns by name, or of all in order.
        categories: For columns of whole numbers that stand for words: the words, by name.
        scale: ``(mean, std)`` of the standardisation: values are shown as ``x * std + mean``.

    Returns:
        The feature, for `attrib.insights.Study`.

    Raises:
        AttribValueError: If two columns have the same name, or there are units or categories of
            unknown ones.

    Example:
        >>> from attrib import insights
        >>> insights.tabular(["age", "sex"], units={"age": "years"}, categories={"sex": ["f", "m"]})
        Tabular(columns=('age', 'sex'), units={'age': 'years'}, categories={'sex': ['f', 'm']}, ...
    """
    names = tuple(str(name) for name in columns)
    named = isinstance(units, Mapping)
    known: dict[str, str] = {**units} if named else dict(zip(names, units or (), strict=False))
    strangers = {*known, *(categories or {})} - set(names)
    if len(set(names)) < len(names) or strangers or not names:
        raise AttribValueError(
            f"columns: must be different names that include those of units and categories, got "
            f"{len(names)} names and {len(strangers)} unknown ones",
            code="columns.names",
        )
    known = {name: unit for name, unit in known.items() if unit}
    return Tabular(names, known, dict(categories or {}), scale)


def timeseries(
    channels: Iterable[str] | None = None, *, dt: float = 1.0, unit: str = ""
) -> Feature:
    """Time series ``(channels, steps)`` or ``(steps,)``.

    Args:
        channels: The names of the channels.
        dt: The time from one step to the next.
        unit: The unit of the time, such as ``"s"``.

    Returns:
        The feature, for `attrib.insights.Study`.

    Raises:
        AttribValueError: If `dt` is not positive.

    Example:
        >>> from attrib import insights
        >>> insights.timeseries(["I", "II"], dt=1 / 250, unit="s").kind
        'timeseries'
    """
    check_number(dt, "dt", exclusive=True)
    return TimeSeries(None if channels is None else tuple(channels), dt, unit)


def array() -> Feature:
    """Any tensor, shown as its largest entries.

    Returns:
        The feature, for `attrib.insights.Study`.

    Example:
        >>> from attrib import insights
        >>> insights.array().kind
        'array'
    """
    return ArrayFeature()
