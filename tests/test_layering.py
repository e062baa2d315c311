"""Imports inside attrib point downward, and private names stay where they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "attrib"

# From the bottom to the top. A module imports from lower layers, or from its own layer as long as
# there is no circle. A package (metrics, rules, ...) is one entry: all its modules share its layer.
LAYERS = (
    {"errors", "types"},
    {"_tree", "_transforms", "_modes"},
    {"_deferred", "_taps"},
    {
        "_carriers",
        "_sites",
        "_marked",
        "_passed",
        "_checks",
        "_last_layer",
        "_outputs",
        "_quadrature",
        "reducers",
    },
    {"_batched", "_progress", "_map"},
    {"perturb", "scores"},
    {"gradient", "_adaptive"},
    {"_paths"},
    {"_inside", "_marking", "_watching"},
    {"path", "blur", "guided", "hessians", "smooth", "layers", "conductance", "rules", "games"},
    {"attack", "cam", "checking", "concept", "distributed", "gates", "influence", "metrics", "text"}
    | {"_attending", "_runs", "attention", "patching"},
    {"plot"},
    {"insights"},
    {"__init__"},  # the public names
)


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {
    _name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
}


class Import(NamedTuple):
    """What one statement takes from another module of attrib."""

    source: str  # the module, without the prefix
    name: str | None  # what is taken from it, None for the module itself
    bound: str  # what the importing module calls it


def _imports(module: str) -> Iterator[Import]:
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, source = alias.name.partition(".")
                if package == "attrib":
                    yield Import(source or "__init__", None, alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"attrib.{module}: relative import in line {node.lineno}"
            package, _, source = (node.module or "").partition(".")
            for alias in node.names if package == "attrib" else []:
                bound, inner = alias.asname or alias.name, f"{source}.{alias.name}".lstrip(".")
                if inner in MODULES:
                    yield Import(inner, None, bound)
                else:
                    yield Import(source or "__init__", alias.name, bound)


def _layers(module: str) -> list[int]:
    top = module.partition(".")[0]
    return [height for height, names in enumerate(LAYERS) if top in names]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_one_layer(module: str) -> None:
    assert len(_layers(module)) == 1, f"attrib.{module}: give it one place in LAYERS"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module: str) -> None:
    upward = [i.source for i in _imports(module) if _layers(i.source) > _layers(module)]
    assert not upward, f"attrib.{module} imports from layers above its own: {upward}"


def test_imports_have_no_circle() -> None:
    left = {(module, i.source) for module in MODULES for i in _imports(module)}
    while left:
        importing = {module for module, _ in left}
        ground = {source for _, source in left} - importing
        assert ground, f"these modules import each other in a circle: {sorted(importing)}"
        left = {(module, source) for module, source in left if source not in ground}


@pytest.mark.parametrize("module", MODULES)
def test_private_names_stay_in_their_module(module: str) -> None:
    imports = list(_imports(module))
    taken = [f"{i.source}.{i.name}" for i in imports if i.name and _private(i.name)]
    assert not taken, f"attrib.{module} imports private names: {taken}"

    modules = {i.bound for i in imports if i.name is None}
    reached = [
        ast.unparse(node)
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Attribute)
        and _private(node.attr)
        and ast.unparse(node.value) in modules
    ]
    assert not reached, f"attrib.{module} reaches for private names: {reached}"


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("module", MODULES)
def test_optional_packages_are_imported_where_they_are_used(module: str) -> None:
    if _layers("plot") <= _layers(module) < _layers("__init__"):
        return
    optional = {"captum", "matplotlib", "pandas", "PIL", "scipy", "sklearn", "tqdm", "transformers"}
    for node in MODULES[module].body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        heavy = {name.partition(".")[0] for name in names} & optional
        assert not heavy, f"attrib.{module} imports {heavy} as soon as it is imported itself"
