"""HTML that escapes everything it is given, and has no place for a script."""

from __future__ import annotations

import html
from collections.abc import Mapping

from attrib.errors import AttribValueError
from attrib.plot.labels import visible

__all__ = ["Html", "element", "escaped", "join", "page"]

# What JupyterLab's sanitizer lets pass of what is needed here.
_TAGS = (
    *("div", "span", "p", "b", "i", "small", "code", "pre", "br", "bdi", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "caption", "ul", "li", "h1", "h2", "h3", "img"),
    *("figure", "figcaption", "section"),
)
_ATTRIBUTES = (
    "title",
    "dir",
    "lang",
    "colspan",
    "rowspan",
    "scope",
    "src",
    "alt",
    "width",
    "height",
)
_VOID = ("br", "img")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Html(str):
    """Text that is markup already. Only this module makes it, from escaped parts."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def escaped(text: object) -> Html:
    """Any text as HTML that shows it; control characters become visible."""
    return text if isinstance(text, Html) else Html(html.escape(visible(text), quote=True))


def element(
    tag: str, *children: object, style: Mapping[str, str] | None = None, **attributes: str | None
) -> Html:
    """One element.

    Args:
        tag: Its name, one of those that JupyterLab shows in notebooks that are not trusted.
        *children: Text, which is escaped, and other elements.
        style: Its CSS. Values are for the program to choose, not for foreign text.
        **attributes: Such as ``title``; left out where they are ``None``.

    Raises:
        AttribError: If the tag or an attribute is not one of the harmless ones.

    Example:
        >>> element("b", "<script>", title='"')
        '<b title="&quot;">&lt;script&gt;</b>'
    """
    _check_harmless(tag, attributes)
    css = ";".join(f"{name}:{value}" for name, value in (style or {}).items())
    given = {"style": css or None, **attributes}
    written = "".join(f' {name}="{escaped(v)}"' for name, v in given.items() if v is not None)
    end = "" if tag in _VOID else f"{join(*children)}</{tag}>"
    return Html(f"<{tag}{written}>{end}")


def join(*parts: object) -> Html:
    """Several pieces of text and markup after one another."""
    return Html("".join(map(escaped, parts)))


def page(title: str, *body: object) -> Html:
    """A document of its own, which asks no other machine for anything."""
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
    )
    return Html(
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>{escaped(title)}</title></head>\n'
        f"<body><main>{join(*body)}</main></body></html>\n"
    )


def _check_harmless(tag: str, attributes: Mapping[str, str | None]) -> None:
    for name, known in [(tag, _TAGS), *((name, _ATTRIBUTES) for name in attributes)]:
        if name not in known:
            raise AttribValueError(
                f"{'tag' if known is _TAGS else 'attribute'}: not among the harmless ones, got "
                f"{name!r}; must be one of {', '.join(known)}",
                code="markup.unknown",
            )
    source = attributes.get("src")
    if source is not None and not source.startswith("data:image/png;base64,"):
        raise AttribValueError(
            f"src: must be a picture in the page itself, got {source[:40]!r}; pass a data URI of "
            "a PNG",
            code="markup.source",
        )
