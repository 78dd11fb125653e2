"""Bars for jobs at work: the whole job, the step, the round, the metric, and the time to go."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn

from schemas.job import Job, Status
from service.cli.figures import duration, metric, share
from service.cli.tables import COLOURS

_MOST_WITH_STEPS = 4  # with more jobs, one bar each


class JobBars:
    """The bars of some jobs, below the events that scroll by."""

    def __init__(self, console: Console, ids: Sequence[str]) -> None:
        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        self.progress = Progress(*columns, console=console, refresh_per_second=5)
        self._overall: dict[str, TaskID] = {}
        self._steps: dict[str, TaskID] = {}
        for id in ids:
            self._overall[id] = self.progress.add_task(id, total=100, detail="")
            if len(ids) <= _MOST_WITH_STEPS:
                self._steps[id] = self.progress.add_task("", total=100, detail="", visible=False)

    def show(self, job: Job) -> None:
        """Move the bars to where the job is."""
        step = self._steps.get(job.id)
        self.progress.update(
            self._overall[job.id],
            completed=job.progress.percent,
            description=f"[{COLOURS[job.status]}]{job.id}[/]",
            detail=whole_detail(job) if step is not None else f"{whole_detail(job)} {step_detail(job)}",
        )
        if job.status.is_terminal:
            self.progress.stop_task(self._overall[job.id])
        if step is not None:
            self.progress.update(
                step,
                completed=job.progress.step_percent,
                description=f"  {job.progress.step or ''}",
                detail=step_detail(job),
                visible=job.progress.step is not None and job.status is Status.running,
            )


def whole_detail(job: Job) -> str:
    """`1:20 to go`, or the status where there is nothing to count."""
    eta = job.progress.eta_s
    return f"{duration(eta)} to go" if job.status is Status.running and eta is not None else job.status.value


def step_detail(job: Job) -> str:
    """`round 2/5 · 61.4% gone · metric 0.9031`, as far as it is known."""
    progress = job.progress
    parts = []
    if progress.round:
        parts.append(f"round {progress.round}/{progress.rounds or job.spec.rounds_in_all()}")
        if job.spec.goal is not None:
            parts.append(f"{share(job.spec.removed_after(progress.round))} gone")
    if progress.metric is not None:
        parts.append(f"metric {metric(progress.metric)}")
    return " · ".join(parts)
