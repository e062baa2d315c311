"""The application: who is answered, what every response carries, how messages are streamed."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import ipaddress
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

from attrib.insights import assets
from attrib.insights.protocol import MESSAGE_BYTES, Failure, frame, pack, parse
from attrib.insights.session import Session

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise ImportError(
        "the web app needs Starlette and uvicorn: pip install 'attrib[insights]'"
    ) from error

__all__ = ["ADDRESS", "HEADERS", "LOOPBACK", "PATIENCE", "POLICY", "Guard", "is_address", "routes"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""What the page may load, and who may frame it."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""What every response carries."""

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PATIENCE = 10.0  # seconds for a request to arrive
FAREWELL = 1.0  # seconds in which what is too long may still be sent
ADDRESS = "<address>"  # among known hosts: any that is a number, which no name can be bound to
_LOG = logging.getLogger("attrib.insights")
_UNDERWAY = frozenset({"progress", "partial"})


class Guard:
    """Refuses foreign hosts before anything else happens, and puts headers on every response.

    Args:
        session: The engine.
        token: What a page has to know.
        hosts: By which names the server is known, with or without a port.
        proxies: By which names a proxy in front of it is known, with or without a port.
    """

    def __init__(
        self, session: Session, token: str, hosts: Iterable[str], proxies: Iterable[str]
    ) -> None:
        self.session, self.token = session, token
        self._app = routes(session, token)
        self._proxies = frozenset(name.lower() for name in proxies)
        self._hosts = self._proxies | {name.lower() for name in hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1 or not self.knows(given[0]):
            await _refusal(400, "host", "unknown host")(scope, receive, guarded)
            return
        scope = {**scope, "attrib.guard": self, "attrib.host": given[0].lower()}
        await self._app(scope, receive, guarded)

    def knows(self, host: str) -> bool:
        """Whether a name, with or without a port, is one that this server answers to."""
        name = _portless(host.lower())
        return bool({host.lower(), name} & self._hosts) or (
            ADDRESS in self._hosts and is_address(name.strip("[]"))
        )

    def trusts(self, origin: str, scheme: str, host: str) -> bool:
        """Whether a page of an origin may ask: one that this server served, by its scheme and the
        host that was asked, or one of a proxy, which may speak another scheme and have another name
        than it asks us by."""
        spoken, _, place = origin.lower().partition("://")
        if (spoken, place) == (scheme, host):
            return True
        # Every port of this machine is not a proxy: there, the port has to be named too.
        named = {place} if _portless(place) in LOOPBACK else {place, _portless(place)}
        return spoken in ("http", "https") and bool(named & self._proxies)


def routes(session: Session, token: str) -> Starlette:
    """What is answered: the page, its files, and messages."""

    async def index(request: Request) -> Response:
        return Response(assets.text("index.html"), media_type="text/html")

    def static(name: str, read: Callable[[], str], kind: str) -> Route:
        small = cache(lambda: gzip.compress(read().encode(), mtime=0))

        async def endpoint(request: Request) -> Response:
            if "gzip" not in request.headers.get("accept-encoding", ""):
                return Response(read(), media_type=kind)
            return Response(small(), headers={"content-encoding": "gzip"}, media_type=kind)

        return Route(f"/static/{name}", endpoint, methods=["GET"])

    async def message(request: Request) -> Response:
        refused = _refused(request, token)
        if refused is not None:
            return refused
        try:
            body = await asyncio.wait_for(_body(request), PATIENCE)
        except asyncio.TimeoutError:
            return _refusal(408, "protocol", "the request took too long")
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            told = _told("limit", "the message is longer than 1 MB")
            return _TooLong(told, status_code=413, headers={"connection": "close"})
        try:
            parsed = parse(body)
        except Failure as failure:
            return _refusal(400, failure.kind, str(failure))
        return _Stream(session, {"v": 1, **parsed})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        yield
        await run_in_threadpool(session.close)

    app = Starlette(
        routes=[
            Route("/", index, methods=["GET"]),
            static("app.js", assets.bundle, "text/javascript"),
            static("host.js", lambda: assets.text("host.js"), "text/javascript"),
            static("app.css", lambda: assets.text("app.css"), "text/css"),
            Route("/api/message", message, methods=["POST"]),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # there is nothing at other addresses
    return app


def _refused(request: Request, token: str) -> Response | None:
    """Why a message is not even read."""
    headers, scope = request.headers, request.scope
    guard: Guard = scope["attrib.guard"]
    same = guard.trusts(headers.get("origin", ""), scope["scheme"], scope["attrib.host"])
    if not same or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return _refusal(403, "origin", "this page may not use the server")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _refusal(403, "protocol", "only JSON is accepted")
    given = headers.get("x-attrib-token", "")
    if not hmac.compare_digest(given.encode(), token.encode()):
        return _refusal(403, "auth", "the token is missing or wrong: open the printed address")
    return None


async def _body(request: Request) -> bytes | None:
    """The body, unless it is said or turns out to be too long."""
    said = request.headers.get("content-length", "0")
    if not said.isdecimal() or int(said) > MESSAGE_BYTES:
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MESSAGE_BYTES:
            return None
    return body


class _TooLong(JSONResponse):
    """A refusal that is sent at once. Some of what is still sent is read and forgotten, for who
    sends does not listen."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def keep_open(message: Any) -> None:
            await send({**message, "more_body": True} if "body" in message else message)

        await super().__call__(scope, receive, keep_open)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_forget(receive), FAREWELL)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _forget(receive: Any) -> None:
    left = 4 * MESSAGE_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


class _Stream(Response):
    """Frames until the terminal one; the job ends when the front end goes away."""

    def __init__(self, session: Session, message: dict[str, Any]) -> None:
        super().__init__()
        self._session, self._message = session, message

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        def emit(told: dict[str, Any]) -> None:
            if told["type"] in _UNDERWAY and waiting.qsize() > 50:
                return  # someone who does not read needs no more progress
            try:
                loop.call_soon_threadsafe(waiting.put_nowait, told)
            except RuntimeError:
                return  # the server has ended

        async def forward() -> None:
            headers = [
                (b"content-type", b"application/octet-stream"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await run_in_threadpool(self._session.handle, self._message, emit)
            while True:
                told = await waiting.get()
                body = frame(pack(told))
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if told["type"] not in _UNDERWAY:
                    break
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        tasks = [asyncio.ensure_future(forward()), asyncio.ensure_future(gone())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            if ended[0] is not None:
                self._session.cancel(self._message["client"], self._message["id"])
            if isinstance(ended[0], Exception) and not isinstance(ended[0], OSError):
                _LOG.error("a reply could not be sent", exc_info=ended[0])


def _refusal(status: int, kind: str, message: str) -> Response:
    return JSONResponse(_told(kind, message), status_code=status)


def _told(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message}}


def _portless(host: str) -> str:
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def is_address(host: str) -> bool:
    """Whether a host is a number, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
