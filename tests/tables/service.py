"""The cases through the service: its own Redis, S3, API, steward and worker, and jobs over HTTP."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from schemas.job import Job, Status
from schemas.report import Report
from service.cli.client import Client
from service.cli.connection import Connection
from service.cli.download import fetch
from service.cli.output import Output
from service.cli.results import list_artifacts
from service.dev.stack import Stack
from tests.tables.assets import named_by, upload
from tests.tables.plan import Case
from tests.tables.results import OURS, Result
from tests.tables.speed import file_of, speed_of, speed_of_texts

_LOOK_EVERY_S = 2.0


def run_cases(cases: Sequence[Case], keep: Callable[[Result], None]) -> list[str]:
    """Run all cases of one row; each result goes to `keep` as soon as its job is done.

    Answers a sentence for each job that failed. Raises CliError, ServerError.
    """
    slots = str(cases[0].slots)
    with (
        tempfile.TemporaryDirectory(prefix="secateur-tables-") as folder,
        Stack(Path(folder), env={"SECATEUR_WORKER_SLOTS": slots}, say=_say) as stack,
    ):
        for uri in named_by(cases):
            upload(stack.s3(), uri)
            _say(f"uploaded {uri}")
        with Client(Connection(stack.url, stack.key)) as client:
            return _run(client, cases, keep, Path(folder))


def _run(client: Client, cases: Sequence[Case], keep: Callable[[Result], None], folder: Path) -> list[str]:
    waiting: dict[str, Case] = {}
    failures = []
    for case in cases:
        answer = client.post("/v1/jobs", f"The job {case.key} was not accepted.", dict(case.spec))
        waiting[str(answer["id"])] = case
    while waiting:
        time.sleep(_LOOK_EVERY_S)
        for id, case in list(waiting.items()):
            job = Job.model_validate(client.get(f"/v1/jobs/{id}", f"The job {case.key} was not found."))
            if not job.status.is_terminal:
                continue
            del waiting[id]
            if job.status is Status.succeeded:
                keep(_result(client, job, case, folder / id))
            else:
                failures.append(f"{case.key} is {job.status}: {job.status_reason}")
    return failures


def _result(client: Client, job: Job, case: Case, folder: Path) -> Result:
    report = Report.model_validate(client.get(f"/v1/jobs/{job.id}/report", "The report was not fetched."))
    _say(f"{case.key}: {report.verdict}")
    speeds = [speed_of(one) for one in (report.benchmark.comparisons if report.benchmark else ())]
    if report.benchmark is not None:
        wanted = [one for one in list_artifacts(client, job.id) if one.name == "model.onnx"]
        (pruned,) = fetch(client, Output(json=True), job.id, wanted, folder)
        file_of(case, OURS).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(pruned, file_of(case, OURS))
        if case.tokens is not None:
            threads = report.environment.threads
            speeds.append(speed_of_texts(case, file_of(case, OURS), tokens=case.tokens, threads=threads))
    where = report.environment
    return Result(
        key=case.key,
        digest=case.digest,
        by=OURS,
        dense=shown(case, report.dense.metric),
        metric=shown(case, report.pruned.metric),
        removed=report.removed,
        nonzeros=report.pruned.nonzeros,
        macs=report.pruned.macs,
        seconds=report.seconds,
        speeds=tuple(speeds),
        versions=where.versions,
        machine=f"{where.cpu}, {where.threads} of {where.cores} cores",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def shown(case: Case, metric: float) -> float:
    """What the table shows of a report's metric."""
    return 1 / metric if case.metric == "perplexity" else metric


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
