"""The pure functions of the front end, run by a browser, agree with those of Python."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attrib.insights import assets
from attrib.insights.protocol import Array, frame, pack, quantised
from attrib.plot import colors
from attrib.plot.words import merge_tokens

SOURCES = Path(assets.__file__).parent / "static" / "src"
RUN = """async ([module, body, given]) => {
  const found = await import(`/${module}.js`);
  const read = (value) => (typeof value === "string" && value[0] === "!" ? Number(value.slice(1))
    : Array.isArray(value) ? value.map(read) : value);
  const told = (value) => (typeof value === "number" && !Number.isFinite(value) ? `!${value}`
    : ArrayBuffer.isView(value) ? [...value].map(told)
    : Array.isArray(value) ? value.map(told)
    : value && typeof value === "object"
      ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, told(each)])) : value);
  const call = new Function("m", "given", `return (async () => (${body}))();`);
  return told(await call(found, read(given)));
}"""


@pytest.fixture
def run(watched: Callable[..., Any]) -> Callable[..., Any]:
    """Evaluate an expression of a module `m` and of what is `given`."""
    page = watched()

    def source(route: Any) -> None:
        name = route.request.url.rpartition("/")[2]
        if name.endswith(".js"):
            text = (SOURCES / name).read_text("utf-8")
            route.fulfill(body=text, content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html><title>units</title>", content_type="text/html")

    page.route("http://localhost/**", source)
    page.goto("http://localhost/")
    return lambda module, body, given=None: _numbers(page.evaluate(RUN, [module, body, given]))


def _numbers(value: Any) -> Any:
    """What JSON cannot say is a word that begins with an exclamation mark."""
    if isinstance(value, str) and value.startswith("!"):
        return float(value[1:].replace("Infinity", "inf"))
    if isinstance(value, dict):
        return {key: _numbers(each) for key, each in value.items()}
    return [_numbers(each) for each in value] if isinstance(value, list) else value


def test_frames_are_read_however_they_are_cut(run: Callable[..., Any]) -> None:
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(3, 5))
    numbers[0, :3] = math.nan, math.inf, -math.inf
    message = {
        "type": "result",
        "text": "ünï𝄞\u2028</script>",
        "map": quantised(numbers),
        "more": [{"pixels": Array(draw.integers(0, 256, (2, 3), dtype=np.uint8))}],
        "indices": Array(np.array([-7, 2**31 - 1], np.int32)),
        "exact": Array(np.float32([1 / 3, math.nan])),
        "nothing": Array(np.zeros((0, 2), np.float32)),
    }
    told = frame(pack(message)) + frame(pack({"type": "ok"}))
    body = """(async () => {
      const bytes = Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0));
      const outcomes = [];
      for (const size of given[1]) {
        const stream = new ReadableStream({ start(control) {
          for (let at = 0; at < bytes.length; at += size)
            control.enqueue(bytes.slice(at, at + size));
          control.close();
        } });
        const read = [];
        for await (const { header, buffers } of m.readFrames(stream))
          read.push(m.decode(header, buffers));
        outcomes.push(read);
      }
      return outcomes;
    })()"""
    outcomes = run("frames", body, [base64.b64encode(told).decode(), [1, 3, 64, len(told)]])
    for first, last in outcomes:
        assert last["type"] == "ok"
        assert first["text"] == message["text"]
        assert first["map"]["shape"] == [3, 5]
        largest = np.abs(numbers[np.isfinite(numbers)]).max()
        tolerance = {"rtol": 0, "atol": 1.6e-5 * largest, "equal_nan": True}
        assert np.allclose(first["map"]["data"], numbers.ravel(), **tolerance)
        assert (
            first["more"][0]["pixels"]["data"]
            == message["more"][0]["pixels"].values.ravel().tolist()
        )
        assert first["indices"]["data"] == [-7, 2**31 - 1]
        assert first["exact"]["data"][0] == float(np.float32(1 / 3))
        assert math.isnan(first["exact"]["data"][1])
        assert first["nothing"] == {"data": [], "shape": [0, 2]}


def test_a_stream_that_breaks_off_is_told(run: Callable[..., Any]) -> None:
    body = """(async () => {
      const stream = new Blob([new Uint8Array([8, 0, 0, 0, 123])]).stream();
      try { for await (const _ of m.readFrames(stream)); } catch (error) { return error.message; }
    })()"""
    assert "within a frame" in run("frames", body)


def test_colours_and_ink_are_those_of_the_plots(run: Callable[..., Any]) -> None:
    values = [-1.5, *np.linspace(-1, 1, 41).tolist(), 2.0]
    body = """Object.keys(m.PALETTES).map((palette) => {
      const [signed, sizes] = [m.colormap(palette), m.colormap(palette, true)];
      return [palette, given.map(signed), given.map((value) => sizes(Math.abs(value))),
        given.map((value) => m.ink(signed(value))), signed(NaN)];
    })"""
    found = run("colors", body, values)
    assert {palette for palette, *_ in found} == set(colors.PALETTES)
    for palette, signed, sizes, inks, missing in found:
        for sign, shown in (("all", signed), ("absolute", sizes)):
            expected = 255 * colors.paint(values, sign=sign, palette=palette)
            assert np.abs(np.array(shown) - expected).max() <= 0.5 + 1e-9
        assert inks == [colors.ink(np.array(colour) / 255) for colour in signed]
        assert np.allclose(np.array(missing) / 255, colors.unpaint(colors.MISSING))


def test_scales_and_ranks_are_those_of_python(run: Callable[..., Any]) -> None:
    spearmanr = pytest.importorskip("scipy.stats").spearmanr
    values = [-2.0, -0.5, 0.0, 0.25, 1.0]
    for sign in ("all", "positive", "negative", "absolute"):
        found = run("scale", f"given.map((x) => m.part(x, 0.5, '{sign}'))", values)
        expected = colors.parts_of(colors.keep_sign(np.array(values), sign), 0.5)
        assert found == expected.tolist()
    odd = run("scale", "[m.part(NaN, 1, 'all'), m.part(Infinity, 1, 'all'), m.part(3, 0, 'all')]")
    assert math.isnan(odd[0]) and math.isnan(odd[1]) and odd[2] == 0
    draw = np.random.default_rng(1)
    one, other = draw.integers(0, 6, 40), draw.normal(size=40)  # the first one has many ties
    found = run("scale", "m.rankCorrelation(...given)", [one.tolist(), other.tolist()])
    assert math.isclose(found, spearmanr(one, other).statistic, abs_tol=1e-12)
    assert math.isnan(run("scale", "m.rankCorrelation([1, 1], [1, 2])"))


def test_numbers_are_written_and_understood(run: Callable[..., Any]) -> None:
    values = [0, -0.00012345, 1234.5, 99999, 1e5, 0.5, -math.inf, math.nan, 0.0999]
    given = [f"!{value}".replace("inf", "Infinity").replace("nan", "NaN") for value in values]
    words = ["0", "−1.23e−4", "1235", "99999", "1e5", "0.5", "−∞", "NaN", "0.0999"]
    assert run("numbers", "given.map((x) => m.number(x))", given) == words
    assert run("numbers", "given.map((x) => m.number(x, { sign: true }))", given[5:8]) == [
        *("+0.5", "−∞", "NaN")
    ]
    # What is shown can be typed again, here and where a comma parts the decimals.
    typed = ["−1.23e−4", "1,5", " +2. ", ".5", "1e5"]
    no_numbers = ["", "many", "1.2.3", "0x10", "Infinity", "1 2"]
    assert run("numbers", "given.map(m.parse)", typed) == [-1.23e-4, 1.5, 2, 0.5, 1e5]
    assert run("numbers", "given.map(m.parse)", no_numbers) == [None] * 6
    assert run("numbers", "[0.5, 0.0123, -0.0004, 1].map(m.percent)") == [
        *("50 %", "1.2 %", "0 %", "100 %")
    ]


def test_words_are_put_together_as_in_the_plots(run: Callable[..., Any]) -> None:
    tokens, values = ["[CLS]", "play", "##ing", "chess"], [0.5, 1.0, -3.0, 2.0]
    given = {
        "tokens": ["[CLS]", "play", "ing", "chess"],
        "before": ["", " ", "", " "],
        "word": [0, 1, 1, 2],
        "special": [True, False, False, False],
    }
    for merge in ("sum", "mean", "max"):
        found = run("text", f"m.merged(given[0], given[1], '{merge}')", [given, values])
        names, expected = merge_tokens(tokens, values, "wordpiece", pool=merge)
        assert [piece["text"].strip() for piece in found] == names
        assert [piece["value"] for piece in found] == expected.tolist()
    alone = run("text", "m.merged(given[0], given[1], 'none')", [given, values])
    assert [piece["value"] for piece in alone] == values


def test_a_link_says_what_the_state_is(run: Callable[..., Any]) -> None:
    state = {
        "v": 1,
        "text": "a&b=c #ü",
        "number": "12",  # text that looks like a number stays text
        "limit": 12,
        "args": {"steps": 8, "window.photo": [3, 5, 5]},
        "flag": True,
        "target": {"contrast": [0, "second"]},
    }
    body = "[m.toFragment(given), m.fragment('#' + m.toFragment(given))]"
    text, found = run("hosts", body, state)
    assert found == state
    assert all(32 < ord(character) < 127 for character in text)
