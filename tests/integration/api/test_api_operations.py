"""Workers, queues, schemas, health, metrics, OpenAPI; and what happens while Redis or S3 is away."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from botocore.config import Config
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from schemas.job import FailureClass, Status
from schemas.job_spec import EXAMPLE, JobSpec
from schemas.wire import DeviceClass
from service.app import create_app
from service.dev.process import free_ports
from service.settings import Settings
from service.store.blobs import Blobs
from tests.api import Api, bearer, body, new_key, services, worker
from tests.jobs import Desk


def announce(app: FastAPI, id: str, **changes: object) -> None:
    services(app).workers.announce(worker(id, **changes))


def test_workers_show_a_tenants_own_jobs_only(app: FastAPI, acme: Api, rival: Api, desk: Desk):
    id = acme.submit()
    desk.claim("w1")
    announce(app, "w1", jobs=[id])
    announce(app, "w2")

    mine = acme.get("/v1/workers").json()["data"]
    others = rival.get("/v1/workers").json()["data"]

    assert [(one["id"], one["jobs"]) for one in mine] == [("w1", [id]), ("w2", [])]
    assert [(one["id"], one["jobs"]) for one in others] == [("w1", []), ("w2", [])]


def test_queues_count_what_waits_and_runs_and_say_why(app: FastAPI, acme: Api, desk: Desk):
    acme.submit()
    acme.submit()
    acme.submit(placement={"device": "ampere"})
    desk.claim()
    announce(app, "w1")

    queues = {one["name"]: one for one in acme.get("/v1/queues").json()["data"]}

    assert set(queues) == {device.value for device in DeviceClass}
    counted = [queues["any"][name] for name in ("waiting", "running", "demand", "workers", "free_slots")]
    assert counted == [1, 1, 2, 1, 1]
    assert 0 <= queues["any"]["oldest_wait_s"] < 60
    assert "No worker serves 'ampere'" in queues["ampere"]["reason"]
    assert queues["cpu"]["reason"] == "Nothing waits."


def test_the_schema_of_a_spec_has_bounds_descriptions_and_all_defaults(client: TestClient):
    assert "job_spec" in client.get("/v1/schemas").json()["data"]

    schema = client.get("/v1/schemas/job_spec").json()

    assert schema["$defs"]["Goal"]["properties"]["sparsity"]["anyOf"][0]["maximum"] == 0.999
    assert schema["properties"]["floor"]["default"] == {"max_drop": 0.01, "min_value": None}
    assert schema["properties"]["schedule"]["default"]["rounds"] == 5
    required = set(schema["required"])
    defaults = {name for name, field in schema["properties"].items() if "default" in field}
    assert (required, required | defaults) == ({"model", "data"}, set(schema["properties"]))
    assert JobSpec.model_validate(schema["examples"][0])


def test_every_listed_schema_is_served(client: TestClient):
    for name in client.get("/v1/schemas").json()["data"]:
        assert client.get(f"/v1/schemas/{name}").json()["type"] == "object"


def test_metrics_are_there_at_zero_and_follow_the_jobs(settings: Settings, acme: Api, desk: Desk):
    with TestClient(create_app(settings), headers=acme.headers) as client:
        assert samples(client)["secateur_jobs_submitted_total", ()] == 0
        client.post("/v1/jobs", json=body())
        failed = client.post("/v1/jobs", json=body(placement={"priority": 9})).json()["id"]
        assert client.get(f"/v1/jobs/{failed}").status_code == 200
        desk.store.finish(desk.claim(), Status.failed, "No.", failure_class=FailureClass.data)
        found = samples(client)

    assert found["secateur_redis_up", ()] == 1
    assert found["secateur_jobs_submitted_total", ()] == 2
    assert found["secateur_queue_demand", ("any",)] == 1
    assert found["secateur_queue_demand", ("ampere",)] == 0
    assert found["secateur_jobs", ("queued",)] == 1
    assert found["secateur_jobs_finished_total", ("data", "failed")] == 1
    assert found["secateur_jobs_finished_total", ("none", "succeeded")] == 0
    assert found["secateur_recoveries_total", ()] == 0
    assert found["secateur_leases_lost_total", ()] == 0
    assert found["secateur_s3_put_seconds_count", ()] == 2
    assert found["secateur_http_request_seconds_count", ("GET", "/v1/jobs/{id}", "200")] == 1


def test_no_id_and_no_path_becomes_a_label(settings: Settings, acme: Api):
    with TestClient(create_app(settings), headers=acme.headers) as client:
        client.get("/v1/jobs/job_secret123")
        client.get("/some/random/path")
        client.request("BREW", "/v1/jobs")
        text = client.get("/metrics").text

    assert "job_secret123" not in text
    assert "random" not in text
    assert "BREW" not in text
    assert 'route="unmatched"' in text


def samples(client: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and label values, these in the order of their names."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_openapi_describes_every_operation_and_its_problems(app: FastAPI):
    document = app.openapi()

    operations = [(path, one) for path, methods in document["paths"].items() for one in methods.values()]
    assert len(operations) >= 20
    for path, operation in operations:
        assert operation["tags"], path
        assert operation["description"], path
        assert "HTTPValidationError" not in str(operation), path
        for status, response in operation["responses"].items():
            if status >= "400" and path != "/readyz":
                assert list(response["content"]) == ["application/problem+json"], (path, status)
    assert document["components"]["schemas"]["JobSpec"]["examples"][0] == EXAMPLE
    (metadata,) = [
        one for one in document["paths"]["/v1/jobs"]["get"]["parameters"] if one["name"] == "metadata"
    ]
    assert (metadata["style"], metadata["explode"]) == ("deepObject", True)


@contextmanager
def without_s3(settings: Settings) -> Iterator[TestClient]:
    """The API with an S3 server that refuses connections; it is asked once only, to save the test's time."""
    app = create_app(settings)
    dead = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{free_ports(1)[0]}",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )
    blobs = Blobs(dead, dead, settings.bucket)
    app.state.services = dataclasses.replace(services(app), blobs=blobs)
    with TestClient(app, headers=bearer(new_key(app, "acme"))) as client:
        yield client


