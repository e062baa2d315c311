"""Every line of "Coming from Captum" runs, both sides of it, and they agree where the page does not
name a reason why they do not."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree

captum = pytest.importorskip("captum.attr")
metrics = pytest.importorskip("captum.metrics")

pytestmark = [
    pytest.mark.parity,
    # Captum tells of its hooks, and of inputs that did not require gradients, at every call.
    pytest.mark.filterwarnings("ignore::UserWarning:captum"),
    pytest.mark.filterwarnings("ignore:Multiple layers provided:UserWarning"),
]

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from-captum.md").read_text("utf-8")
EVERYWHERE = "Options of all classes"
PICTURES = "| Captum's pictures | attrib | |"
TABLE, WITHOUT_LINE = "| Captum | attrib | |", "| option of Captum | in attrib |"
LINE = re.compile(r"\| `(?P<theirs>[^`]+)` \| `(?P<ours>[^`]+)` \| (?P<reason>.*?) ?\|")
TOLERANCE = 1e-6  # float32, relative to the largest entry
BASES = {f"{kind}Attribution" for kind in ("", "Gradient", "Perturbation", "Layer", "Neuron")}
GIVEN = {"self", "forward_func", "model", "layer", "attribution_method", "inputs", "kwargs"}


class Line(NamedTuple):
    """A row of a table: two expressions, and why they differ."""

    section: str
    theirs: str
    ours: str
    reason: str


def rows(header: str) -> Iterator[tuple[str, str]]:
    """The section and the text of every row below a header."""
    section, inside = "", False
    for text in PAGE.splitlines():
        if text.startswith("## "):
            section = text[3:]
        if text == header:
            inside = True
        elif inside and not text.startswith("|"):
            inside = False
        elif inside and not text.startswith("|---"):
            yield section, text


def lines(header: str = TABLE) -> Iterator[Line]:
    for section, text in rows(header):
        found = LINE.fullmatch(text)
        assert found, f"a row needs two pieces of code and a reason or nothing: {text}"
        yield Line(section, found["theirs"], found["ours"], found["reason"])


LINES = list(lines())


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the session at the top of the page defines."""
    found: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples(PAGE):
        exec(example.source, found)
    return found


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.theirs)
def test_a_line_of_captum_is_its_line_of_attrib_or_says_why_not(
    line: Line, names: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        theirs, ours = eval(line.theirs, names), eval(line.ours, names)
    pairs = list(zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True))
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    assert (apart > TOLERANCE) == bool(line.reason), f"{apart:.1e} apart"


@pytest.mark.filterwarnings("ignore::attrib.PlotWarning")
@pytest.mark.parametrize("line", list(lines(PICTURES)), ids=lambda line: line.theirs)
def test_a_picture_of_captum_has_its_line_of_attrib(line: Line, names: dict[str, Any]) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure
    pytest.importorskip("IPython")
    assert isinstance(eval(line.ours, names), (figure, names["plot"].TextView))
    if not line.theirs.startswith("draw."):
        return
    if line.reason.startswith("Captum fails"):
        with pytest.raises((AttributeError, AssertionError, TypeError)):
            eval(line.theirs, names)
    else:
        eval(line.theirs, names)


def test_every_picture_of_captum_has_a_line() -> None:
    module = pytest.importorskip("captum.attr").visualization
    theirs = "\n".join(line.theirs for line in lines(PICTURES))
    kinds = (module.ImageVisualizationMethod, module.TimeseriesVisualizationMethod)
    methods = [method.name for kind in kinds for method in kind]
    functions = [name for name in dir(module) if name.startswith("visualize_")]
    plots = [name for name in dir(captum.LLMAttributionResult) if name.startswith("plot_")]
    assert [name for name in (*methods, *functions, *plots) if name not in theirs] == []
    told = "\n".join(text for _, text in rows("| option of Captum's pictures | in attrib |"))
    taken = {
        name
        for function in functions
        for name in inspect.signature(getattr(module, function)).parameters
    } - {"attr", "original_image", "data", "datarecords", "method", "methods", "sign", "signs"}
    assert {name for name in taken if f"`{name}`" not in told} == {"kwargs", "pyplot_kwargs"}


