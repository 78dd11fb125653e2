"""Submitting and validating a spec."""

import json

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from schemas.job import Status
from schemas.job_spec import JobSpec
from service.app import create_app
from service.settings import Settings
from service.store.blobs import Blobs
from tests.api import Api, bearer, body, new_key, services, worker
from tests.jobs import Desk


def test_answers_201_with_the_place_of_the_job(acme: Api):
    answer = acme.post("/v1/jobs", body())

    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    assert answer.json()["status"] == "queued"
    assert not answer.json()["is_terminal"]
    assert acme.get(answer.headers["Location"]).json() == answer.json()


def test_four_lines_get_every_default(acme: Api):
    least = {"model": {"uri": "s3://zoo/m"}, "data": {"uri": "s3://data/d"}, "goal": {"sparsity": 0.5}}

    spec = acme.post("/v1/jobs", least).json()["spec"]

    assert spec == JobSpec.model_validate(least).model_dump(mode="json")
    assert spec["model"]["uri"] == "s3://zoo/m/"


def test_an_accepted_spec_is_in_s3(acme: Api, blobs: Blobs):
    id = acme.submit(seed=7)

    stored = json.loads(blobs.get_bytes(f"acme/jobs/{id}/spec.json"))

    assert stored == acme.get(f"/v1/jobs/{id}").json()["spec"]
    assert stored["seed"] == 7


def test_a_worker_can_claim_what_was_accepted(acme: Api, desk: Desk):
    id = acme.submit()

    assert desk.claim().id == id


def test_refuses_uris_outside_the_prefixes_and_says_which_are_allowed(acme: Api, settings: Settings):
    answer = acme.post("/v1/jobs", body(model={"uri": "s3://secret/m/"}, data={"uri": "s3://zoo2/"}))

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (403, "prefix_not_allowed")
    assert [error["loc"] for error in problem["errors"]] == [
        ["body", "model", "uri"],
        ["body", "data", "uri"],
    ]
    allowed = ["s3://data/", "s3://zoo/", f"s3://{settings.bucket}/acme/"]
    assert sorted(problem["context"]["allowed"]) == sorted(allowed)
    assert all(prefix in problem["detail"] for prefix in allowed)


def test_a_tenant_may_prune_its_own_results_again(acme: Api, settings: Settings):
    uri = f"s3://{settings.bucket}/acme/jobs/job_1/artifacts/t/"

    assert acme.post("/v1/jobs", body(model={"uri": uri})).status_code == 201


@pytest.mark.parametrize("path", ["", "rival/", "rival/jobs/job_1/artifacts/t/", "acme2/"])
def test_even_a_key_for_all_of_s3_does_not_open_other_tenants_results(
    app: FastAPI, client: TestClient, settings: Settings, path: str
):
    api = Api(client, bearer(new_key(app, "acme", ("s3://",))))

    answer = api.post("/v1/jobs", body(model={"uri": f"s3://{settings.bucket}/{path}"}))

    assert (answer.status_code, answer.json()["code"]) == (403, "prefix_not_allowed")


def test_a_prefix_without_a_slash_does_not_open_buckets_of_a_similar_name(app: FastAPI, client: TestClient):
    api = Api(client, bearer(new_key(app, "acme", ("s3://zoo", "s3://data/"))))

    assert api.post("/v1/jobs", body(model={"uri": "s3://zoo-secret/m/"})).status_code == 403
    assert api.post("/v1/jobs", body(model={"uri": "s3://zoo/m/"})).status_code == 201


def test_without_authentication_everybody_is_the_tenant_default(settings: Settings, blobs: Blobs):
    with TestClient(create_app(settings.model_copy(update={"auth": False}))) as client:
        id = client.post("/v1/jobs", json=body(model={"uri": "s3://anywhere/m/"})).json()["id"]

    assert blobs.exists(f"default/jobs/{id}/spec.json")


def test_validating_estimates_and_creates_nothing(app: FastAPI, acme: Api, settings: Settings, blobs: Blobs):
    area = f"s3://{settings.bucket}/acme/"
    blobs.put_bytes("acme/m/config.json", b"{}")
    blobs.put_bytes("acme/m/model.safetensors", b"12345")
    blobs.put_bytes("acme/d/train.npz", b"123")
    services(app).workers.announce(worker())

    answer = acme.post("/v1/jobs/validate", body(model={"uri": area + "m"}, data={"uri": area + "d"}))

    estimate = answer.json()
    assert answer.status_code == 200
    assert (estimate["model_bytes"], estimate["data_bytes"]) == (7, 3)
    assert (estimate["rounds"], estimate["epochs"]) == (5, 5)
    assert estimate["warnings"] == []
    assert estimate["spec"]["seed"] == 0
    assert acme.get("/v1/jobs").json()["data"] == []
    assert [blob.key for blob in blobs.list("acme/jobs/")] == []


def test_validating_warns_of_what_will_go_wrong(acme: Api, settings: Settings, blobs: Blobs):
    area = f"s3://{settings.bucket}/acme/"
    blobs.put_bytes("acme/m/pytorch_model.bin", b"12345")
    blobs.put_bytes("acme/d/readme.md", b"123")
    spec = body(
        model={"uri": area + "m"},
        data={"uri": area + "d"},
        budget={"max_rounds": 2},
        goal={"sparsity": 0.98},
        fine_tune={"epochs": 0},
    )

    warnings = " ".join(acme.post("/v1/jobs/validate", spec).json()["warnings"])

    for words in (
        "no config.json",
        "no .safetensors",
        "no .parquet",
        "after round 2",
        "is trained",
        "whole layers",
    ):
        assert words in warnings
    assert "No worker serves 'any'" in warnings


@pytest.mark.parametrize(("uri", "words"), [("s3://zoo/m/", "no bucket 'zoo'"), ("", "is empty")])
def test_validating_warns_where_nothing_is(acme: Api, settings: Settings, uri: str, words: str):
    answer = acme.post("/v1/jobs/validate", body(model={"uri": uri or f"s3://{settings.bucket}/acme/x/"}))

    assert answer.status_code == 200
    assert any(words in warning for warning in answer.json()["warnings"])


def test_validating_refuses_what_submitting_refuses(acme: Api):
    assert acme.post("/v1/jobs/validate", body(model={"uri": "s3://secret/m/"})).status_code == 403
    assert acme.post("/v1/jobs/validate", body(goal={"sparsity": 1})).json()["code"] == "invalid_spec"


def test_tags_and_metadata_survive(acme: Api):
    id = acme.submit(tags=["a", "b/c"], metadata={"run": "é 7"})

    job = acme.get(f"/v1/jobs/{id}").json()

    assert (job["tags"], job["metadata"]) == (["a", "b/c"], {"run": "é 7"})
    assert job["status"] == Status.queued