@contextmanager
def without_redis(settings: Settings) -> Iterator[TestClient]:
    """The API with a Redis that refuses connections."""
    dead = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_ports(1)[0]}/0", "auth": False})
    with TestClient(create_app(dead)) as client:
        yield client


def test_with_s3_away_nothing_is_accepted_and_nothing_is_queued(
    settings: Settings, client: TestClient, desk: Desk
):
    with without_s3(settings) as api:
        answer = api.post("/v1/jobs", json=body())
        listed = api.get("/v1/jobs")
        ready = api.get("/readyz")

    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert listed.json()["data"] == []
    assert desk.queues.counts() == {}
    assert (ready.status_code, ready.json()) == (
        503,
        {"status": "unavailable", "redis": "ok", "s3": "unavailable"},
    )


def test_with_redis_away_every_answer_says_so_and_nothing_crashes(settings: Settings, client: TestClient):
    with without_redis(settings) as api:
        for answer in (api.post("/v1/jobs", json=body(model={"uri": "s3://zoo/"})), api.get("/v1/queues")):
            assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        assert api.get("/healthz").json() == {"status": "ok"}
        assert api.get("/readyz").json() == {"status": "unavailable", "redis": "unavailable", "s3": "ok"}
        assert "secateur_redis_up 0.0" in api.get("/metrics").text


def test_a_missing_bucket_is_not_ready_and_hides_its_name_from_callers(
    settings: Settings, client: TestClient
):
    app = create_app(settings.model_copy(update={"bucket": "no-such-bucket"}))
    with TestClient(app, headers=bearer(new_key(app, "acme"))) as api:
        answer = api.post("/v1/jobs", json=body())
        ready = api.get("/readyz")

    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert "no-such-bucket" not in answer.text
    assert ready.json()["s3"] == "unavailable"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_all_is_well(client: TestClient, path: str):
    assert client.get(path).status_code == 200
