"""The service's HTTP interface, as the commands need it."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx
from pydantic import ValidationError

from schemas.event import Event
from schemas.problem import Problem
from schemas.wire import IDEMPOTENCY_HEADER, REQUEST_ID_HEADER
from service.cli.connection import Connection
from service.cli.errors import refused, unreachable
from service.cli.sse import decode

Payload = dict[str, Any]

_OVERLOAD_PATIENCE_S = 60.0
_SILENCE_S = 45.0  # the service sends a comment every 15 s while nothing happens


class Client:
    """One connection pool. Every method raises CliError: what was tried, why it failed, the remedy."""

    def __init__(self, connection: Connection) -> None:
        self.url = connection.url
        headers = {"Authorization": f"Bearer {connection.key}"} if connection.key else {}
        self._http = httpx.Client(
            base_url=connection.url, headers=headers, timeout=httpx.Timeout(30.0, connect=5.0)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, what: str, params: Mapping[str, Any] | None = None) -> Payload:
        """A resource. `what` is the sentence for the case that it fails: "The jobs were not listed."."""
        return self._json(self.call("GET", path, what, params=params))

    def post(self, path: str, what: str, body: object = None, key: str | None = None) -> Payload:
        """Ask for a change; with an idempotency `key` a repeat changes nothing more."""
        headers = {IDEMPOTENCY_HEADER: key} if key else {}
        return self._json(self.call("POST", path, what, json=body, headers=headers))

    def text(self, path: str, what: str, accept: str) -> str:
        """A representation of that media type."""
        return self.call("GET", path, what, headers={"Accept": accept}).text

    def pages(self, path: str, what: str, params: Mapping[str, Any]) -> Iterator[Payload]:
        """The items of a list, page after page, until the last."""
        after: dict[str, Any] = {}
        while True:
            page = self.get(path, what, {**params, **after})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"] or page["data"][-1]["id"]}

    def call(self, method: str, path: str, what: str, **options: Any) -> httpx.Response:
        """One request; while the service says that it has too much to do, it is repeated."""
        give_up = time.monotonic() + _OVERLOAD_PATIENCE_S
        while True:
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                raise unreachable(self.url, _reason(error)) from error
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS or time.monotonic() > give_up:
                break
            time.sleep(_retry_after(response))
        if response.is_error:
            raise refused(what, _problem(response))
        return response

    def events(self, id: str, after: str | None) -> Iterator[Event]:
        """The live events of a job after the event `after`; ends when the service ends the stream."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
        timeout = httpx.Timeout(30.0, connect=5.0, read=_SILENCE_S)
        path = f"/v1/jobs/{id}/events"
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise refused(f"The events of {id} were not shown.", _problem(response))
                for message in decode(response.iter_bytes()):
                    yield Event.model_validate_json(message.data)
        except httpx.TransportError as error:
            raise unreachable(self.url, _reason(error)) from error

    @contextmanager
    def download(self, path: str, what: str) -> Iterator[Iterator[bytes]]:
        """The bytes behind `path`. The service redirects to the storage, which never sees the API key."""
        link = self.call("GET", path, what, follow_redirects=False)
        if not link.is_redirect:
            yield iter([link.content])
            return
        try:
            with httpx.stream("GET", link.headers["Location"], timeout=30.0) as response:
                if response.is_error:
                    response.read()
                    raise refused(what, _problem(response))
                yield response.iter_bytes(1024 * 1024)
        except httpx.TransportError as error:
            raise unreachable(str(httpx.URL(link.headers["Location"]).host), _reason(error)) from error

    def _json(self, response: httpx.Response) -> Payload:
        try:
            payload = response.json()
        except ValueError as error:
            raise unreachable(self.url, "What answered there is not Secateur: it sent no JSON.") from error
        return payload if isinstance(payload, dict) else {"object": "value", "value": payload}


def _problem(response: httpx.Response) -> Problem:
    """What the service said; a proxy in between may say something else, or nothing."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        detail = f"The answer was {response.status_code} {response.reason_phrase}."
        request_id = response.headers.get(REQUEST_ID_HEADER)
        return Problem(
            title=response.reason_phrase,
            status=response.status_code,
            code="http_error",
            detail=detail,
            request_id=request_id,
        )


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "It did not answer in time."
    return f"{re.sub(r'^.Errno -?[0-9]+. ', '', str(error)) or type(error).__name__}."


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "1")
    return min(30.0, max(0.1, float(value))) if value.replace(".", "", 1).isdecimal() else 1.0
