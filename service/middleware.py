"""Around every request: its id, one log line, its metrics, the limit of its body, and the last resort."""

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.wire import REQUEST_ID_HEADER
from service.errors import BodyTooLarge, ServiceError
from service.metrics import HttpMetrics
from service.problems import render

_log = structlog.get_logger("service.access")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CLIENT_CLOSED = 499  # nginx's number for a client that left before the answer
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


def _request_id(scope: Scope) -> str:
    """The caller's, if it is short and plain, so that it may go into logs and headers; else a new one."""
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _SANE_ID.fullmatch(given) else "req_" + secrets.token_hex(8)


class Edge:
    """The outermost layer that is ours. An error that nobody foresaw ends here, logged with its traceback."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._metrics)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            await self._app(scope, receive, exchange.send)
        except Exception:  # noqa: BLE001 - the edge of the process: it is logged, and answered with 500
            _log.exception("request_failed", method=scope["method"], path=scope["path"])
            await exchange.fail(receive)
        finally:
            exchange.log()


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send, metrics: HttpMetrics) -> None:
        self.request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = self.request_id
        self._scope = scope
        self._send = send
        self._metrics = metrics
        self._started = time.perf_counter()
        self._status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            MutableHeaders(scope=message)[REQUEST_ID_HEADER] = self.request_id
            self._metrics.observe(self._scope["method"], self._route(), message["status"], self._seconds())
        await self._send(message)

    async def fail(self, receive: Receive) -> None:
        """Answer 500, unless an answer is on its way already."""
        if self._status is not None:
            return
        error = ServiceError(
            "Something went wrong inside the service. Tell the operator this request id: the logs have it."
        )
        await render(self._scope, error)(self._scope, receive, self.send)

    def log(self) -> None:
        level = "debug" if self._scope["path"] in _QUIET else "info"
        getattr(_log, level)(
            "request",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self._status or _CLIENT_CLOSED,
            seconds=round(self._seconds(), 4),
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def _route(self) -> str:
        """The template, never the path: ids are not labels."""
        return getattr(self._scope.get("route"), "path", "unmatched")


class BodyLimit:
    """Refuses a body over `limit` bytes: by its Content-Length, or as soon as it has grown too long.

    Starlette's own middleware does the same, but its answer is text/plain.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._limit:
            error = BodyTooLarge(f"The body has {declared} bytes; at most {self._limit} are taken.")
            await render(scope, error)(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._limit:
                # FastAPI answers any other exception from here with 400
                raise HTTPException(413, f"The body has more than the {self._limit} bytes that are taken.")
            return message

        return counted
