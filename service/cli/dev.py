"""The command `dev`: the whole service on this machine, until Ctrl-C."""

import signal
import socket
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from service.cli.errors import CliError, ExitCode
from service.cli.output import JsonOption, Output
from service.cli.tables import pairs

_USUAL_PORT = 8080


def dev(
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="The API's port. Default: 8080, or a free one.", show_default=False
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    folder: Annotated[Path, typer.Option(help="Data, logs and keys are kept there.")] = Path(".secateur"),
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="s3://…/", help="One more prefix that specs may name.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the whole service here until Ctrl-C: Redis, S3, API, steward and worker, with a key for you."""
    from service.dev.process import ServerError  # boto3 takes a third of a second to import
    from service.dev.stack import Stack

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # they stop it in order, as Ctrl-C does
    output = Output(json=json)
    if port is not None and not _is_free(port):
        raise CliError(f"Port {port} is in use.", ExitCode.usage, remedy="Choose another one with --port.")
    chosen = port or (_USUAL_PORT if _is_free(_USUAL_PORT) else 0)
    output.note("Starting Secateur …")
    try:
        with Stack(folder, workers, port=chosen, allow=tuple(allow or ()), say=output.note) as stack:
            _tell(output, stack.url, stack.s3_endpoint, stack.folder)
            threading.Event().wait()
    except ServerError as error:
        raise CliError("Secateur did not start.", ExitCode.refused, f"{error}.") from error
    except KeyboardInterrupt:
        output.note("Secateur has stopped.")


def _tell(output: Output, url: str, s3_endpoint: str, folder: Path) -> None:
    payload = {"object": "stack", "url": url, "docs": f"{url}/docs", "s3_endpoint": s3_endpoint}
    output.emit({**payload, "folder": str(folder)}, _panel(url, s3_endpoint, folder))


def _panel(url: str, s3_endpoint: str, folder: Path) -> RenderableType:
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    rows = [
        ("API", url),
        ("documentation", f"{url}/docs"),
        ("S3", f"{s3_endpoint} (buckets zoo and data)"),
        ("S3 credentials", f"set -a; . {shown}/s3.env; set +a"),
        ("submit", "secateur submit spec.yaml --watch"),
        ("logs", f"{shown}/logs/"),
        ("stop", "Ctrl-C"),
    ]
    title = Text("Secateur is running", style="bold green")
    return Panel(pairs(rows), title=title, title_align="left", expand=False)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
