"""Tables, panels and bars: what stands in them."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from schemas.fleet import Queue
from schemas.job import Job, Status
from service.cli.jobs import new_lines
from service.cli.progress import JobBars, step_detail, whole_detail
from service.cli.tables import job_panel, jobs_table, queues_table, workers_table
from service.cli.watch import exit_code
from tests.api import worker
from tests.jobs import spec


def job(status: Status = Status.running, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": "job_1",
        "status": status,
        "created_at": datetime.now(UTC),
        "device": "any",
        "priority": 4,
        "spec": spec(),
    }
    return Job.model_validate({**fields, **changes})


def shown(renderable: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


PROGRESS = {"percent": 40, "step": "finetune#2", "step_percent": 50}
PROGRESS |= {"round": 2, "rounds": 5, "metric": 0.9031, "eta_s": 80}
SUMMARY = {"metric": 0.9, "sparsity": 0.8, "bytes": 1000, "goal_reached": True}
SUMMARY |= {"verdicts": {"1": "no_difference"}}


def test_the_bars_tell_round_sparsity_metric_and_time_to_go():
    running = job(progress=PROGRESS)

    assert step_detail(running) == "round 2/5 · 62.7% gone · metric 0.9031"
    assert whole_detail(running) == "1:20 to go"


def test_a_job_that_does_not_run_shows_its_status_where_the_time_would_stand():
    assert whole_detail(job(Status.queued)) == "queued"


def test_the_bars_fit_a_terminal_of_eighty_columns():
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    running = job(id="job_" + "0" * 20, progress=PROGRESS)
    bars = JobBars(console, [running.id])

    bars.show(running)

    text = shown(bars.progress.get_renderable(), width=80)
    assert "metric 0.9031" in text
    assert "1:20 to go" in text
    assert "finetune#2" in text


def test_with_many_jobs_each_has_one_line():
    jobs = [job(id=f"job_{number}", progress=PROGRESS) for number in range(5)]
    bars = JobBars(Console(file=io.StringIO(), width=200), [one.id for one in jobs])

    for one in jobs:
        bars.show(one)

    assert len(shown(bars.progress.get_renderable()).splitlines()) == 5


def test_a_job_is_shown_with_reason_goal_floor_and_result():
    text = shown(job_panel(job(Status.succeeded, status_reason="Goal [reached].", summary=SUMMARY)))

    for part in ("Goal [reached].", "80 % of the weights of the pruned layers go", "at most 0.0100 lost"):
        assert part in text
    for part in ("0.9000", "1.0 kB", "yes", "1: no difference"):
        assert part in text


def test_a_value_that_looks_like_markup_is_shown_as_it_is():
    assert "[red]" in shown(job_panel(job(metadata={"colour": "[red]"})))


def test_a_list_of_jobs_has_a_line_for_each():
    text = shown(jobs_table([job(tags=["demo"]), job(Status.failed)]))

    assert len(text.splitlines()) == 3
    assert "demo" in text


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.succeeded], 0),
        ([Status.succeeded, Status.failed], 1),
        ([Status.cancelled], 1),
        ([Status.expired], 1),
    ],
)
def test_the_exit_code_is_zero_only_if_every_job_succeeded(statuses: list[Status], code: int):
    assert exit_code([job(status) for status in statuses]) == code


def test_workers_show_what_they_serve_and_whether_they_are_free():
    text = shown(workers_table([worker(), worker("w2", busy=2), worker("w3", draining=True)]))

    states = [word for word in text.split() if word in ("free", "busy", "draining")]
    assert states == ["busy", "free", "busy", "draining"]  # the first is the column's name


def test_an_empty_fleet_says_how_to_start_a_worker():
    assert "secateur worker" in shown(workers_table([]))


def test_a_queue_says_why_its_jobs_wait():
    sizes = {"waiting": 2, "running": 0, "demand": 2, "workers": 0, "free_slots": 0, "oldest_wait_s": 90}
    queue = Queue.model_validate({**sizes, "name": "cuda", "reason": "No GPU."})

    assert "No GPU." in shown(queues_table([queue]))
    assert "1:30" in shown(queues_table([queue]))


LINES = st.lists(st.sampled_from("ab"), max_size=6)


@given(LINES, LINES, st.integers(0, 6))
def test_following_a_log_shows_every_new_line_even_when_old_ones_are_gone(
    old: list[str], new: list[str], gone: int
):
    numbered = [f"{number}{line}" for number, line in enumerate(old + new)]
    before, now = numbered[: len(old)], numbered[min(gone, len(old)) :]

    assert new_lines(before, now) == numbered[len(old) :]
