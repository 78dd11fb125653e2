"""The same Idempotency-Key makes one job, whatever happens."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.store.blobs import Blobs
from tests.api import Api, body
from tests.jobs import Desk


def send(api: Api, key: str, **changes: Any) -> Any:
    return api.post("/v1/jobs", body(**changes), headers={"Idempotency-Key": key})


def test_the_same_request_again_answers_the_same_job(acme: Api):
    first = send(acme, "k1")

    again = send(acme, "k1")

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json()["id"] == first.json()["id"]
    assert len(acme.get("/v1/jobs").json()["data"]) == 1


def test_how_the_json_is_written_does_not_matter(acme: Api):
    first = send(acme, "k1")
    written = json.dumps(dict(reversed(body(seed=0).items())), indent=4)

    again = acme.call(
        "POST",
        "/v1/jobs",
        content=written,
        headers={"Idempotency-Key": "k1", "Content-Type": "application/json; charset=utf-8"},
    )

    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


def test_another_body_under_the_same_key_is_refused(acme: Api, blobs: Blobs):
    first = send(acme, "k1")

    other = send(acme, "k1", seed=1)

    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert other.json()["context"]["job"] == first.json()["id"]
    assert len(list(blobs.list("acme/jobs/"))) == 1


def test_requests_at_the_same_time_make_one_job_and_one_spec(acme: Api, blobs: Blobs):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(acme, "k1"), range(16)))

    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 15}
    ids = {answer.json()["id"] for answer in answers}
    assert len(ids) == 1
    assert [blob.key for blob in blobs.list("acme/jobs/")] == [f"acme/jobs/{ids.pop()}/spec.json"]


def test_different_bodies_at_the_same_time_make_one_job_and_one_spec(acme: Api, blobs: Blobs):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: send(acme, "k1", seed=seed), range(8)))

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 7}
    made = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
    assert [blob.key for blob in blobs.list("acme/jobs/")] == [f"acme/jobs/{made}/spec.json"]


def test_two_tenants_may_use_the_same_key(acme: Api, rival: Api):
    assert send(acme, "k1").status_code == 201
    assert send(rival, "k1", seed=1).status_code == 201


def test_without_a_key_every_request_makes_a_job(acme: Api):
    assert acme.submit() != acme.submit()


def test_the_key_of_a_deleted_job_makes_no_second_one(acme: Api, desk: Desk):
    id = send(acme, "k1").json()["id"]
    acme.post(f"/v1/jobs/{id}/cancel")
    assert acme.call("DELETE", f"/v1/jobs/{id}").status_code == 204

    again = send(acme, "k1")

    assert (again.status_code, again.json()["code"]) == (409, "idempotency_key_reused")
    assert "deleted" in again.json()["detail"]
