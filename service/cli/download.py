"""Fetch artifacts: into `*.part`, checked against the list's SHA-256, then renamed."""

import hashlib
from pathlib import Path, PurePosixPath

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from schemas.artifact import Artifact
from service.cli.client import Client
from service.cli.errors import CliError, ExitCode
from service.cli.output import Output


def fetch(client: Client, output: Output, id: str, artifacts: list[Artifact], folder: Path) -> list[Path]:
    """Download these artifacts of a job into `folder`; answers where they lie. Raises CliError."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=output.err, disable=output.json or not output.err.is_terminal) as bars:
        return [_fetch_one(client, id, one, folder, bars) for one in artifacts]


def chosen(artifacts: list[Artifact], names: list[str]) -> list[Artifact]:
    """The artifacts of these names; all of them where no name is given. Raises CliError."""
    by_name = {one.name: one for one in artifacts}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise CliError(
            f"The job has no artifact '{missing[0]}'.",
            ExitCode.not_found,
            f"It has: {', '.join(sorted(by_name)) or 'none'}.",
        )
    return [by_name[name] for name in names] if names else artifacts


def target(folder: Path, name: str) -> Path:
    """Where an artifact goes. Raises CliError for a name that would leave the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise CliError(f"'{name}' is not the name of a file here.", ExitCode.usage)
    return folder / path


def _fetch_one(client: Client, id: str, artifact: Artifact, folder: Path, bars: Progress) -> Path:
    path = target(folder, artifact.name)
    part = path.with_name(path.name + ".part")
    task = bars.add_task(artifact.name, total=artifact.bytes)
    digest = hashlib.sha256()
    what = f"{artifact.name} was not downloaded."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            client.download(f"/v1/jobs/{id}/artifacts/{artifact.name}", what) as chunks,
            part.open("wb") as file,
        ):
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                bars.advance(task, len(chunk))
        _check(artifact, digest.hexdigest(), what)
        part.replace(path)
    except OSError as error:
        raise CliError(what, ExitCode.usage, f"{error}.", "Choose another folder with --to.") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _check(artifact: Artifact, sha256: str, what: str) -> None:
    if sha256 != artifact.sha256:
        why = f"Its SHA-256 is {sha256}, the service lists {artifact.sha256}."
        raise CliError(what, ExitCode.unavailable, why, "Download it again.")
