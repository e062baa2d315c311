"""The files of the front end; `bundle` is the one module that all hosts run."""

import re
from functools import cache
from pathlib import Path

_STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_COMMENT = re.compile(r"/\*\*.*?\*/ ?|^ *//[^\n]*\n", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(
    r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))|^export \{([^}]*)\};\n", re.MULTILINE
)


@cache
def bundle() -> str:
    """The modules of `static/src` as one module, each after those that it imports.

    A widget is loaded from a blob, where no relative import resolves, so there has to be one file.
    Every module becomes a function that is called at once, so that its own names stay its own.
    """
    modules: dict[str, str] = {}
    _collect("app", modules)
    names = "fragment, frozenHost, mount, readFrames, toFragment"
    # What a widget needs is the default alone: anywidget warns of a `render` that has a name.
    ends = [f"const {{ {names} }} = $app;", f"export {{ {names} }};"]
    ends.append("export default { render: $app.render };")
    return "".join(modules.values()) + "\n".join(ends) + "\n"


@cache
def text(name: str) -> str:
    """The text of `app.css`, `host.js` or `index.html`."""
    return (_STATIC / name).read_text(encoding="utf-8")


def _collect(module: str, modules: dict[str, str]) -> None:
    """Add a module behind those it imports, which never import it back."""
    source = (_STATIC / "src" / f"{module}.js").read_text(encoding="utf-8")
    for _, needed in _IMPORT.findall(source):
        if needed not in modules:
            _collect(needed, modules)
    exported = ", ".join(filter(None, (one or many for one, many in _EXPORT.findall(source))))
    body = _EXPORT.sub("", _IMPORT.sub(r"const {\1} = $\2;\n", _COMMENT.sub("", source)))
    modules[module] = (
        f"const ${module} = (() => {{\n{body}return {{ {exported.strip()} }};\n}})();\n"
    )
