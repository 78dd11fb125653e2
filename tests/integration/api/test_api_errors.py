"""Bad requests: every error is a problem with a code, a sentence, the fields and the request id."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.logs import configure_logs
from service.settings import Settings
from service.store.scripts import PREFIX
from tests.api import Api, bearer, body, new_key
from tests.jobs import Desk

JSON = {"Content-Type": "application/json"}
BAD: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    # method, path, options, status, code, and where: the first error's place, dotted
    ("POST", "/v1/jobs", {"json": {}}, 422, "invalid_spec", "body.model"),
    ("POST", "/v1/jobs", {"json": []}, 422, "invalid_spec", "body"),
    ("POST", "/v1/jobs", {"json": body(colour="red")}, 422, "invalid_spec", "body.colour"),
    ("POST", "/v1/jobs", {"json": body(goal={"sparsity": 1.0})}, 422, "invalid_spec", "body.goal.sparsity"),
    ("POST", "/v1/jobs", {"json": body(tags=[""])}, 422, "invalid_spec", "body.tags.0"),
    (
        "POST",
        "/v1/jobs",
        {"json": body(model={"uri": "s3://zoo/../x"})},
        422,
        "invalid_spec",
        "body.model.uri",
    ),
    ("POST", "/v1/jobs", {"json": body(model={"uri": "/etc"})}, 422, "invalid_spec", "body.model.uri"),
    ("POST", "/v1/jobs", {"content": b"{", "headers": JSON}, 422, "invalid_json", "body.1"),
    ("POST", "/v1/jobs", {"content": b"", "headers": JSON}, 422, "invalid_spec", "body"),
    ("POST", "/v1/jobs", {"content": b'{"goal": NaN}', "headers": JSON}, 422, "invalid_spec", "body.model"),
    ("POST", "/v1/jobs", {"content": b'{"\\ud800": 1}', "headers": JSON}, 422, "invalid_spec", "body"),
    ("POST", "/v1/jobs", {"content": b"\xff\xfe{", "headers": JSON}, 400, "bad_request", ""),
    ("POST", "/v1/jobs", {"content": b"[" * 100_000, "headers": JSON}, 400, "bad_request", ""),
    ("POST", "/v1/jobs", {"content": b"model: x"}, 415, "unsupported_media_type", ""),
    ("POST", "/v1/jobs", {"data": {"a": "b"}}, 415, "unsupported_media_type", ""),
    ("POST", "/v1/jobs", {"content": b"{" * 2_000_000, "headers": JSON}, 413, "body_too_large", ""),
    ("POST", "/v1/jobs/validate", {"json": {"goal": 1}}, 422, "invalid_spec", "body.model"),
    ("PATCH", "/v1/jobs/job_x", {"json": {"priority": 10}}, 422, "invalid_spec", "body.priority"),
    ("GET", "/v1/jobs?limit=0", {}, 422, "invalid_request", "query.limit"),
    ("GET", "/v1/jobs?limit=101", {}, 422, "invalid_request", "query.limit"),
    ("GET", "/v1/jobs?limit=x", {}, 422, "invalid_request", "query.limit"),
    ("GET", "/v1/jobs?status=done", {}, 422, "invalid_request", "query.status.0"),
    ("GET", "/v1/jobs?page=2", {}, 422, "invalid_request", "query.page"),
    ("GET", "/v1/jobs?tag=%00", {}, 422, "invalid_request", "query.tag"),
    ("GET", "/v1/jobs?metadata[]=x", {}, 422, "invalid_request", "query.metadata..[key]"),
    ("GET", "/v1/jobs/job_x/events?after=yesterday", {}, 422, "invalid_request", "query.after"),
    ("GET", "/v1/jobs/job_x/logs?limit=5001", {}, 422, "invalid_request", "query.limit"),
    ("GET", "/v1/jobs/job_x", {}, 404, "job_not_found", ""),
    ("GET", "/v1/jobs/%00%ff/rounds", {}, 404, "job_not_found", ""),
    ("GET", "/v1/schemas/nope", {}, 404, "schema_not_found", ""),
    ("GET", "/v1/nope", {}, 404, "not_found", ""),
    ("GET", "/v1/jobs/", {}, 404, "not_found", ""),
    ("PUT", "/v1/jobs", {}, 405, "method_not_allowed", ""),
]


def test_every_bad_request_gets_its_problem(acme: Api):
    for method, path, options, status, code, where in BAD:
        answer = acme.call(method, path, **options)

        case = (method, path, str(options)[:60], answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json", case
        problem = answer.json()
        assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), case
        assert problem["detail"].strip(), case
        assert problem["request_id"] == answer.headers["X-Request-ID"], case
        found = [".".join(map(str, error["loc"])) for error in problem["errors"]]
        assert found[:1] == ([where] if where else []), case


@pytest.mark.parametrize("key", ["a b", "é", "x" * 256])
def test_an_odd_idempotency_key_is_refused(acme: Api, key: str):
    answer = acme.post("/v1/jobs", body(), headers={"Idempotency-Key": key.encode("latin-1")})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["loc"] == ["header", "Idempotency-Key"]


def test_a_chunked_body_over_the_limit_is_refused(app: FastAPI, settings: Settings):
    small = create_app(settings.model_copy(update={"max_body_bytes": 4096}))
    sent: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(100):
            sent.append(number)
            yield b" " * 1024

    with TestClient(small, headers=bearer(new_key(app, "acme"))) as client:
        answer = client.post("/v1/jobs", content=chunks(), headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "4096" in answer.json()["detail"]


def test_many_wrong_fields_are_all_listed_and_the_sentence_stays_short(acme: Api):
    answer = acme.post(
        "/v1/jobs", body(goal={"sparsity": 2}, seed=-1, tags=["!"], export=[], budget={"x": 1})
    )

    problem = answer.json()
    assert len(problem["errors"]) == 5
    assert problem["detail"].endswith("and 2 more")


def test_the_callers_request_id_is_kept_if_it_is_sane(acme: Api):
    kept = acme.get("/v1/jobs", headers={"X-Request-ID": "trace-1:a.b"})
    long = acme.get("/v1/jobs", headers={"X-Request-ID": "x" * 129})
    odd = acme.get("/v1/jobs", headers={"X-Request-ID": "a\tb"})

    assert kept.headers["X-Request-ID"] == "trace-1:a.b"
    assert long.headers["X-Request-ID"].startswith("req_")
    assert odd.headers["X-Request-ID"].startswith("req_")


def test_what_nobody_foresaw_is_answered_without_a_traceback_and_logged_with_it(
    acme: Api, desk: Desk, capsys: pytest.CaptureFixture[str]
):
    id = acme.submit()
    desk.redis.hset(f"{PREFIX}job:{id}", "spec", "this is no JSON")

    with logged_as_json():
        answer = acme.get(f"/v1/jobs/{id}")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "internal_error")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert "JSON" not in problem["detail"]
    failed = next(line for line in lines if line["event"] == "request_failed")
    assert "JSONDecodeError" in failed["exception"]
    assert failed["request_id"] == problem["request_id"] == answer.headers["X-Request-ID"]


def test_one_log_line_a_request_says_who_asked_for_what(acme: Api, capsys: pytest.CaptureFixture[str]):
    with logged_as_json():
        answer = acme.get("/v1/jobs?limit=3")
        acme.get("/healthz")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/jobs", 200)
    assert (line["tenant"], line["request_id"]) == ("acme", answer.headers["X-Request-ID"])
    assert line["seconds"] > 0


@contextmanager
def logged_as_json() -> Iterator[None]:
    """Our log format on stderr as it is now; the handlers of before come back."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure_logs("info", "json")
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
