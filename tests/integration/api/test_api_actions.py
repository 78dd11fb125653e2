"""Cancel, retry, change, delete; each is refused in the states that forbid it."""

from typing import Any

import pytest

from schemas.job import FailureClass, Status
from service.store.blobs import Blobs
from tests.api import Api
from tests.jobs import Desk


def act(api: Api, id: str, verb: str) -> tuple[int, Any]:
    answer = api.post(f"/v1/jobs/{id}/{verb}")
    return answer.status_code, answer.json()


def test_a_waiting_job_is_cancelled_at_once(acme: Api):
    id = acme.submit()

    code, job = act(acme, id, "cancel")

    assert (code, job["status"], job["is_terminal"]) == (202, "cancelled", True)


def test_a_running_job_is_told_to_stop(acme: Api, desk: Desk):
    id = acme.submit()
    claim = desk.claim()

    code, job = act(acme, id, "cancel")

    assert (code, job["status"]) == (202, "cancelling")
    assert desk.store.heartbeat(claim, 30) == "cancel"
    assert act(acme, id, "cancel")[0] == 202


def test_an_ended_job_cannot_be_cancelled(acme: Api, desk: Desk):
    id = acme.submit()
    desk.store.finish(desk.claim(), Status.succeeded, "Done.")

    code, problem = act(acme, id, "cancel")

    assert (code, problem["code"]) == (409, "job_cannot_be_cancelled")
    assert problem["context"] == {"status": "succeeded"}
    assert acme.get(f"/v1/jobs/{id}").json()["status"] == "succeeded"


def test_a_failed_job_waits_again_after_a_retry(acme: Api, desk: Desk):
    id = acme.submit()
    desk.store.finish(desk.claim(), Status.failed, "No.", failure_class=FailureClass.data)
    assert acme.get(f"/v1/jobs/{id}").json()["failure_class"] == "data"

    code, job = act(acme, id, "retry")

    assert (code, job["status"], job["failure_class"]) == (202, "queued", None)
    assert desk.claim().id == id


def test_a_job_that_has_not_failed_cannot_be_retried(acme: Api):
    code, problem = act(acme, acme.submit(), "retry")

    assert (code, problem["code"]) == (409, "job_cannot_be_retried")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_and_resume_say_what_to_do_instead(acme: Api, verb: str):
    code, problem = act(acme, acme.submit(), verb)

    assert (code, problem["code"]) == (501, "not_available")
    assert "retry it later" in problem["detail"]


def test_deleting_forgets_the_job_and_leaves_its_folder_to_the_steward(acme: Api, desk: Desk, blobs: Blobs):
    id = acme.submit(tags=["a"])
    act(acme, id, "cancel")

    answer = acme.call("DELETE", f"/v1/jobs/{id}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert acme.get(f"/v1/jobs/{id}").status_code == 404
    assert acme.get("/v1/jobs?tag=a").json()["data"] == []
    assert [name for name, _ in desk.queues.due("trash", 10)] == [f"acme/jobs/{id}/"]


def test_a_job_that_has_not_ended_cannot_be_deleted(acme: Api):
    id = acme.submit()

    answer = acme.call("DELETE", f"/v1/jobs/{id}")

    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_terminal")
    assert acme.get(f"/v1/jobs/{id}").status_code == 200


def test_a_higher_priority_goes_first(acme: Api, desk: Desk):
    acme.submit()
    late = acme.submit()

    job = acme.call("PATCH", f"/v1/jobs/{late}", json={"priority": 9}).json()

    assert job["priority"] == 9
    assert job["spec"]["placement"]["priority"] == 4
    assert desk.claim().id == late


def test_the_priority_of_a_running_job_is_fixed_but_its_tags_are_not(acme: Api, desk: Desk):
    id = acme.submit()
    desk.claim()

    refused = acme.call("PATCH", f"/v1/jobs/{id}", json={"priority": 9, "tags": ["x"]})
    changed = acme.call("PATCH", f"/v1/jobs/{id}", json={"tags": ["y"]})

    assert (refused.status_code, refused.json()["code"]) == (409, "job_priority_is_fixed")
    assert (changed.status_code, changed.json()["tags"]) == (200, ["y"])


def test_nothing_else_can_be_changed(acme: Api):
    answer = acme.call("PATCH", f"/v1/jobs/{acme.submit()}", json={"seed": 3})

    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "seed"])
