"""The API for tests: in this process, or behind a real socket; with a tenant's key."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from schemas.fleet import Worker
from schemas.job_spec import EXAMPLE
from service.deps import Services
from service.store.api_keys import ApiKeys

PREFIXES = ("s3://zoo/", "s3://data/")


def body(**changes: Any) -> dict[str, Any]:
    """A valid spec as JSON with these top-level fields changed."""
    return {**EXAMPLE, **changes}


def worker(id: str = "w1", **changes: Any) -> Worker:
    """A CPU worker with one of its two slots free."""
    fields = {
        "id": id,
        "hostname": "h",
        "version": "0",
        "device": "cpu",
        "device_name": "CPU",
        "serves": ["cpu", "any"],
        "slots": 2,
        "busy": 1,
        "started_at": "2026-01-01T00:00:00Z",
        "seen_at": "2026-01-01T00:00:00Z",
    }
    return Worker.model_validate({**fields, **changes})


@dataclass
class Api:
    """One tenant's view."""

    client: TestClient
    headers: dict[str, str]

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        return self.client.request(
            method, path, headers={**self.headers, **(headers or {})}, follow_redirects=False, **options
        )

    def get(self, path: str, **options: Any) -> Any:
        return self.call("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> Any:
        return self.call("POST", path, json=json, **options)

    def submit(self, **changes: Any) -> str:
        """The id of a new job."""
        answer = self.post("/v1/jobs", body(**changes))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


def services(app: FastAPI) -> Services:
    """What the app works with."""
    found: Services = app.state.services
    return found


def new_key(app: FastAPI, tenant: str, prefixes: tuple[str, ...] = PREFIXES) -> str:
    """An API key of that tenant."""
    return ApiKeys(services(app).redis).create(tenant, name="test", prefixes=prefixes)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app on uvicorn in a thread; its URL. Streams that the test opened must be closed by then."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "uvicorn did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
