"""Rounds, attempts, log, report and artifacts of a job."""

import hashlib
from typing import Any

import httpx
import pytest

from schemas.job import Status, Step, StepState
from service.store.blobs import Blobs
from tests.api import Api
from tests.jobs import Desk, checkpoint_of, round_of

WEIGHTS = b"\x00weights" * 100
HTML = b"<!doctype html><title>r</title>"


@pytest.fixture
def finished(acme: Api, desk: Desk, blobs: Blobs) -> str:
    """A job that succeeded, its files in S3."""
    id = acme.submit()
    claim = desk.claim()
    step = Step.model_validate(
        {"name": "pull", "state": StepState.running, "started_at": "2026-01-01T00:00:00Z"}
    )
    desk.store.report(claim, steps=[step], lines=("one", "two", "three é"))
    desk.store.commit(claim, round_of(1), checkpoint_of(1))
    desk.store.commit(claim, round_of(2, held=False), None)
    prefix = f"acme/jobs/{id}/artifacts/{claim.token}/"
    files = {"model.safetensors": WEIGHTS, "report.json": b'{"object":"report"}', "report.html": HTML}
    for name, content in files.items():
        blobs.put_bytes(prefix + name, content)
    blobs.put_bytes(f"acme/jobs/{id}/secret.txt", b"not an artifact")
    manifest = {"prefix": prefix, "artifacts": [_artifact(*file) for file in files.items()]}
    desk.store.finish(claim, Status.succeeded, "Done.", summary={"metric": 0.9}, manifest=manifest)
    return id


def _artifact(name: str, content: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"name": name, "bytes": len(content), "sha256": sha256, "media_type": "application/octet-stream"}


def test_rounds_are_in_order_and_say_which_held(acme: Api, finished: str):
    rounds = acme.get(f"/v1/jobs/{finished}/rounds").json()["data"]

    assert [(one["number"], one["held"]) for one in rounds] == [(1, True), (2, False)]
    assert all(one["committed_at"] for one in rounds)


def test_attempts_show_their_steps(acme: Api, finished: str):
    (attempt,) = acme.get(f"/v1/jobs/{finished}/attempts").json()["data"]

    assert (attempt["worker"], attempt["outcome"]) == ("w1", "succeeded")
    assert attempt["steps"][0]["name"] == "pull"


def test_the_log_is_plain_text_with_the_newest_lines(acme: Api, finished: str):
    answer = acme.get(f"/v1/jobs/{finished}/logs?limit=2")

    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text == "two\nthree é\n"


def test_the_report_is_json_and_for_browsers_a_page_that_may_reach_nobody(acme: Api, finished: str):
    json = acme.get(f"/v1/jobs/{finished}/report")
    page = acme.get(f"/v1/jobs/{finished}/report", headers={"Accept": "text/html,*/*;q=0.8"})

    assert json.json() == {"object": "report"}
    assert page.content == HTML
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_the_link_to_an_artifact_needs_no_key(acme: Api, finished: str):
    listed = {one["name"]: one for one in acme.get(f"/v1/jobs/{finished}/artifacts").json()["data"]}

    link = acme.get(f"/v1/jobs/{finished}/artifacts/model.safetensors")
    fetched = httpx.get(link.headers["Location"])

    assert (link.status_code, link.headers["Cache-Control"]) == (307, "no-store")
    assert fetched.content == WEIGHTS
    assert hashlib.sha256(fetched.content).hexdigest() == listed["model.safetensors"]["sha256"]
    assert 'filename="model.safetensors"' in fetched.headers["Content-Disposition"]


@pytest.mark.parametrize("name", ["nope", "../secret.txt", "%2e%2e/secret.txt", "..%2F..%2Fsecret.txt", ""])
def test_only_files_of_the_manifest_can_be_had(acme: Api, finished: str, name: str):
    answer = acme.get(f"/v1/jobs/{finished}/artifacts/{name}")

    assert answer.status_code == 404
    assert answer.json()["code"] in ("artifact_not_found", "not_found")
    assert "Location" not in answer.headers


def test_a_job_that_has_not_ended_has_neither_report_nor_artifacts(acme: Api):
    id = acme.submit()

    report = acme.get(f"/v1/jobs/{id}/report")

    assert (report.status_code, report.json()["code"]) == (404, "report_not_found")
    assert "queued" in report.json()["detail"]
    assert acme.get(f"/v1/jobs/{id}/artifacts").json()["data"] == []
    assert acme.get(f"/v1/jobs/{id}/artifacts/model.safetensors").json()["code"] == "artifact_not_found"
    for path in ("rounds", "attempts"):
        assert acme.get(f"/v1/jobs/{id}/{path}").json()["data"] == []
    assert acme.get(f"/v1/jobs/{id}/logs").text == ""


def test_the_job_shows_its_headline_figures(acme: Api, finished: str):
    job = acme.get(f"/v1/jobs/{finished}").json()

    assert (job["status"], job["is_terminal"], job["rounds_done"]) == ("succeeded", True, 1)
    assert job["summary"] == {"metric": 0.9}
    assert job["progress"]["percent"] == 100
