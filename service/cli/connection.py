"""Where the service is and with which key: from the environment, else from the file of `secateur dev`."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from service.cli.errors import CliError, ExitCode
from service.cli.settings import ClientSettings

CLIENT_FILE = Path(".secateur") / "client.json"


@dataclass(frozen=True)
class Connection:
    """The service's address and the caller's key; a service with authentication off needs none."""

    url: str
    key: str | None = field(repr=False)


class _Stored(BaseModel):
    url: str
    key: str | None


def find_connection(settings: ClientSettings, folder: Path) -> Connection:
    """The connection for a command run in `folder`. Raises CliError where nothing says which service.

    The key in the file goes to the service that the file names, and to no other.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else None
    found = _client_file(folder)
    known = read_client_file(found) if found else None
    if settings.url is not None:
        url = _checked(settings.url)
        if key is None and known is not None and known.url == url:
            key = known.key
        return Connection(url, key)
    if known is None:
        raise CliError(
            "No service is configured.",
            ExitCode.usage,
            f"SECATEUR_URL is not set and there is no {CLIENT_FILE} here or in a parent folder.",
            "Start a service with `secateur dev`, or set SECATEUR_URL and SECATEUR_API_KEY.",
        )
    return Connection(known.url, key or known.key)


def write_client_file(path: Path, connection: Connection) -> None:
    """Write it for this user's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_Stored(url=connection.url, key=connection.key).model_dump_json())
    part.replace(path)


def read_client_file(path: Path) -> Connection:
    """The connection in that file. Raises CliError if it is not one of ours."""
    try:
        stored = _Stored.model_validate_json(path.read_bytes())
        return Connection(_checked(stored.url), stored.key)
    except (OSError, ValidationError) as error:
        why = f"{error}." if isinstance(error, OSError) else "It does not hold a url and a key."
        raise CliError(
            f"{path} cannot be read.",
            ExitCode.usage,
            why,
            "Delete it and start `secateur dev` again.",
        ) from error


def _client_file(folder: Path) -> Path | None:
    candidates = (one / CLIENT_FILE for one in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise CliError(
            f"'{url}' is not the address of a service.",
            ExitCode.usage,
            remedy="Use an address like https://secateur.example.org.",
        )
    return url.rstrip("/")
