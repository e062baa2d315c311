"""Coloured text is safe, small and readable: as HTML, in a terminal, as a figure."""

from __future__ import annotations

import html
import itertools
import re
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from attrib import AttribError, PlotWarning, plot
from attrib.plot import colors, labels, markup, terminal, words

# What attackers write, and what breaks pages that mean no harm.
HOSTILE = [
    "<script>window.__xss = 1</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "--></style><b>",
    "<!--",
    "]]>",
    "&lt;b&gt; &amp; &#60;",
    "javascript:alert(1)",
    "\u202eevil\u202c",
    "\u2066isolated",
    "a\x00b",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m",
    "\ud800",
    "x" * 10_000,
    "</span></div></body>",
    "{{7*7}} ${7*7}",
]

# What JupyterLab's sanitizer lets pass (packages/apputils/src/sanitizer.ts), of what is used here.
TAGS = {"div", "span", "b", "table", "thead", "tbody", "tr", "th", "td", "br", "details", "summary"}
ATTRIBUTES = {"style", "title", "dir"}
COLOUR = r"#[0-9a-f]{6}"
LENGTH = r"(0|[0-9.]+(px|%))"
STYLES = {
    "background-color": COLOUR,
    "border": rf"{LENGTH} (solid|dashed) {COLOUR}",
    "border-bottom": rf"{LENGTH} (solid|dashed) {COLOUR}",
    "border-collapse": "collapse",
    "border-top": rf"{LENGTH} solid {COLOUR}",
    "color": COLOUR,
    "cursor": "pointer",
    "display": "inline-block",
    "font-family": "sans-serif",
    "font-size": LENGTH,
    "line-height": r"[0-9.]+",
    "overflow-wrap": "break-word",
    "padding": rf"({LENGTH} ?)+",
    "padding-top": LENGTH,
    "text-align": "left",
    "vertical-align": "top",
    "white-space": "pre-wrap|nowrap",
}


