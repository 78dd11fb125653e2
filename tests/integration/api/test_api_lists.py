"""Lists of jobs: pages that hold while jobs come, change and go; filters."""

from typing import Any

from tests.api import Api
from tests.jobs import Desk


def ids(api: Api, query: str = "") -> list[str]:
    answer = api.get(f"/v1/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


def walk(api: Api, query: str, between: Any = lambda: None) -> list[str]:
    """All pages; `between` is called after each."""
    found: list[str] = []
    after = ""
    while True:
        page = api.get(f"/v1/jobs?{query}{after}").json()
        found += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            return found
        between()
        after = f"&after={page['last_id']}"


def test_the_newest_comes_first(acme: Api):
    made = [acme.submit(seed=seed) for seed in range(3)]

    assert ids(acme) == made[::-1]


def test_pages_neither_skip_nor_repeat(acme: Api):
    made = [acme.submit() for _ in range(5)]

    assert walk(acme, "limit=2") == made[::-1]
    assert walk(acme, "limit=5") == made[::-1]


def test_jobs_that_come_between_two_pages_move_nothing(acme: Api):
    made = [acme.submit() for _ in range(4)]

    assert walk(acme, "limit=1", acme.submit) == made[::-1]


def test_a_page_goes_on_behind_a_job_that_left_the_list_meanwhile(acme: Api):
    made = [acme.submit() for _ in range(4)]
    first = acme.get("/v1/jobs?status=queued&limit=2").json()
    acme.post(f"/v1/jobs/{first['last_id']}/cancel")

    rest = ids(acme, f"status=queued&limit=2&after={first['last_id']}")

    assert rest == [made[1], made[0]]


def test_an_unknown_cursor_is_refused(acme: Api, rival: Api):
    foreign = rival.submit()

    for after in ("job_nope", foreign):
        answer = acme.get(f"/v1/jobs?after={after}")
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "after"])


def test_filters_by_status_and_takes_several(acme: Api, desk: Desk):
    queued = acme.submit()
    cancelled = acme.submit()
    acme.post(f"/v1/jobs/{cancelled}/cancel")

    assert ids(acme, "status=queued") == [queued]
    assert ids(acme, "status=cancelled&status=queued") == [cancelled, queued]
    assert ids(acme, "status=failed") == []


def test_filters_by_tag_and_metadata(acme: Api):
    acme.submit(tags=["a"], metadata={"run": "1"})
    both = acme.submit(tags=["a", "b"], metadata={"run": "2", "by": "me"})

    assert ids(acme, "tag=b") == [both]
    assert ids(acme, "metadata[run]=2") == [both]
    assert ids(acme, "tag=a&metadata[run]=2&metadata[by]=me") == [both]
    assert ids(acme, "metadata[run]=2&metadata[by]=you") == []


def test_a_changed_tag_moves_a_job_between_filters(acme: Api):
    id = acme.submit(tags=["old"])

    acme.call("PATCH", f"/v1/jobs/{id}", json={"tags": ["new"]})

    assert (ids(acme, "tag=old"), ids(acme, "tag=new")) == ([], [id])
