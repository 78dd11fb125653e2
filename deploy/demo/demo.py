"""`make demo`: the whole service for a few minutes, and three jobs that prune a real model on real data."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upload import upload

from schemas.job import Job
from schemas.report import ModelFigures, Report
from service.cli.client import Client
from service.cli.connection import Connection
from service.cli.documents import read_documents
from service.cli.errors import CliError
from service.cli.figures import duration, metric, share, size, whole
from service.cli.output import Output
from service.cli.results import save_page
from service.cli.watch import exit_code, watch
from service.dev.process import ServerError
from service.dev.stack import Stack

HERE = Path(__file__).parent
KEPT = Path(".secateur") / "demo"
FAST = ["data.max_train_samples=1500", "benchmark.rounds=5", "benchmark.round_seconds=0.02"]
FAST_ITERATIVE = [*FAST, "schedule.rounds=2", "floor={max_drop: 0.2}"]
JOBS = {"one_shot": FAST, "iterative": FAST_ITERATIVE, "structured": FAST_ITERATIVE}
"""Each a YAML file beside this one, and what makes it quick."""


@dataclass(frozen=True)
class Outcome:
    """What the jobs came to. `failures`: sentences; empty where all is as it should be."""

    reports: dict[str, Report]
    pages: list[Path]
    failures: list[str]
    seconds: float

    def figures(self) -> dict[str, object]:
        """For programs."""
        iterative, structured = self.reports.get("iterative"), self.reports.get("structured")
        return {
            "dense": iterative.dense.metric if iterative else None,
            **{name: report.pruned.metric for name, report in self.reports.items()},
            "sparsity": iterative.sparsity if iterative else None,
            "drop_points": (iterative.dense.metric - iterative.pruned.metric) * 100 if iterative else None,
            "macs_removed": structured.removed if structured else None,
            "speedup": _speedups(structured) if structured else None,
            "seconds": self.seconds,
            "pages": [str(page) for page in self.pages],
            "failures": self.failures,
        }


def run(output: Output, *, fast: bool) -> Outcome:
    """Start everything, run all jobs, fetch the reports, stop everything. Raises CliError, ServerError."""
    began = time.monotonic()
    shutil.rmtree(KEPT, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="secateur-demo-") as folder:
        output.note("Starting the service on free ports …")
        with Stack(Path(folder) / "stack", env={"SECATEUR_WORKER_SLOTS": "2"}, say=output.note) as stack:
            output.note(f"It runs at {stack.url} after {time.monotonic() - began:.0f} s.")
            output.note(f"Uploaded to {', '.join(upload(stack.s3()))}.")
            with Client(Connection(stack.url, stack.key)) as client:
                jobs = _run_jobs(client, output, fast=fast)
                reports, pages = _results(client, jobs)
            failures = failures_of(jobs, reports)
            if failures:
                shutil.copytree(stack.folder / "logs", KEPT / "logs", dirs_exist_ok=True)
            output.note("Stopping the service …")
    return Outcome(reports, pages, failures, time.monotonic() - began)


def _speedups(report: Report) -> dict[str, float]:
    pairs = report.benchmark.comparisons if report.benchmark else []
    return {str(one.batch_size): one.speedup for one in pairs}


def failures_of(jobs: dict[str, Job], reports: dict[str, Report]) -> list[str]:
    """Why the demo is not a success, in sentences."""
    failures = [
        f"The {name} job is {job.status}: {job.status_reason}"
        for name, job in jobs.items()
        if exit_code([job]) != 0
    ]
    for name in ("iterative", "structured"):
        report = reports.get(name)
        if report is not None and not report.goal_reached:
            failures.append(f"The {name} job missed its goal: {report.verdict}")
        if report is not None and report.pruned.metric < report.floor:
            failures.append(f"The {name} job fell to {report.pruned.metric}, below {report.floor}.")
    iterative, one_shot = reports.get("iterative"), reports.get("one_shot")
    if iterative is None or one_shot is None:
        return failures
    if iterative.pruned.metric <= one_shot.pruned.metric:
        failures.append("The iterative job is not better than the one-shot job.")
    return failures


def _run_jobs(client: Client, output: Output, *, fast: bool) -> dict[str, Job]:
    ids = {}
    for name, overrides in JOBS.items():
        [spec] = read_documents(str(HERE / f"{name}.yaml"), overrides if fast else [])
        ids[name] = str(client.post("/v1/jobs", f"The {name} job was not accepted.", spec)["id"])
        output.note(f"Submitted the {name} job: {ids[name]}.")
    return dict(zip(ids, watch(client, output, list(ids.values())), strict=True))


def _results(client: Client, jobs: dict[str, Job]) -> tuple[dict[str, Report], list[Path]]:
    reports, pages = {}, []
    for name, job in jobs.items():
        if exit_code([job]) == 0:
            payload = client.get(f"/v1/jobs/{job.id}/report", f"The report of {job.id} was not fetched.")
            reports[name] = Report.model_validate(payload)
            pages.append(KEPT / f"{name}.html")
            save_page(client, job.id, pages[-1])
    return reports, pages


def table_of(reports: dict[str, Report]) -> Table:
    """The dense model and what each job made of it, a line each."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "accuracy", "removed", "not zero", "on disk", "compressed", "speed by batch"):
        table.add_column(name, no_wrap=True)
    table.add_row("dense", *_row(next(iter(reports.values())).dense, "-", "-"))
    for name, report in reports.items():
        quantity = "MACs" if report.spec.method.removes_units else "weights"
        removed = f"{share(report.removed)} of {quantity}"
        table.add_row(name.replace("_", "-"), *_row(report.pruned, removed, _latency(report)))
    return table


def _row(model: ModelFigures, removed: str, latency: str) -> tuple[str, ...]:
    sizes = (whole(model.nonzeros), size(model.bytes), size(model.compressed_bytes))
    return (metric(model.metric), removed, *sizes, latency)


def _latency(report: Report) -> str:
    if report.benchmark is None:
        return "-"
    pairs = report.benchmark.comparisons
    return "\n".join(
        f"{one.batch_size}: {one.verdict.replace('_', ' ')}"
        + (f" {one.speedup:.2f}x" if one.verdict in ("faster", "slower") else "")
        for one in pairs
    )


def _show(console: Console, outcome: Outcome) -> None:
    if outcome.reports:
        console.print(table_of(outcome.reports))
    for page in outcome.pages:
        console.print(Text(f"report: {page.resolve()}"), soft_wrap=True)
    for failure in outcome.failures:
        console.print(Text(failure, style="bold red"), soft_wrap=True)
    if outcome.failures:
        console.print(Text(f"The logs are in {KEPT / 'logs'}."))
    console.print(Text(f"The demo took {duration(outcome.seconds)}."))


def main() -> int:
    """0: all jobs did what they should. 1: they did not, and the reason was printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout")
    parser.add_argument("--fast", action="store_true", help="less data and fewer rounds, for tests")
    options = parser.parse_args()
    output = Output(json=False)
    if options.json:
        output.out = output.err
    try:
        outcome = run(output, fast=options.fast)
    except (CliError, ServerError) as error:
        output.err.print(Text(str(error), style="bold red"), soft_wrap=True)
        return 1
    _show(output.out, outcome)
    if options.json:
        print(json.dumps(outcome.figures()))
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
