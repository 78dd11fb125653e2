"""The memory of a job and of workers, as the command line shows it."""

import io

from rich.console import Console, RenderableType

from schemas.job import Estimate
from service.cli.tables import estimate_panel, workers_table
from tests.api import worker
from tests.jobs import spec


def shown(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_an_estimate_says_what_a_job_takes_at_least():
    estimate = Estimate(rounds=1, epochs=1, spec=spec())

    assert "activations not counted" not in shown(estimate_panel(estimate))
    told = shown(estimate_panel(estimate.model_copy(update={"memory_bytes": 1_500_000_000})))
    assert "at least 1.5 GB, activations not counted" in told


def test_workers_are_listed_with_their_memory():
    told = shown(workers_table([worker("new", memory_bytes=80_000_000_000), worker("old")]))

    assert "memory" in told
    assert "80.0 GB" in told
