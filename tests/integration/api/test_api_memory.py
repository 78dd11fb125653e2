"""A job that no living worker has the memory for is refused before it waits for one."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.store.blobs import Blobs
from tests.api import Api, body, services, worker
from tests.zoo import config, safetensors

WEIGHTS = 4 * 1000
SGD = {"fine_tune": {"optimizer": {"kind": "sgd"}}}
NEEDED = 5 * WEIGHTS
"""Model, dense model, the preflight's copy, its gradient and its momentum."""


@pytest.fixture
def spec(settings: Settings, blobs: Blobs, acme: Api) -> dict[str, Any]:
    """Of a model with 1000 weights in float16, trained with SGD."""
    blobs.put_bytes("acme/m/config.json", config())
    blobs.put_bytes("acme/m/model.safetensors", safetensors(weight=("F16", [1000])))
    blobs.put_bytes("acme/d/train.npz", b"123")
    area = f"s3://{settings.bucket}/acme/"
    return body(model={"uri": area + "m"}, data={"uri": area + "d"}, **SGD)


def announce(app: FastAPI, id: str = "w1", **changes: Any) -> None:
    services(app).workers.announce(worker(id, **changes))


def test_validating_shows_the_memory_that_the_job_takes(app: FastAPI, acme: Api, spec: dict[str, Any]):
    announce(app, memory_bytes=NEEDED)

    answer = acme.post("/v1/jobs/validate", spec)

    assert (answer.status_code, answer.json()["memory_bytes"]) == (200, NEEDED)
    assert acme.post("/v1/jobs", spec).status_code == 201


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/validate"])
def test_what_no_worker_has_is_refused_with_both_figures(
    app: FastAPI, acme: Api, spec: dict[str, Any], path: str
):
    announce(app, "w1", memory_bytes=NEEDED // 2)
    announce(app, "w2", memory_bytes=NEEDED // 4)

    answer = acme.post(path, spec)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "not_enough_memory")
    assert problem["errors"][0]["loc"] == ["body", "model", "uri"]
    assert problem["context"] == {"needed_bytes": NEEDED, "most_bytes": NEEDED // 2}
    assert "without activations" in problem["detail"]
    assert "set fine_tune.epochs to 0" in problem["detail"]
    assert problem["errors"][0]["msg"] in problem["detail"]
    assert acme.get("/v1/jobs").json()["data"] == []


def test_a_worker_of_another_class_that_has_it_is_named(app: FastAPI, acme: Api, spec: dict[str, Any]):
    announce(app, "small", memory_bytes=1000)
    announce(app, "large", memory_bytes=NEEDED, device="cuda", serves=["cuda"])

    problem = acme.post("/v1/jobs", {**spec, "placement": {"device": "cpu"}}).json()

    assert problem["errors"][0]["loc"] == ["body", "placement", "device"]
    assert "set placement.device to 'cuda'" in problem["detail"]


@pytest.mark.parametrize(
    "workers",
    [
        [],
        [{"draining": True, "memory_bytes": 1}],
        [{"serves": ["cuda"], "memory_bytes": 1}],
        [{"memory_bytes": 1}, {"memory_bytes": None}],
        [{"memory_bytes": 1}, {"memory_bytes": NEEDED}],
    ],
    ids=["none lives", "leaves", "another class", "one does not say", "one has it"],
)
def test_nothing_is_refused_where_a_worker_may_come_that_has_it(
    app: FastAPI, acme: Api, spec: dict[str, Any], workers: list[dict[str, Any]]
):
    for number, changes in enumerate(workers):
        announce(app, f"w{number}", **changes)

    assert acme.post("/v1/jobs/validate", spec).json()["memory_bytes"] == NEEDED
    assert acme.post("/v1/jobs", spec).status_code == 201


def test_weights_that_cannot_be_read_are_left_to_the_worker(
    app: FastAPI, acme: Api, blobs: Blobs, spec: dict[str, Any]
):
    announce(app, memory_bytes=1)
    blobs.put_bytes("acme/m/model.safetensors", b"no safetensors")

    assert acme.post("/v1/jobs/validate", spec).json()["memory_bytes"] is None
    assert acme.post("/v1/jobs", spec).status_code == 201
    assert acme.post("/v1/jobs", {**spec, "model": {"uri": "s3://zoo/no-such-bucket/"}}).status_code == 201


def test_a_repeated_request_is_answered_though_the_worker_is_gone_that_had_it(
    app: FastAPI, acme: Api, spec: dict[str, Any]
):
    key = {"Idempotency-Key": "one"}
    first = acme.post("/v1/jobs", spec, headers=key)
    announce(app, memory_bytes=1)

    again = acme.post("/v1/jobs", spec, headers=key)

    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


def test_a_single_file_counts_as_it_is(app: FastAPI, acme: Api, blobs: Blobs, settings: Settings):
    blobs.put_bytes("acme/p/model.pt2", bytes(1000))
    uri = f"s3://{settings.bucket}/acme/p/model.pt2"

    answer = acme.post("/v1/jobs/validate", body(model={"uri": uri}, **SGD))

    assert answer.json()["memory_bytes"] == 5 * 1000


def test_the_operator_may_switch_the_check_off(settings: Settings, blobs: Blobs, spec: dict[str, Any]):
    changes = {"auth": False, "check_memory": False}
    with TestClient(app := create_app(settings.model_copy(update=changes))) as client:
        announce(app, memory_bytes=1)
        blobs.put_bytes("default/m/model.safetensors", safetensors(weight=("F16", [1000])))
        own = {
            **spec,
            "model": {"uri": f"s3://{settings.bucket}/default/m/"},
            "data": {"uri": "s3://data/d/"},
        }

        assert client.post("/v1/jobs/validate", json=own).json()["memory_bytes"] == NEEDED
        assert client.post("/v1/jobs", json=own).status_code == 201


def test_the_list_of_workers_says_what_each_has(app: FastAPI, acme: Api):
    announce(app, "new", memory_bytes=7)
    announce(app, "old")

    stated = {one["id"]: one["memory_bytes"] for one in acme.get("/v1/workers").json()["data"]}

    assert stated == {"new": 7, "old": None}
