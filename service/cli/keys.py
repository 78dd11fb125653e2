"""Commands for API keys. For operators: they talk to Redis itself, before any key exists."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.text import Text

from service.cli.errors import CliError, ExitCode
from service.cli.output import JsonOption, Output
from service.cli.tables import keys_table
from service.settings import Settings
from service.store.api_keys import ApiKeys
from service.store.blobs import parse_uri
from service.store.connect import UNREACHABLE, connect

app = typer.Typer(help="Create, list and revoke API keys (needs SECATEUR_REDIS_URL).", no_args_is_help=True)


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose jobs the key sees.", show_default=False)],
    name: Annotated[str, typer.Option(help="What the key is for, to know it again.")] = "",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="s3://…/", help="Prefix that specs may name; may be repeated.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Create a key. It is shown this once; only its SHA-256 is stored."""
    prefixes = tuple(_prefix(one) for one in allow or [])
    output = Output(json=json)
    with _api_keys() as keys:
        secret = keys.create(_tenant(tenant), name=name, prefixes=prefixes)
    output.emit({"object": "api_key", "tenant": tenant, "name": name, "key": secret}, Text(secret))
    output.note("Keep it: it is not shown again. Use it as SECATEUR_API_KEY.")
    if not prefixes:
        output.note("It may name no model and no data; give --allow s3://bucket/prefix/ for that.")


@app.command("list")
def list_keys(json: JsonOption = False) -> None:
    """List the keys, without their secrets."""
    with _api_keys() as keys:
        found = keys.all()
    data = [
        {
            "object": "api_key",
            "id": one.id,
            "tenant": one.tenant,
            "name": one.name,
            "created_at": one.created_at,
            "prefixes": one.prefixes,
        }
        for one in found
    ]
    Output(json=json).emit({"object": "list", "data": data, "has_more": False}, keys_table(found))


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The key's id: eight hexadecimal digits.")],
    json: JsonOption = False,
) -> None:
    """Make a key useless, at once."""
    with _api_keys() as keys:
        if not keys.revoke(id):
            raise CliError(
                f"There is no key '{id}'.", ExitCode.not_found, remedy="`secateur keys list` shows the ids."
            )
    Output(json=json).emit({"object": "api_key", "id": id, "revoked": True}, Text(f"{id} is revoked."))


@contextmanager
def _api_keys() -> Iterator[ApiKeys]:
    redis = connect(Settings().redis_url)
    try:
        yield ApiKeys(redis)
    except UNREACHABLE as error:
        raise CliError(
            "Redis does not answer.",
            ExitCode.unavailable,
            f"{error}.",
            "Set SECATEUR_REDIS_URL to the service's Redis and check that it runs.",
        ) from error
    finally:
        redis.close()


def _prefix(uri: str) -> str:
    """The prefix with its last slash: without one s3://zoo/a would allow s3://zoo/ab, too."""
    try:
        parse_uri(uri)
    except ValueError as error:
        raise CliError(f"--allow {uri}: not a prefix.", ExitCode.usage, f"{error}.") from error
    return uri if uri.endswith("/") else f"{uri}/"


def _tenant(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise CliError(
            f"--tenant {name!r}: not a name.",
            ExitCode.usage,
            "It becomes a folder in S3.",
            "Use letters, digits, - and _.",
        )
    return name
