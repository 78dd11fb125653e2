"""The command `convert`: an old pickled state dict becomes safetensors, on this machine."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.text import Text

from schemas.conversion import LINE, Advanced, Converted, NotConverted
from service.cli.errors import CliError, ExitCode
from service.cli.figures import size, whole
from service.cli.output import JsonOption, Output
from service.cli.tables import pairs

RESULT = "model.safetensors"
_WHAT = "Nothing was converted."
_SLACK_BYTES = 512 * 1024**2
_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3}
_SHOWN = 20
_POLL_S = 0.2

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SRC", help="A .pt, .pth, .bin or .ckpt file, or a folder with one.", show_default=False
    ),
]
Folder = Annotated[
    Path,
    typer.Argument(metavar="DST", help="A new folder, or the one of SRC.", show_default=False),
]


def convert(
    source: Source,
    folder: Folder,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Like 8GB. Default: twice the files and 0.5 GB.", show_default=False
        ),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where in the file the state dict is.", show_default=False),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Cut this off the tensors' names.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Turn an old state dict into safetensors. Nothing in the file is run, and its memory is limited."""
    output = Output(json=json)
    _check(source, folder)
    limit = _bytes(max_memory) if max_memory else 2 * _size(source) + _SLACK_BYTES
    with _staged(folder) as staging:
        chosen = {"max-memory": limit, "entry": entry, "prefix": prefix}
        options = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
        done = _converted(source, staging, options, output)
        if _is_in_place(source, folder):
            done = done.model_copy(update={"copied": [], "left_behind": []})
        _place(source, folder, staging)
    output.emit(done.model_dump(mode="json"), _summary(done, folder))
    if not (folder / "config.json").exists():
        output.note("There is no config.json yet: add the model's own before you upload the folder.")


def _check(source: Path, folder: Path) -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("safetensors") is None:
        raise CliError(
            _WHAT,
            ExitCode.usage,
            "Reading a state dict takes PyTorch, which is not installed here.",
            "Install the worker's packages: pip install -e '.[worker]' in Secateur's folder.",
        )
    if not source.exists():
        raise CliError(_WHAT, ExitCode.usage, f"{source} does not exist.", "Correct the path.")
    if _is_in_place(source, folder):
        if (folder / RESULT).exists():
            raise CliError(_WHAT, ExitCode.usage, f"{folder / RESULT} is there already.", "Remove it first.")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CliError(_WHAT, ExitCode.usage, f"{folder} is there and not empty.", "Name a new folder.")


def _is_in_place(source: Path, folder: Path) -> bool:
    """The result goes where the source is."""
    own = source if source.is_dir() else source.resolve().parent
    return folder.is_dir() and folder.samefile(own)


def _size(source: Path) -> int:
    files = source.iterdir() if source.is_dir() else [source]
    return sum(one.stat().st_size for one in files if one.is_file())


def _bytes(text: str) -> int:
    number = text.strip().rstrip("bBkKmMgG")
    unit = text.strip()[len(number) :].lower()
    if unit not in _UNITS or not number.replace(".", "", 1).isdecimal():
        raise CliError(
            _WHAT, ExitCode.usage, f"--max-memory: '{text}' is no size.", "Write 8GB, 500MB or bytes."
        )
    return int(float(number) * _UNITS[unit])


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder beside the one to be, gone afterwards whatever happened."""
    parent = next(one for one in folder.resolve().parents if one.is_dir())
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.resolve().name}.", suffix=".part", dir=parent))
    except OSError as error:
        raise CliError(_WHAT, ExitCode.usage, f"{error}.", "Name a folder that you may write to.") from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _place(source: Path, folder: Path, staging: Path) -> None:
    """Give the finished files their name, at once."""
    mask = os.umask(0)
    os.umask(mask)
    try:
        (staging / RESULT).chmod(0o666 & ~mask)
        if _is_in_place(source, folder):
            (staging / RESULT).rename(folder / RESULT)
            return
        staging.chmod(0o777 & ~mask)
        folder.resolve().parent.mkdir(parents=True, exist_ok=True)
        staging.rename(folder.resolve())
    except OSError as error:
        raise CliError(_WHAT, ExitCode.usage, f"{error}.", "Name another folder.") from error


def _converted(source: Path, staging: Path, options: list[str], output: Output) -> Converted:
    """Run the conversion in a process of its own, which has torch and a limit. Raises CliError."""
    own = [f"--parent={os.getpid()}", *options, "--", str(source), str(staging)]
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.convert", *own],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to answer
        )
        with process:
            try:
                last = _follow(process, staging, output)
            except BaseException:
                process.kill()
                raise
        words.seek(0)
        said = words.read()
    if isinstance(last, Converted) and process.returncode == 0:
        return last
    if isinstance(last, NotConverted):
        raise CliError(_WHAT, ExitCode.usage, f"{last.reason}.")
    raise _died(process.returncode, said)


def _follow(
    process: "subprocess.Popen[str]", staging: Path, output: Output
) -> Advanced | Converted | NotConverted | None:
    """Show progress until the process ends; answers the last thing that it said."""
    assert process.stdout is not None
    last: Advanced | Converted | NotConverted | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=output.err, disable=not output.is_live, transient=True) as bars:
        bar = bars.add_task("starting", total=None)
        written = threading.Event()
        for line in process.stdout:
            try:
                last = LINE.validate_json(line)
            except ValidationError:
                continue  # a library printed something
            written.set()
            if isinstance(last, Advanced):
                bars.update(bar, description=last.step, completed=last.done, total=last.total)
            if isinstance(last, Advanced) and last.step == "writing" and output.is_live:
                written = threading.Event()
                threading.Thread(target=_measure, args=(staging, bars, bar, written), daemon=True).start()
        written.set()
    return last


def _measure(staging: Path, bars: Progress, bar: TaskID, written: threading.Event) -> None:
    """Move the bar by what is on the disk: the one call that writes says nothing before its end."""
    while not written.wait(_POLL_S):
        bars.update(bar, completed=sum(512 * one.stat().st_blocks for one in staging.iterdir()))


def _died(code: int, words: str) -> CliError:
    if code < 0:
        return CliError(
            _WHAT,
            ExitCode.job_failed,
            f"The conversion was ended by signal {-code}.",
            "If the machine ran out of memory, give it more or lower --max-memory; else report it.",
        )
    lines = words.strip().splitlines() or ["it said nothing"]
    return CliError(_WHAT, ExitCode.job_failed, f"The conversion failed: {lines[-1]}.", "Please report it.")


def _summary(done: Converted, folder: Path) -> RenderableType:
    types = ", ".join(f"{count:,} {name}" for name, count in done.dtypes.items())
    rows = [
        ("from", ", ".join(done.sources)),
        ("found under", done.found_under or ""),
        ("cut off names", done.prefix or ""),
        ("tensors", whole(done.tensors)),
        ("parameters", f"{whole(done.parameters)} ({types})"),
        ("size", size(done.bytes)),
        ("sha256", done.sha256),
        ("stored once", _listed([f"{one.name} is {one.kept}" for one in done.dropped])),
        ("left out", _listed(done.left_out)),
        ("copied", _listed(done.copied)),
        ("left behind", _listed(done.left_behind)),
    ]
    return Group(Text(str(folder / RESULT), style="bold green"), pairs(rows))


def _listed(names: list[str]) -> str:
    shown = "\n".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}\nand {len(names) - _SHOWN} more"
