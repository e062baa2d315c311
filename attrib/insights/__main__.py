"""`python -m attrib.insights [module:study]`: a study in the browser, or in a file."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

from attrib.errors import AttribError
from attrib.insights import Study, export, serve
from attrib.insights.demo import studies

READY = "attrib.insights.demo:tumours"  # of those that come along, the one that needs no download


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve or export the study that is named on the command line."""
    options = _parser().parse_args(arguments)
    try:
        if options.export is not None:
            print(export(_found(options.study or READY), options.export))
            return 0
        _serve(options)
    except KeyboardInterrupt:
        return 0
    except (AttribError, ImportError, OSError) as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 1
    return 0


def _serve(options: argparse.Namespace) -> None:
    """Serve what was named, or all that comes along, until the keyboard says stop."""
    named = {options.study: partial(_found, options.study)} if options.study else studies()
    with ExitStack() as running:
        for place, (name, make) in enumerate(named.items()):
            if options.study is None:
                print(f"{name}: loading ...", flush=True)
            server = running.enter_context(
                serve(
                    make(),
                    port=options.port and options.port + place,
                    host=options.host,
                    token=options.token,
                    open_browser=options.open,
                    allowed_hosts=options.allow_host,
                    debug=options.debug,
                )
            )
            print(f"{name}: {server.url}", flush=True)
        print("Open an address in the browser; Ctrl+C ends.", flush=True)
        server.wait()  # pyright: ignore[reportPossiblyUnboundVariable]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m attrib.insights", description=__doc__)
    parser.add_argument("study", nargs="?", help="module:name of a Study, or of a function of none")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--export", metavar="FILE", help="write .html, .json or .npz instead")
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.add_argument("--token", default=os.environ.get("ATTRIB_TOKEN"), help=argparse.SUPPRESS)
    parser.add_argument("--allow-host", action="append", default=[], help="the name of a proxy")
    parser.add_argument("--debug", action="store_true", help="show tracebacks on the page")
    return parser


def _found(name: str) -> Study:
    """The study that a name stands for."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # modules of the folder one is in
    found: Any = getattr(importlib.import_module(module), attribute or "study", None)
    if callable(found):
        found = found()
    if isinstance(found, Mapping):
        found = Study(**{str(key): value for key, value in cast("Any", found).items()})
    if not isinstance(found, Study):
        raise ImportError(f"{name}: is no insights.Study; name one as module:study")
    return found


if __name__ == "__main__":
    sys.exit(main())
