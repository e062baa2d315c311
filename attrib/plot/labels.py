"""How numbers and foreign text are written, the same in figures, in HTML and in a terminal."""

from __future__ import annotations

import math
import re

__all__ = ["MINUS", "aligned", "plain", "shortened", "signed", "visible"]

MINUS = "\N{MINUS SIGN}"
# Control characters, halves of surrogate pairs, marks that turn the direction of writing.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, the minus sign being a real one; zero has none.

    Example:
        >>> signed(0.1234), signed(-1200.0), signed(0.0)
        ('+0.12', '−1200', '0')
    """
    text = plain(value, digits)
    return text if text[0] == MINUS or value == 0 or math.isnan(value) else f"+{text}"


def aligned(value: float, limit: float) -> str:
    """A number with its sign, and as many decimals as others up to the limit.

    Example:
        >>> aligned(0.5, 1.4), aligned(-0.0123, 1.4), aligned(3.0, 250.0), aligned(1e38, 1e38)
        ('+0.50', '−0.01', '+3', '+1.0e+38')
    """
    if not math.isfinite(value):
        return plain(value)
    places = round(2 - math.log10(limit)) if limit > 0 else 0
    written = places > 5 or abs(value) >= 1e6
    text = f"{value:+.1e}" if written else f"{value:+.{max(places, 0)}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def plain(value: float, digits: int = 2) -> str:
    """A number without a plus sign, to so many digits, with no exponent where that is shorter."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}∞"
    if 1e-3 <= abs(value) < 1e5:
        places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
        text = f"{value:.{places}f}"
    else:
        text = f"{value:.{digits}g}" if value else "0"
    return text.replace("-", MINUS)


def visible(text: object) -> str:
    """Foreign text without the characters that a terminal, HTML or a font would act upon.

    Control characters become their pictures, so that an escape sequence is read and not obeyed;
    marks that turn the direction of writing, and halves of surrogate pairs, become U+FFFD.

    Example:
        >>> visible("a\\x1b[31mb")
        'a␛[31mb'
    """
    return _ACTIVE.sub(_seen, str(text))


def shortened(text: str, length: int = 40) -> str:
    """Text of at most so many characters, an ellipsis in place of what was in its middle."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def _seen(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
