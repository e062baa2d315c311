"""The studies that come along: real photos, film reviews and a real table, from the examples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from attrib.insights.study import Study

__all__ = ["photos", "reviews", "studies", "tumours", "visual"]

_EXAMPLES = Path(__file__).parents[2] / "examples"


def studies() -> dict[str, Callable[[], Study]]:
    """What there is, by name; a study is made when its function is called."""
    return {"photos": photos, "tumours": tumours, "reviews": reviews}


def photos() -> Study:
    """EfficientNet-Lite0 on four photos.

    Raises:
        ImportError: Without the examples of the repository, or what they need.
        OSError: If its files can neither be found nor downloaded.
    """
    return _made("photos")


def reviews() -> Study:
    """all-MiniLM-L6-v2 with a head for film reviews, trained in a moment.

    Raises:
        ImportError: As for `photos`.
        OSError: As for `photos`.
    """
    return _made("reviews")


def tumours() -> Study:
    """A small network on the breast cancer table of scikit-learn.

    Raises:
        ImportError: As for `photos`.
    """
    return _made("tumours")


def visual() -> Study:
    """An image and a question in one model, which is trained first, in less than a minute.

    Raises:
        ImportError: As for `photos`.
    """
    return _made("visual")


def _made(name: str) -> Study:
    if not (_EXAMPLES / "studies.py").is_file():
        raise ImportError(
            "the ready studies belong to the examples, which are not installed: run this in a "
            "checkout of the repository, or name a study of your own as module:study"
        )
    if str(_EXAMPLES) not in sys.path:
        sys.path.append(str(_EXAMPLES))
    try:
        module = import_module("studies")
        return getattr(module, name)()
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'attrib[insights,examples]'") from error
    except RuntimeError as error:
        if type(error).__module__ != "assets":
            raise
        raise OSError(str(error)) from error  # one sentence on what could not be had
