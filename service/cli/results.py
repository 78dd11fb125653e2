"""Commands for results: report, artifacts, download."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from schemas.artifact import Artifact
from schemas.report import Report
from service.cli.client import Client
from service.cli.download import chosen, fetch
from service.cli.errors import CliError, ExitCode
from service.cli.jobs import JobId
from service.cli.output import JsonOption
from service.cli.report import report_panel
from service.cli.session import session
from service.cli.tables import artifacts_table

HTML_NAME = "report.html"


def report(
    id: JobId,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the report page there.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print what a finished job reached; --json prints the whole report."""
    what = f"The report of {id} was not shown."
    with session(json=json) as (client, output):
        payload = client.get(f"/v1/jobs/{id}/report", what)
        output.emit(payload, report_panel(Report.model_validate(payload)))
        if html is not None:
            save_page(client, id, html)
            output.note(f"The report page is {html}.")


def artifacts(id: JobId, json: JsonOption = False) -> None:
    """List the files that a job produced."""
    with session(json=json) as (client, output):
        page = client.get(f"/v1/jobs/{id}/artifacts", f"The artifacts of {id} were not listed.")
        output.emit(page, artifacts_table(Artifact.model_validate(one) for one in page["data"]))


def download(
    id: JobId,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Which files; none: all.")
    ] = None,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where to; made if missing.")] = Path("."),
    json: JsonOption = False,
) -> None:
    """Download a job's files; each is checked against its SHA-256 before it gets its name."""
    with session(json=json) as (client, output):
        wanted = chosen(list_artifacts(client, id), names or [])
        paths = fetch(client, output, id, wanted, to)
        for path, artifact in zip(paths, wanted, strict=True):
            output.emit({"object": "file", "path": str(path), "sha256": artifact.sha256}, Text(str(path)))


def list_artifacts(client: Client, id: str) -> list[Artifact]:
    """All artifacts of a job. Raises CliError."""
    page = client.get(f"/v1/jobs/{id}/artifacts", f"The artifacts of {id} were not listed.")
    return [Artifact.model_validate(one) for one in page["data"]]


def save_page(client: Client, id: str, path: Path) -> None:
    """Save the report page. Raises CliError."""
    what = "The report page was not saved."
    page = client.text(f"/v1/jobs/{id}/report", what, "text/html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CliError(what, ExitCode.usage, f"{error}.", "Choose another file with --html.") from error
