"""What every command that talks to the service opens first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.cli.client import Client
from service.cli.connection import find_connection
from service.cli.output import Output
from service.cli.settings import ClientSettings


@contextmanager
def session(*, json: bool) -> Iterator[tuple[Client, Output]]:
    """The service and the terminal. Raises CliError where no service is configured."""
    connection = find_connection(ClientSettings(), Path.cwd())
    with Client(connection) as client:
        yield client, Output(json=json)
