"""Keys and tenants: who may ask, and that no route shows one tenant's things to another."""

import time

from fastapi import FastAPI
from starlette.testclient import TestClient

from schemas.job import Status
from service.auth import KeyRing
from service.store.api_keys import ApiKeys
from tests.api import Api, bearer, services
from tests.jobs import Desk

OPEN = {"/healthz", "/readyz", "/metrics", "/v1/schemas", "/v1/schemas/{name}"}


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path of the API."""
    return [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]


def test_every_route_but_the_open_ones_asks_for_a_key(app: FastAPI, client: TestClient):
    for method, path in operations(app):
        json = {} if method in ("POST", "PATCH") else None
        answer = client.request(method, path.replace("{id}", "job_1"), json=json)

        assert (answer.status_code == 401) == (path not in OPEN), (method, path, answer.text)


def test_a_wrong_key_is_refused_with_the_scheme_to_use(client: TestClient):
    for headers in ({}, bearer("sct_x_y"), {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
        answer = client.get("/v1/jobs", headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "secateur keys create" in answer.json()["detail"]


def test_another_tenants_job_is_not_there_on_any_route(app: FastAPI, acme: Api, rival: Api, desk: Desk):
    id = acme.submit()
    claim = desk.claim()
    manifest = {"prefix": "acme/x/", "artifacts": []}
    desk.store.finish(claim, Status.succeeded, "Done.", manifest=manifest)
    routes = [(method, path) for method, path in operations(app) if "{id}" in path]
    assert len(routes) >= 14

    for method, path in routes:
        json = {"tags": ["x"]} if method == "PATCH" else None
        mine = path.replace("{id}", id).replace("{name}", "report.json")
        answer = rival.call(method, mine, json=json)
        stream = rival.call(method, mine, json=json, headers={"Accept": "text/event-stream"})

        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), (method, path)
        assert stream.status_code == 404
    assert acme.get(f"/v1/jobs/{id}").json()["tags"] == ["demo"]


def test_another_tenants_job_looks_like_one_that_never_was(acme: Api, rival: Api):
    foreign = rival.get(f"/v1/jobs/{acme.submit()}").json()
    missing = rival.get("/v1/jobs/job_nope").json()

    assert {**foreign, "request_id": ""} == {**missing, "request_id": ""}


def test_lists_hold_ones_own_jobs_only(acme: Api, rival: Api):
    acme.submit(tags=["t"], metadata={"k": "v"})

    for query in ("", "?tag=t", "?status=queued", "?metadata[k]=v", "?status=queued&status=running"):
        assert rival.get(f"/v1/jobs{query}").json()["data"] == []


def test_a_revoked_key_is_remembered_for_its_time_and_no_longer(app: FastAPI, acme: Api):
    keys = ApiKeys(services(app).redis)
    ring = KeyRing(keys, remember_s=0.1)
    secret = keys.create("acme", name="short", prefixes=())
    assert ring.recall(secret) is None
    found = ring.find(secret)

    keys.revoke(found.key_id)

    assert ring.recall(secret) == found
    time.sleep(0.11)
    assert ring.recall(secret) is None
    assert ring.find(secret) is None
