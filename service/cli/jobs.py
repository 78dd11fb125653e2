"""Commands for jobs: submit, validate, list, show, watch, cancel, retry, logs."""

import time
import uuid
from typing import Annotated

import typer
from rich.text import Text

from schemas.job import Estimate, Job, Status
from service.cli.client import Client, Payload
from service.cli.documents import Document, read_documents
from service.cli.errors import CliError
from service.cli.follow import fetch_job
from service.cli.output import JsonOption, Output
from service.cli.session import session
from service.cli.tables import estimate_panel, job_panel, jobs_table, status_text
from service.cli.watch import exit_code, watch

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, like job_0123….", show_default=False)]
JobIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of jobs.", show_default=False)]
SpecFile = Annotated[
    str, typer.Argument(metavar="FILE|-", help="YAML or JSON, one or several specs; - reads stdin.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set a field: goal.sparsity=0.9.")
]

_LOG_LINES = 5000  # all that the service keeps


def submit(
    file: SpecFile,
    watched: Annotated[bool, typer.Option("--watch", "-w", help="Stay until the jobs end.")] = False,
    overrides: Overrides = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Submitting again with the same key makes no second job.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Queue a job for each spec in FILE. With --json: one job a line."""
    documents = read_documents(file, overrides or [])
    with session(json=json) as (client, output):
        jobs = [
            _submit(client, output, document, _key(idempotency_key, number), f"{number} of {len(documents)}")
            for number, document in enumerate(documents, 1)
        ]
        if watched:
            raise typer.Exit(exit_code(watch(client, output, [job.id for job in jobs])))


def validate(file: SpecFile, overrides: Overrides = None, json: JsonOption = False) -> None:
    """Check the specs as submit would, and estimate what they cost; nothing is created."""
    documents = read_documents(file, overrides or [])
    with session(json=json) as (client, output):
        for number, document in enumerate(documents, 1):
            what = f"Spec {number} of {len(documents)} is not valid."
            payload = client.post("/v1/jobs/validate", what, document)
            output.emit(payload, estimate_panel(Estimate.model_validate(payload)))


def list_jobs(
    status: Annotated[list[Status] | None, typer.Option(help="Only these; may be repeated.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="The newest so many.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All jobs, page after page.")] = False,
    json: JsonOption = False,
) -> None:
    """List your jobs, newest first."""
    params: Payload = {"limit": 100 if everything else limit}
    params |= {"status": [one.value for one in status]} if status else {}
    params |= {"tag": tag} if tag else {}
    what = "The jobs were not listed."
    with session(json=json) as (client, output):
        if everything:
            data = list(client.pages("/v1/jobs", what, params))
            page: Payload = {"object": "list", "data": data, "has_more": False}
        else:
            page = client.get("/v1/jobs", what, params)
        output.emit(page, jobs_table(Job.model_validate(one) for one in page["data"]))
        if page["has_more"]:
            output.note("There are more: --all lists them.")


def show(id: JobId, json: JsonOption = False) -> None:
    """Show one job: its status, progress and result."""
    with session(json=json) as (client, output):
        payload = client.get(f"/v1/jobs/{id}", f"{id} was not shown.")
        output.emit(payload, job_panel(Job.model_validate(payload)))


def watch_jobs(ids: JobIds, json: JsonOption = False) -> None:
    """Follow jobs live until all have ended; the exit code is 0 only if all succeeded."""
    with session(json=json) as (client, output):
        raise typer.Exit(exit_code(watch(client, output, list(dict.fromkeys(ids)))))


def cancel(ids: JobIds, json: JsonOption = False) -> None:
    """Cancel jobs: a waiting one at once, a running one at its next batch."""
    _ask("cancel", ids, json=json)


def retry(ids: JobIds, json: JsonOption = False) -> None:
    """Queue failed, cancelled or expired jobs again, as a new attempt of the same job."""
    _ask("retry", ids, json=json)


def logs(
    id: JobId,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    json: JsonOption = False,
) -> None:
    """Print a job's log."""
    with session(json=json) as (client, output):
        shown: list[str] = []
        while True:
            job = fetch_job(client, id) if following else None
            lines = _log_lines(client, id)
            for line in new_lines(shown, lines):
                output.emit({"object": "log_line", "line": line}, Text(line))
            shown = lines
            if job is None or job.status.is_terminal:
                return
            time.sleep(1.0)


def new_lines(before: list[str], now: list[str]) -> list[str]:
    """The lines of `now` that come after those of `before`; the service keeps only the newest ones."""
    for start in range(len(before) + 1):
        overlap = len(before) - start
        if before[start:] == now[:overlap]:
            return now[overlap:]
    raise AssertionError("an empty overlap always fits")


def _log_lines(client: Client, id: str) -> list[str]:
    what = f"The log of {id} was not shown."
    return client.text(f"/v1/jobs/{id}/logs?limit={_LOG_LINES}", what, "text/plain").splitlines()


def _submit(client: Client, output: Output, document: Document, key: str, which: str) -> Job:
    try:
        payload = client.post("/v1/jobs", f"Spec {which} was not accepted.", document, key)
    except CliError as error:
        if which.startswith("1 "):
            raise
        error.remedy += " The specs before it were accepted and stand above."
        raise
    job = Job.model_validate(payload)
    output.emit(payload, Text.assemble(job.id, " ", status_text(job.status)))
    return job


def _key(given: str | None, number: int) -> str:
    """One key for each document, so that a repeated command repeats none of them."""
    return f"{given}-{number}" if given else str(uuid.uuid4())


def _ask(verb: str, ids: list[str], *, json: bool) -> None:
    with session(json=json) as (client, output):
        for id in ids:
            payload = client.post(f"/v1/jobs/{id}/{verb}", f"{id}: {verb} was refused.")
            job = Job.model_validate(payload)
            reason = f" {job.status_reason or ''}"
            output.emit(payload, Text.assemble(job.id, " ", status_text(job.status), reason))
