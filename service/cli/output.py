"""Where words go: results to stdout, notes and errors to stderr; with --json stdout is for programs."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from service.cli.errors import CliError

_PIPE_WIDTH = 400  # nobody looks at it: a line stays a line

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]


class Output:
    """One command's two consoles."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.out = Console()
        self.err = Console(stderr=True)
        if not self.out.is_terminal:
            self.out.width = _PIPE_WIDTH

    @property
    def is_live(self) -> bool:
        """Whether moving bars make sense: a person looks at a terminal."""
        return self.out.is_terminal and not self.json

    def emit(self, payload: Mapping[str, Any], shown: RenderableType) -> None:
        """The payload on one line for a program, or what is `shown` to a person."""
        if self.json:
            self.line(payload)
        else:
            self.out.print(shown, soft_wrap=isinstance(shown, Text))

    def line(self, payload: Mapping[str, Any]) -> None:
        """One JSON object on a line of its own, at once: a pipe may be reading."""
        sys.stdout.write(json.dumps(payload, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A remark that is not part of the result."""
        self.err.print(Text(text, style="dim"), soft_wrap=True)


def show_error(error: CliError, *, json_wanted: bool) -> None:
    """Tell on stderr what went wrong, why, and what to do."""
    if json_wanted:
        sys.stderr.write(json.dumps(error.payload()) + "\n")
        return
    console = Console(stderr=True)
    first, *rest = error.lines()
    console.print(Text(first, style="bold red"), soft_wrap=True)
    for line in rest:
        console.print(Text(line), soft_wrap=True)