def test_a_page_without_lines_would_be_noticed() -> None:
    assert len(LINES) > 80
    assert {line.section for line in LINES} == {
        "Methods",
        "Layers",
        "Neurons",
        "Metrics",
        EVERYWHERE,
    }


# --- what the tables must hold ------------------------------------------------------------------


def methods() -> dict[str, type]:
    """Every class of Captum that attributes something."""
    found = {name: getattr(captum, name) for name in captum.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if inspect.isclass(kind) and issubclass(kind, captum.Attribution) and name not in BASES
    }


def options(kind: type) -> set[str]:
    """The names of what its constructor and `attribute` take."""
    of_both = (inspect.signature(kind), inspect.signature(kind.attribute))
    return {name for signature in of_both for name in signature.parameters} - GIVEN


def used(line: Line) -> Iterator[tuple[str, str]]:
    """Every class in a line of Captum, with every option that the line gives it."""
    for call in ast.walk(ast.parse(line.theirs)):
        if not isinstance(call, ast.Call):
            continue
        made = call.func.value if isinstance(call.func, ast.Attribute) else call
        if not (isinstance(made, ast.Call) and isinstance(made.func, ast.Name)):
            continue
        kind = getattr(captum, made.func.id, None)
        if kind is not None:
            names = list(inspect.signature(kind if made is call else kind.attribute).parameters)
            positional = names if made is call else names[1:]  # self
            given = (*positional[: len(call.args)], *(str(word.arg) for word in call.keywords))
            yield from ((made.func.id, name) for name in ("", *given))


def shown() -> dict[str, set[str]]:
    """The options that the lines of a class show; those of every class stand under ""."""
    found: dict[str, set[str]] = {"": set()}
    for line in LINES:
        for kind, option in used(line):
            found.setdefault(kind, set()).add(option)
            if line.section == EVERYWHERE:
                found[""].add(option)
    return found


def test_every_class_of_captum_has_a_line_or_is_named_as_missing() -> None:
    missing = set(re.findall(r"`(\w+)`", PAGE.partition("## Not in this release")[2]))
    lined = set(shown()) - {""}
    assert lined | missing >= set(methods())
    assert not lined & missing
    assert {name for name in methods() if name.startswith(("Layer", "Neuron"))} <= lined


@pytest.mark.parametrize("name", sorted(set(shown()) & set(methods())))
def test_every_option_of_a_class_has_a_line_or_a_word(name: str) -> None:
    found = shown()
    told = {
        word
        for _, text in rows(WITHOUT_LINE)
        for word in re.findall(r"`(\w+)`", text.split("|")[1])
    }
    assert options(methods()[name]) - found[name] - found[""] - told == set()


def test_every_option_of_a_metric_has_a_line() -> None:
    lines = [line for line in LINES if line.section == "Metrics"]
    told = "\n".join(line.theirs for line in lines)
    for metric in (metrics.infidelity, metrics.sensitivity_max):
        names = [*inspect.signature(metric).parameters]
        # Given by their places: the model, the perturbation, x, the attribution and the baseline.
        later = {name for name in names if name not in GIVEN} - {*names[:5]}
        assert [name for name in later if f"{name}=" not in told] == []


def test_every_quadrature_and_every_kind_of_noise_has_a_line() -> None:
    approximation = pytest.importorskip("captum.attr._utils.approximation_methods")
    noise = pytest.importorskip("captum.attr._core.noise_tunnel")
    lines = "\n".join(line.theirs for line in LINES)
    wanted = {*approximation.SUPPORTED_METHODS, *noise.SUPPORTED_NOISE_TUNNEL_TYPES}
    default = "smoothgrad"
    assert [word for word in wanted if word != default and f'"{word}"' not in lines] == []
