"""Commands that are processes of the service: api, worker, steward. Options go before the environment."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from service.settings import Settings


class LogFormat(StrEnum):
    """How log lines look."""

    json = "json"
    console = "console"


class LogLevel(StrEnum):
    """What is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port of /metrics; 0: none.", show_default=False)
]
Level = Annotated[LogLevel | None, typer.Option("--log-level", help="What is logged.", show_default=False)]
Format = Annotated[LogFormat | None, typer.Option("--log-format", help="Log lines.", show_default=False)]
JsonLogs = Annotated[bool, typer.Option("--json", help="The same as --log-format json.")]


def api(
    host: Annotated[str | None, typer.Option(help="Listen there.", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="0: any free one.", show_default=False)
    ] = None,
    log_level: Level = None,
    log_format: Format = None,
    json: JsonLogs = False,
) -> None:
    """Run the HTTP API until SIGTERM."""
    from service.api import run  # FastAPI takes half a second to import; other commands do without

    run(Settings(**given(api_host=host, api_port=port, **_logs(log_level, log_format, json=json))))


def steward(
    metrics_port: MetricsPort = None,
    log_level: Level = None,
    log_format: Format = None,
    json: JsonLogs = False,
) -> None:
    """Run the control loop until SIGTERM. A second one stands by."""
    from service.steward import run  # Celery takes long to import

    options = given(steward_metrics_port=metrics_port, **_logs(log_level, log_format, json=json))
    raise typer.Exit(run(Settings(**options)))


def worker(
    slots: Annotated[
        int | None, typer.Option(min=0, max=64, help="Jobs at once; 0: one a GPU.", show_default=False)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=0, max=1024, help="CPU threads of a job.", show_default=False)
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where models and data are kept.", show_default=False)
    ] = None,
    metrics_port: MetricsPort = None,
    log_level: Level = None,
    log_format: Format = None,
    json: JsonLogs = False,
) -> None:
    """Run a worker until SIGTERM; running jobs are then given back."""
    options = given(
        worker_slots=slots, threads=threads, cache_dir=cache_dir, worker_metrics_port=metrics_port
    )
    options |= given(**_logs(log_level, log_format, json=json))
    Settings(**options)  # what is wrong is told here, by the name of the option
    os.environ.update({f"SECATEUR_{name.upper()}": str(value) for name, value in options.items()})
    os.execv(sys.executable, [sys.executable, "-m", "workers"])  # noqa: S606 - nothing imports workers


def given(**options: Any) -> dict[str, Any]:
    """The options that the user gave; the settings decide about the others."""
    return {name: value for name, value in options.items() if value is not None}


def _logs(level: LogLevel | None, format: LogFormat | None, *, json: bool) -> dict[str, Any]:
    chosen = LogFormat.json if json else format
    return {"log_level": level and level.value, "log_format": chosen and chosen.value}
