"""Every example of the README and of the guide runs and prints what the page shows."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import attrib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
sessions = pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.parity] if "captum" in page.name else [])
        for page in PAGES
    ],
    ids=lambda page: page.name,
)


def _python_blocks(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line and the lines of every fenced block of Python code."""
    block: list[str] | None = None
    first = 0
    for number, line in enumerate(page.read_text("utf-8").splitlines()):
        if block is None and line.strip() == "```python":
            block, first = [], number + 1
        elif block is not None and line.strip() == "```":
            yield first, block
            block = None
        elif block is not None:
            block.append(line)
    assert block is None, f"{page.name}: the block that starts in line {first} has no end"


@sessions
# Captum warns that it has set requires_grad on the tensor it was given, at every call.
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
def test_examples_print_what_the_page_shows(page: Path) -> None:
    if "captum" in page.name:
        pytest.importorskip("captum")
    # The blocks of a page are one session. Everything else is blanked, so that line numbers stay.
    lines = [""] * len(page.read_text("utf-8").splitlines())
    for first, block in _python_blocks(page):
        lines[first : first + len(block)] = block
    test = doctest.DocTestParser().get_doctest("\n".join(lines), {}, page.name, str(page), 0)
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


@pages
def test_every_block_of_python_is_checked(page: Path) -> None:
    for first, block in _python_blocks(page):
        assert block and block[0].startswith(">>> "), (
            f"{page.name}, line {first + 1}: a block of Python is a session and starts with >>>"
        )


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_the_readme_starts_with_the_two_commands() -> None:
    commands = re.findall(r"^make \w+", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_every_public_name_is_in_the_guide() -> None:
    guide = "\n".join(page.read_text("utf-8") for page in PAGES)
    words = set(re.findall(r"\w+", guide))
    assert [name for name in attrib.__all__ if name not in words] == []


def _codes_raised() -> Iterator[str]:
    """Every value given to ``code`` in attrib; a variable part is written as ``<argument>``."""
    for path in sorted((ROOT / "attrib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            given = isinstance(node, ast.keyword) and node.arg == "code"
            bound = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code"
            if given or bound:
                yield from _strings(node.value)


def _strings(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.IfExp):
        yield from (*_strings(value.body), *_strings(value.orelse))
    elif isinstance(value, ast.JoinedStr):
        parts = value.values
        yield "".join(p.value if isinstance(p, ast.Constant) else "<argument>" for p in parts)
    elif isinstance(value, ast.Constant):
        yield value.value


def test_every_error_code_is_documented_and_every_documented_code_exists() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    documented = re.findall(r"^\| `([\w<>]+\.\w+)` \|", page, re.MULTILINE)
    assert sorted(documented) == sorted(set(_codes_raised()))
