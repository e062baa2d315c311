"""See what models respond to: a web app, a notebook widget and an offline report of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrib.insights.features import array, image, tabular, text, timeseries
from attrib.insights.field import Range
from attrib.insights.registry import methods
from attrib.insights.reports import export
from attrib.insights.study import Study
from attrib.insights.workbench import Limits

if TYPE_CHECKING:
    from attrib.insights.server import Server

__all__ = [
    "Limits",
    "Range",
    "Study",
    "array",
    "asgi",
    "export",
    "image",
    "methods",
    "serve",
    "tabular",
    "text",
    "timeseries",
    "widget",
]


def serve(
    study: Study | Mapping[str, Any],
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    open_browser: bool = False,
    token: str | None = None,
    allowed_hosts: Iterable[str] = (),
    debug: bool = False,
    limits: Limits | None = None,
) -> Server:
    """Show a study in the browser (needs the extra ``attrib[insights]``).

    The app runs in a thread of this process, answers this machine only, and only who knows the
    token in its address. It loads nothing from the network.

    Args:
        study: What is to be explained, or the arguments of `Study`.
        port: Where to listen; 0 takes a free port.
        host: The address to listen on. Any other than a loopback address makes models and data
            available to the network, and warns.
        open_browser: Open the page at once.
        token: The secret in the address, at least 32 letters and digits; a random one if left out.
        allowed_hosts: Names by which a proxy is known, such as ``"hub.example.org"``.
        debug: Show tracebacks on the page, which may tell what is not for everybody.
        limits: How much work may be asked for.

    Returns:
        The server: ``url``, ``wait()``, ``close()``; a context manager.

    Raises:
        ImportError: If the extra is not installed.
        AttribValueError: If the port is taken, or the token is too short.
        AttribError: As for `Study`.

    Example:
        >>> import torch
        >>> from attrib import insights
        >>> data, features = [(torch.ones(2), 0)], {"row": insights.tabular(["a", "b"])}
        >>> study = insights.Study(models=torch.nn.Linear(2, 3), data=data, features=features)
        >>> with insights.serve(study) as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True
    """
    from attrib.insights.server import start

    return start(
        _study(study),
        host=host,
        port=port,
        open_browser=open_browser,
        token=token,
        allowed_hosts=allowed_hosts,
        debug=debug,
        limits=limits,
    )


def asgi(
    study: Study | Mapping[str, Any],
    *,
    token: str | None = None,
    allowed_hosts: Iterable[str] = (),
    debug: bool = False,
    limits: Limits | None = None,
) -> Any:
    """The web app as an ASGI application, to mount into another (needs ``attrib[insights]``).

    Args:
        study: What is to be explained, or the arguments of `Study`.
        token: As for `serve`; ``app.token`` tells the random one.
        allowed_hosts: The names of the machine; loopback names are always allowed.
        debug: As for `serve`.
        limits: As for `serve`.

    Returns:
        The application. ``app.session.close()`` ends its threads.

    Raises:
        AttribError: As for `serve`.

    Example:
        >>> import torch
        >>> from attrib import insights
        >>> data, features = [(torch.ones(2), 0)], {"row": insights.tabular(["a", "b"])}
        >>> study = insights.Study(models=torch.nn.Linear(2, 3), data=data, features=features)
        >>> app = insights.asgi(study, allowed_hosts=["hub.example.org"])
        >>> len(app.token), app.session.close()
        (64, None)
    """
    from attrib.insights.server import application

    return application(
        _study(study), token=token, allowed_hosts=allowed_hosts, debug=debug, limits=limits
    )


def widget(
    study: Study | Mapping[str, Any], *, debug: bool = False, limits: Limits | None = None
) -> Any:
    """Show a study in a notebook, as the last expression of a cell (needs ``attrib[notebook]``).

    Args:
        study: What is to be explained, or the arguments of `Study`.
        debug: As for `serve`.
        limits: As for `serve`.

    Returns:
        The widget: ``state`` is what it shows, ``selection`` the sample that was chosen last, and
        ``result`` the attribution that was shown last.

    Raises:
        ImportError: If the extra is not installed.
    """
    from attrib.insights.notebook import shown

    return shown(_study(study), debug=debug, limits=limits)


def _study(study: Study | Mapping[str, Any]) -> Study:
    return Study(**study) if isinstance(study, Mapping) else study
