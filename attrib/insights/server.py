"""The web app: HTTP streaming, for the person at this machine and nobody else."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import warnings
import webbrowser
from collections.abc import Iterable
from typing import Any

from attrib._checks import check_count
from attrib.errors import AttribValueError
from attrib.insights.app import ADDRESS, LOOPBACK, PATIENCE, Guard, is_address
from attrib.insights.session import Session
from attrib.insights.study import Study
from attrib.insights.workbench import Limits

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise ImportError(
        "the web app needs Starlette and uvicorn: pip install 'attrib[insights]'"
    ) from error

__all__ = ["Server", "application", "start"]

TOKEN = 32  # characters, at least: 128 bits in hexadecimal


class Server:
    """A running web app. Leaving its ``with`` block, or `close`, ends it.

    Attributes:
        url: The address to open, which holds the token.
        token: What a page has to know to be answered.
        port: The port.
        session: The engine.
    """

    def __init__(self, url: str, token: str, port: int, session: Session, app: Any) -> None:
        self.url, self.token, self.port, self.session = url, token, port, session
        self._server, self._socket = app
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="attrib-insights-web", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Serve until it is closed, or interrupted from the keyboard."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.5)
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """End running jobs, free the port, and wait for both threads to end."""
        self.session.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({self.url!r})"


def start(
    study: Study,
    *,
    host: str,
    port: int,
    open_browser: bool,
    token: str | None,
    allowed_hosts: Iterable[str],
    debug: bool,
    limits: Limits | None,
) -> Server:
    """Bind a port and serve a study there, see `attrib.insights.serve`."""
    check_count(port, "port", least=0)
    secret = _token(token)
    listening = _bound(host, port)
    actual = listening.getsockname()[1]
    mine = [f"{name}:{actual}" for name in LOOPBACK]
    if not _is_loopback(host):
        warnings.warn(
            f"attrib.insights listens on {host}: whoever has the address with its token can use "
            "your models, and read the data",
            RuntimeWarning,
            stacklevel=3,
        )
        mine += [ADDRESS, socket.gethostname()]
    session = Session(study, limits=limits, debug=debug)
    app = Guard(session, secret, mine, allowed_hosts)
    config = uvicorn.Config(
        app,
        http=_Impatient,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=100,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        proxy_headers=False,
    )
    everywhere = host in ("0.0.0.0", "::")
    shown = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{actual}/#token={secret}"
    server = Server(url, secret, actual, session, (uvicorn.Server(config), listening))
    if open_browser:
        webbrowser.open(url)
    return server


def application(
    study: Study,
    *,
    token: str | None,
    allowed_hosts: Iterable[str],
    debug: bool,
    limits: Limits | None,
) -> Any:
    """The ASGI application, see `attrib.insights.asgi`."""
    secret = _token(token)
    session = Session(study, limits=limits, debug=debug)
    return Guard(session, secret, LOOPBACK, allowed_hosts)


class _Impatient(H11Protocol):
    """Closes a connection on which no request arrives."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expiry = self.loop.call_later(PATIENCE, self._expire)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expiry.cancel()
        super().connection_lost(exc)

    def _expire(self) -> None:
        if self.cycle is None:  # pyright: ignore[reportUnnecessaryComparison]
            self.transport.close()


def _token(given: str | None) -> str:
    if given is None:
        return secrets.token_hex(TOKEN)
    if len(given) < TOKEN or not given.isascii() or not given.isalnum():
        raise AttribValueError(
            f"token: too weak, got {len(given)} characters; must be at least {TOKEN} letters and "
            "digits, e.g. secrets.token_hex(16)",
            code="token.length",
        )
    return given


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)  # from now on the address works, if only in a moment
    except OSError as error:
        listening.close()
        raise AttribValueError(
            f"port: cannot listen on {host}:{port}, got {error.strerror or error}; port=0 takes "
            "any that is free",
            code="port.taken",
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
