"""`watch` ends, whatever happens to the threads that follow."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from schemas.event import Event
from schemas.job import Job
from service.cli.errors import CliError, ExitCode
from service.cli.output import Output
from service.cli.watch import watch
from tests.jobs import spec

OF_TOMORROW = '{"id": "1-0", "job": "job_1", "type": "dream", "created_at": "2026-01-01T00:00:00Z"}'


class Garbled:
    """A client of a service with one running job; every stream of it does what `tell` does."""

    def get(self, path: str, what: str) -> dict[str, Any]:
        fields = {"id": "job_1", "status": "running", "created_at": datetime.now(UTC), "spec": spec()}
        job = Job.model_validate({**fields, "device": "any", "priority": 4})
        return job.model_dump(mode="json")

    def events(self, id: str, after: str | None) -> Iterator[Event]:
        yield self.tell()

    def tell(self) -> Event:
        return Event.model_validate_json(OF_TOMORROW)


class Undecodable(Garbled):
    def tell(self) -> Event:
        raise httpx.DecodingError("incorrect header check")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("client", "why"), [(Garbled(), r"type.*'message'"), (Undecodable(), r"DecodingError: incorrect header")]
)
def test_a_follower_that_cannot_go_on_ends_watch_with_the_reason(client: Garbled, why: str):
    with pytest.raises(CliError, match=why) as caught:
        watch(client, Output(json=True), ["job_1"])  # type: ignore[arg-type]

    assert caught.value.what == "job_1 could not be followed."
    assert caught.value.code is ExitCode.unavailable
