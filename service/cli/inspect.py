"""The command `inspect`: which layers of a model file can run in sparse kernels, and what would help."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from schemas.conversion import NotConverted
from schemas.inspection import InspectedLayer, Inspection
from service.cli.errors import CliError, ExitCode
from service.cli.figures import share, whole
from service.cli.output import JsonOption, Output

_WHAT = "Nothing was inspected."
_NOTE = (
    "Eligible means that TensorRT may pick a sparse kernel on a GPU with compute capability 8.0 or newer. "
    "Whether it does, and whether that is faster, only a measurement says: 1.0 to 1.3 times is usual."
)


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="An .onnx or .safetensors file, or a folder.", show_default=False
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Show which layers of a model file can run on sparse tensor cores, and why the others cannot."""
    found = _inspected(path)
    Output(json=json).emit(found.model_dump(mode="json"), inspection_table(found))


def inspection_table(found: Inspection) -> RenderableType:
    """One line a layer, then the sum and what it means."""
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "operator", "type"):
        table.add_column(column, overflow="fold")
    for column in ("outputs", "inputs", "zeros"):
        table.add_column(column, justify="right")
    for column in ("2:4", "sparse kernel", "why, and what would help"):
        table.add_column(column, overflow="fold")
    for layer in found.layers:
        sizes = (whole(layer.outputs), whole(layer.inputs), share(layer.zeros))
        why = "; ".join([*_pattern(layer), *layer.obstacles, *layer.doubts])
        word = Text("eligible", style="green") if layer.is_eligible else Text("no", style="red")
        pattern = "yes" if layer.holds else "no"
        table.add_row(escape(layer.name), layer.operator, layer.dtype, *sizes, pattern, word, escape(why))
    head = (
        f"{found.eligible} of {len(found.layers)} layers are eligible: "
        f"{share(found.eligible_share)} of the weights."
    )
    return Group(table, Text(), Text(head, style="bold"), Text(_NOTE))


def _pattern(layer: InspectedLayer) -> list[str]:
    if layer.holds or layer.obstacles:
        return []
    return ["the weights do not hold 2:4: prune with pattern semi_structured"]


def _inspected(path: Path) -> Inspection:
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("safetensors") is None:
        raise CliError(
            _WHAT,
            ExitCode.usage,
            "Reading a model takes the worker's packages, which are not installed here.",
            "Install them: pip install -e '.[worker]' in Secateur's folder.",
        )
    command = [sys.executable, "-P", "-m", "workers.inspection", str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    line = (done.stdout.splitlines() or [""])[-1]
    try:
        if done.returncode == 0:
            return Inspection.model_validate_json(line)
        reason = NotConverted.model_validate_json(line).reason
    except ValidationError as error:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CliError(
            _WHAT, ExitCode.job_failed, f"The inspection failed: {said}.", "Please report it."
        ) from error
    raise CliError(_WHAT, ExitCode.usage, f"{reason}.")
