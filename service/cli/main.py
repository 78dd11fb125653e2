"""The command `secateur`: its commands, and the edge where errors become messages and exit codes."""

import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from service.cli import convert, dev, fleet, inspect, jobs, keys, models, processes, results
from service.cli.errors import EXIT_CODES_HELP, CliError, ExitCode, wrong_settings
from service.cli.output import show_error

app = typer.Typer(
    name="secateur",
    help="Prune neural networks at scale.\n\n" + EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_JOBS, _RESULTS, _SERVICE = "Jobs", "Results and fleet", "The service itself"
_MODELS = "Models"
for _name, _command, _panel in (
    ("submit", jobs.submit, _JOBS),
    ("validate", jobs.validate, _JOBS),
    ("list", jobs.list_jobs, _JOBS),
    ("show", jobs.show, _JOBS),
    ("watch", jobs.watch_jobs, _JOBS),
    ("cancel", jobs.cancel, _JOBS),
    ("retry", jobs.retry, _JOBS),
    ("logs", jobs.logs, _JOBS),
    ("report", results.report, _RESULTS),
    ("artifacts", results.artifacts, _RESULTS),
    ("download", results.download, _RESULTS),
    ("models", models.models, _MODELS),
    ("convert", convert.convert, _MODELS),
    ("inspect", inspect.inspect, _MODELS),
    ("workers", fleet.workers, _RESULTS),
    ("queues", fleet.queues, _RESULTS),
    ("dev", dev.dev, _SERVICE),
    ("api", processes.api, _SERVICE),
    ("worker", processes.worker, _SERVICE),
    ("steward", processes.steward, _SERVICE),
):
    app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(keys.app, name="keys", rich_help_panel=_SERVICE)


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=lambda wanted: _show_version() if wanted else None, is_eager=True),
    ] = False,
) -> None:
    """The options of the command itself."""


def main() -> NoReturn:
    """Run this process's command line; an error ends in a message and an exit code, never a traceback."""
    try:
        app()
    except CliError as error:
        _end(error)
    except ValidationError as error:
        _end(wrong_settings(error) if error.title in ("Settings", "ClientSettings") else _unexpected(error))
    except Exception as error:  # noqa: BLE001 - the edge of the process
        _end(_unexpected(error))
    sys.exit(ExitCode.ok)


def _end(error: CliError) -> NoReturn:
    show_error(error, json_wanted="--json" in sys.argv[1:])
    sys.exit(error.code)


def _unexpected(error: Exception) -> CliError:
    with tempfile.NamedTemporaryFile(
        "w", prefix="secateur-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    return CliError(
        "This command failed, and it should not have.",
        ExitCode.unavailable,
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else '(no message)'}",
        f"The details are in {Path(file.name)}; please report them.",
    )


def _show_version() -> NoReturn:
    sys.stdout.write(f"secateur {version('secateur')}\n")
    raise typer.Exit


if __name__ == "__main__":
    main()
