"""The command `models`: what lies under an S3 prefix, told without loading it."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schemas.zoo import ZooModel
from service.cli.figures import size, whole
from service.cli.output import JsonOption, Output
from service.cli.session import session

_PAGE = 500

Uri = Annotated[str, typer.Argument(metavar="s3://…/", help="Where to look.", show_default=False)]


def models(uri: Uri, json: JsonOption = False) -> None:
    """List the models under an S3 prefix: what they are, and which cannot be pruned and why."""
    what = "The models were not listed."
    with session(json=json) as (client, output):
        with _waiting(output, uri):
            data = list(client.pages("/v1/models", what, {"uri": uri, "limit": _PAGE}))
        payload = {"object": "list", "data": data, "has_more": False}
        found = [ZooModel.model_validate(one) for one in data]
        output.emit(payload, models_table(found, uri))


def models_table(models: Sequence[ZooModel], uri: str) -> RenderableType:
    """One line a model, by its name below `uri`; then why some are not readable, and the totals."""
    if not models:
        return Text(f"No models under {uri}.")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("model", "library", "architecture", "task"):
        table.add_column(name, overflow="fold")
    for name in ("parameters", "size"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("type", no_wrap=True)
    table.add_column("readable", no_wrap=True)
    for one in models:
        table.add_row(
            _plain(_below(one.uri, uri)),
            _plain(one.library or "-"),
            _plain(one.architecture or "-"),
            _plain(", ".join(one.tasks) or "-"),
            whole(one.parameters),
            size(one.bytes),
            next(iter(one.dtypes), "-"),
            Text("yes", style="green") if one.readable else Text("no", style="red"),
        )
    return Group(table, *_reasons(models, uri), _totals(models))


def _reasons(models: Sequence[ZooModel], uri: str) -> list[Text]:
    """Below the table: a sentence in a narrow column could not be read."""
    refused = [one for one in models if not one.readable]
    if not refused:
        return []
    lines = [
        Text.assemble("  ", (_below(one.uri, uri), "bold"), f": {_printable(one.reason or '')}")
        for one in refused
    ]
    return [Text("\nNot readable", style="red"), *lines]


def _totals(models: Sequence[ZooModel]) -> Text:
    readable = sum(one.readable for one in models)
    parameters = sum(one.parameters or 0 for one in models)
    libraries = Counter(one.library or "unknown" for one in models)
    by_library = ", ".join(f"{count:,} {_printable(name)}" for name, count in libraries.most_common())
    return Text(
        f"\n{len(models):,} models ({by_library}), {readable:,} readable; "
        f"{parameters:,} parameters, {size(sum(one.bytes for one in models))}",
        style="dim",
    )


def _below(uri: str, prefix: str) -> str:
    rest = uri.removeprefix(prefix if prefix.endswith("/") else prefix + "/")
    return _printable(rest or uri)


def _plain(text: str) -> Text:
    return Text(_printable(text))


def _printable(text: str) -> str:
    """A name in somebody's bucket may hold what moves the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _waiting(output: Output, uri: str) -> AbstractContextManager[object]:
    return output.err.status(f"Reading {_printable(uri)} …") if output.is_live else nullcontext()