class Sanitizer(HTMLParser):
    """Reads markup, fails at what a notebook that is not trusted would drop, and keeps the text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            for declaration in (value or "").split(";") if name == "style" else []:
                style, _, setting = declaration.partition(":")
                assert re.fullmatch(STYLES[style], setting), declaration
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration: {decl}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a section: {data}")


def record(tokens: list[str], **facts: Any) -> plot.TextRecord:
    return plot.TextRecord(tokens, np.linspace(-1, 1, len(tokens)), **facts)


def views() -> list[plot.TextView]:
    values = np.linspace(-1, 1, len(HOSTILE))
    facts: dict[str, Any] = {"true": HOSTILE[0], "predicted": HOSTILE[1], "target": HOSTILE[2]}
    return [
        plot.text(HOSTILE, values, title=HOSTILE[0], unit=HOSTILE[1]),
        plot.texts([record(HOSTILE, **facts, gap=0.1), record(["fine"])], title=HOSTILE[5]),
    ]


@pytest.mark.parametrize("view", views(), ids=["text", "texts"])
def test_hostile_text_is_shown_and_never_obeyed(view: plot.TextView) -> None:
    shown = Sanitizer(view._repr_html_())
    text = "".join(shown.text)
    for token in HOSTILE[:5]:
        assert token in text
    assert not set(text) & {"\x00", "\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\ud800"}
    view.to_html().encode()  # nothing that UTF-8 cannot write


@pytest.mark.parametrize("view", views(), ids=["text", "texts"])
def test_a_page_of_its_own_asks_nobody_for_anything(view: plot.TextView) -> None:
    page = view.to_html()
    assert "default-src 'none'" in page
    head, _, body = page.partition("<main>")
    Sanitizer(body.partition("</main>")[0])  # no attribute that loads anything
    assert not re.search(r"<(script|link|base)|(src|href)=", head)


@pytest.mark.parametrize("count", [10, 1000, 20_000])
def test_what_a_notebook_keeps_is_small(count: int) -> None:
    values = np.random.default_rng(0).standard_normal(count)
    view = plot.text([f"<&token {place}" for place in range(count)], values)
    source = view._repr_html_()
    assert len(source.encode()) <= 200_000
    Sanitizer(source)
    assert len(view.to_html()) > 60 * count  # the file has everything


def test_many_texts_are_cut_short_and_it_says_so() -> None:
    records = [record([HOSTILE[1] * 30] * 50, true="&" * 500) for _ in range(500)]
    source = plot.texts(records)._repr_html_()
    assert len(source.encode()) <= 200_000
    assert "more" in "".join(Sanitizer(source).text)


def test_folded_tokens_tell_their_number_and_their_sum() -> None:
    values = np.where(np.arange(1000) < 600, 1.0, 0.001)
    text = "".join(Sanitizer(plot.text(["a"] * 1000, values)._repr_html_()).text)
    assert "400 tokens, total +0.40" in text


def test_a_token_has_its_colour_its_ink_and_its_number() -> None:
    source = plot.text(["up", "down", "none"], [1.0, -1.0, 0.0])._repr_html_()
    up = re.search(r'<span style="([^"]*)" title="([^"]*)">up<', source)
    down = re.search(r'<span style="([^"]*)" title="([^"]*)">down<', source)
    assert up is not None and down is not None
    assert up[1] == "background-color:#a34a00;color:#ffffff;border-bottom:2px solid #a34a00"
    assert down[1] == "background-color:#14549c;color:#ffffff;border-bottom:2px dashed #14549c"
    assert (up[2], down[2]) == ("+1.0", "−1.0")
    assert '<span title="0">none<' in source


def test_ink_on_tokens_can_be_read() -> None:
    source = plot.text(["a"] * 201, np.linspace(-1, 1, 201))._repr_html_()
    pairs = re.findall(r"background-color:(#\w{6});color:(#\w{6})", source)
    assert len(pairs) > 150
    for ground, ink in pairs:
        assert colors.contrast(colors.unpaint(ground), colors.unpaint(ink)) >= 4.5


def test_spaces_of_tokens_are_kept() -> None:
    own = "".join(
        Sanitizer(plot.text(["a", " b", "c"], [1, 1, 1], colorbar=False)._repr_html_()).text
    )
    none = "".join(
        Sanitizer(plot.text(["a", "b", "c"], [1, 1, 1], colorbar=False)._repr_html_()).text
    )
    assert (own, none) == ("a bc", "a b c")


def test_a_line_break_is_seen_and_obeyed() -> None:
    source = plot.text(["a\nb"], [1.0])._repr_html_()
    assert "a␊<br>b" in source
    assert str(plot.text(["a\n", "b"], [1.0, 0.0])) == "a(+1.0)␊\nb"


def test_a_bundle_holds_html_and_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "supports_colour", lambda: True)
    bundle = plot.text(["good"], [0.5])._repr_mimebundle_()
    assert bundle["text/plain"] == "good(+0.50)"
    assert bundle["text/html"] == plot.text(["good"], [0.5])._repr_html_()


# --- terminals ----------------------------------------------------------------------------------


@pytest.fixture
def colour_terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    return monkeypatch


def test_a_terminal_gets_colours_and_underlines(colour_terminal: pytest.MonkeyPatch) -> None:
    shown = str(plot.text(["up", "none", "down"], [1.0, 0.0, -1.0]))
    assert shown == (
        "\x1b[48;2;163;74;0m\x1b[38;2;255;255;255m\x1b[4mup\x1b[0m none "
        "\x1b[48;2;20;84;156m\x1b[38;2;255;255;255mdown\x1b[0m"
    )


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colours_there_are_numbers(
    colour_terminal: pytest.MonkeyPatch, name: str, value: str
) -> None:
    colour_terminal.setenv(name, value)
    assert str(plot.text(["up", "none", "down"], [1.0, 0.0, -1.0])) == "up(+1.0) none down(−1.0)"


def test_a_pipe_gets_numbers(colour_terminal: pytest.MonkeyPatch) -> None:
    colour_terminal.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert str(plot.text(["up"], [1.0])) == "up(+1.0)"


@pytest.mark.parametrize("colour", [True, False])
def test_control_characters_of_tokens_reach_no_terminal(
    colour_terminal: pytest.MonkeyPatch, colour: bool
) -> None:
    colour_terminal.setattr(sys.stdout, "isatty", lambda: colour, raising=False)
    for view in views():
        shown = re.sub(r"\x1b\[[0-9;]*m", "", str(view)) if colour else str(view)
        assert not [c for c in shown if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0]
        assert "\u202e" not in shown
        # Every escape sequence is a colour of ours: none of them is in a token.
        ours = r"\x1b\[(0|4|[34]8;2;\d+;\d+;\d+)m"
        assert re.sub(ours, "", str(view)).count("\x1b") == 0


def test_rich_shows_it_in_colours_and_takes_nothing_for_markup() -> None:
    console_module = pytest.importorskip("rich.console")
    from io import StringIO

    file = StringIO()
    console = console_module.Console(
        file=file, force_terminal=True, color_system="truecolor", width=200, no_color=False
    )
    console.print(plot.text(["[bold]up[/bold]"], [1.0], title="[red]title[/red]"))
    shown = file.getvalue()
    assert "[bold]up[/bold]" in shown and "[red]title[/red]" in shown
    assert "48;2;163;74;0" in shown


def test_bars_of_characters_leave_zero_in_the_middle() -> None:
    lines = terminal.bar(["a", "longer\x1b"], [1.0, -0.5], width=20).splitlines()
    assert lines[0].count("█") == 10 and lines[1].count("░") == 5
    assert lines[0].index("│") == lines[1].index("│")
    assert lines[1].startswith("longer␛") and lines[1].endswith("−0.50")


def test_bars_of_wide_letters_stand_below_each_other() -> None:
    lines = terminal.bar(["猫", "café", "e\u0301"], [1.0, 1.0, 1.0], width=10).splitlines()
    assert [line.partition("│")[0].rstrip("░ ") for line in lines] == ["  猫", "café", "   e\u0301"]


def test_an_image_of_half_blocks_has_two_pixels_to_a_character() -> None:
    shown = terminal.image(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    first, second = shown.splitlines()
    assert first.startswith("\x1b[38;2;163;74;0m\x1b[48;2;20;84;156m▀")
    assert first.count("▀") == second.count("▀") == 2


def test_numbers_are_written_with_a_real_minus() -> None:
    assert [labels.signed(v) for v in (0.5, -0.5, 0.0, float("nan"), -float("inf"))] == [
        *("+0.50", "−0.50", "0", "NaN", "−∞")
    ]
    assert labels.plain(1234567.0) == "1.2e+06"


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("merge", "tokens", "merged"),
    [
        ("wordpiece", ["[CLS]", "play", "##ing", "chess"], ["[CLS]", "playing", "chess"]),
        ("sentencepiece", ["▁play", "ing", "▁chess", "</s>"], ["playing", "chess", "</s>"]),
        ("bpe", ["play", "ing", "Ġcaf", "Ã©"], ["playing", "café"]),
        ([None, 0, 0, 1], ["<s>", "play", "##ing", "Ġchess"], ["<s>", "playing", "chess"]),
        (None, ["play", "##ing"], ["play", "##ing"]),
    ],
)
def test_pieces_become_words_and_their_sum_is_kept(
    merge: Any, tokens: list[str], merged: list[str]
) -> None:
    values = np.arange(1.0, len(tokens) + 1)
    found, sums = words.merge_tokens(tokens, values, merge)
    assert found == merged
    assert sums.sum() == values.sum()


@pytest.mark.parametrize(("pool", "expected"), [("sum", -2.0), ("mean", -1.0), ("max", -3.0)])
def test_a_word_gets_what_its_pieces_have(pool: Any, expected: float) -> None:
    _, values = words.merge_tokens(["a", "##b"], [1.0, -3.0], "wordpiece", pool=pool)
    assert values.tolist() == [expected]


def test_an_embedding_is_summed() -> None:
    attr = torch.randn(2, 5, dtype=torch.float64)
    assert str(plot.text(["a", "b"], attr)) == str(plot.text(["a", "b"], attr.sum(1)))


@pytest.mark.parametrize("merge", ["nice", [0, 1, 2]])
def test_other_ways_to_merge_are_refused(merge: Any) -> None:
    with pytest.raises(AttribError, match="merge"):
        plot.text(["a", "b"], [1.0, 2.0], merge=merge)


# --- records ------------------------------------------------------------------------------------


def test_records_are_told_with_what_the_model_made_of_them() -> None:
    view = plot.texts(
        [
            plot.TextRecord(["good"], [0.5], "pos", "neg", 0.75, "pos", 1e-4),
            plot.TextRecord(["bad"], [-1.0], true="neg"),
        ]
    )
    first, _, second, _ = str(view).splitlines()
    assert first == "true pos · predicted neg (0.75) · target pos · sum +0.50 · gap +0.0001"
    assert second == "true neg · sum −1.0"
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", view._repr_html_())
    assert cells == ["pos", "neg (0.75)", "pos", "+0.50", "+0.0001", "neg", "", "", "−1.0", ""]


def test_texts_share_one_scale() -> None:
    source = plot.texts([record(["a"]), plot.TextRecord(["b"], [2.0])])._repr_html_()
    assert '#a34a00;color:#ffffff;border-bottom:2px solid #a34a00" title="+2.0">b<' in source


# --- figures ------------------------------------------------------------------------------------


def test_a_figure_holds_every_token_in_lines_that_fit() -> None:
    pytest.importorskip("matplotlib")
    tokens = [f"token{place}" for place in range(60)]
    figure = plot.text(tokens, np.linspace(-1, 1, 60)).figure()
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == tokens
    right = axes.get_window_extent().x1
    assert all(text.get_window_extent().x1 <= right + 1 for text in axes.texts)


def test_tokens_of_a_figure_do_not_cover_each_other() -> None:
    pytest.importorskip("matplotlib")
    figure = plot.text(["what", "a", "most", "remarkable", "film", "!"], np.ones(6)).figure()
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes) if a.y0 == b.y0)


def test_a_long_text_is_cut_short_in_a_figure_with_a_notice() -> None:
    pytest.importorskip("matplotlib")
    with pytest.warns(PlotWarning, match="800"):
        plot.text(["a"] * 900, np.ones(900)).figure()


# --- markup -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_escapes_whatever_it_is_given(text: str) -> None:
    source = markup.element("span", text, title=text)
    found = Sanitizer(source)
    assert "".join(found.text) == labels.visible(text)
    assert html.unescape(source.partition('title="')[2].partition('"')[0]) == labels.visible(text)


@pytest.mark.parametrize(
    "call",
    [
        lambda: markup.element("script", "alert(1)"),
        lambda: markup.element("iframe"),
        lambda: markup.element("b", onclick="alert(1)"),
        lambda: markup.element("img", src="http://example.org/a.png"),
        lambda: markup.element("img", src="data:text/html;base64,AAAA"),
    ],
)
def test_markup_has_no_place_for_what_runs_or_loads(call: Any) -> None:
    with pytest.raises(AttribError):
        call()


def test_markup_is_not_escaped_twice() -> None:
    inner = markup.element("b", "a & b")
    assert markup.element("div", inner, " <c>") == "<div><b>a &amp; b</b> &lt;c&gt;</div>"
