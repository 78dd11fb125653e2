"""Loads damaged files in child processes that may die, and hears what became of each.

A child is forked from a process that has imported everything, and loads file after file until one kills it.
"""

import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from tests.fuzz.loaders import Load, Loader
from tests.fuzz.mutate import mutate
from workers.errors import JobError

CPU_SECONDS = 5.0
"""Of one file. Processor time, since other work shares the machine."""
WALL_SECONDS = 60.0
"""For what waits without working."""
MAX_BYTES = 1 << 30
"""Of one file: what the process may grow by. Twice as much address space is there at all."""
_FILES_OF_A_CHILD = 100
_MOST_CHARACTERS = 10_000


Made = tuple[Loader, Load]
"""A loader and the function that loads a folder like its valid one."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    loader: str
    number: int
    result: str
    """accepted, refused or failure."""
    why: str = ""
    seconds: float = 0.0
    """Processor time."""
    mebibytes: float = 0.0
    """What resident memory grew by, at its peak."""


def damage(seed_folder: Path, folder: Path, name: str, number: int, seed: int) -> None:
    """A copy of the seed with one file damaged, two in one of ten; the numbers say how."""
    random = Random(f"{seed} {name} {number}")
    shutil.copytree(seed_folder, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in random.sample(files, min(len(files), random.choice((1,) * 9 + (2,)))):
        path.write_bytes(mutate(path.name, path.read_bytes(), random))


def run(loaders: list[Made], seeds: Path, files: int, seed: int, processes: int) -> list[Outcome]:
    """`files` in all, as many for each loader."""
    share = -(-files // len(loaders))
    work = [
        (made, range(start, min(start + _FILES_OF_A_CHILD, share)))
        for start in range(0, share, _FILES_OF_A_CHILD)
        for made in loaders
    ]
    with ThreadPoolExecutor(processes) as threads:
        found = threads.map(lambda one: list(_outcomes(*one, seeds, seed)), work)
        return [_told(outcome) for batch in found for outcome in batch]


def _told(outcome: Outcome) -> Outcome:
    if outcome.result == "failure":
        sys.stderr.write(f"{outcome.loader} {outcome.number}: {outcome.why}\n")
        sys.stderr.flush()
    return outcome


def _outcomes(made: Made, numbers: range, seeds: Path, seed: int) -> Iterator[Outcome]:
    waiting = list(numbers)
    while waiting:
        with tempfile.TemporaryDirectory(prefix="fuzz-run-") as scratch:
            done, died = _child(made, waiting, seeds, seed, Path(scratch))
        yield from done
        waiting = waiting[len(done) :]
        if died and waiting:
            yield Outcome(made[0].name, waiting.pop(0), "failure", died)


def _child(
    made: Made, numbers: list[int], seeds: Path, seed: int, scratch: Path
) -> tuple[list[Outcome], str]:
    """What it told before its end, and how it ended where that was early."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _in_child(made, numbers, seeds, seed, scratch, writer)
    os.close(writer)
    watch = _Watch(pid)
    done = []
    with os.fdopen(reader) as lines:
        watch.start()
        for line in lines:
            watch.heard()
            done.append(Outcome(**json.loads(line)))
    _, status = os.waitpid(pid, 0)
    watch.stop()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGPROF:
            return done, f"takes more than {CPU_SECONDS} s of processor time"
        if watch.fired:
            return done, f"does not end within {WALL_SECONDS} s"
        return done, f"crash: {signal.Signals(number).name}"
    return done, "" if os.WEXITSTATUS(status) == 0 else f"exit status {os.WEXITSTATUS(status)}"


class _Watch:
    """Kills a child that says nothing for too long."""

    def __init__(self, pid: int) -> None:
        self.fired = False
        self._pid = pid
        self._last = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def heard(self) -> None:
        self._last = time.monotonic()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(1):
            if time.monotonic() - self._last > WALL_SECONDS:
                self.fired = True
                os.kill(self._pid, signal.SIGKILL)
                return


def _in_child(made: Made, numbers: list[int], seeds: Path, seed: int, scratch: Path, writer: int) -> None:
    """Never returns."""
    try:
        faulthandler.disable()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MAX_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        for number in numbers:
            folder = scratch / str(number)
            damage(seeds / made[0].name, folder, made[0].name, number, seed)
            told = json.dumps(asdict(_load(*made, folder, number))) + "\n"
            os.write(writer, told.encode())
            shutil.rmtree(folder)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the copy must not go on as its parent
        os._exit(99)


def _load(loader: Loader, load: Load, folder: Path, number: int) -> Outcome:
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _memory("VmRSS"), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    result, why = "accepted", ""
    try:
        load(folder)
    except loader.refusals as error:
        result, why = "refused", _unfit(error)
        if why:
            result = "failure"
    except BaseException as error:  # noqa: BLE001 - which class it is, is what is tested
        result, why = "failure", f"{type(error).__name__}: {str(error)[:200]} ({_where(error)})"
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, grown = time.process_time() - began, _memory("VmHWM") - before
    if grown > MAX_BYTES:
        result, why = "failure", f"takes {grown / 2**20:.0f} MiB ({why[:100]})"
    return Outcome(loader.name, number, result, why, seconds, grown / 2**20)


def _unfit(error: Exception) -> str:
    """What is wrong with the message of an error of ours; "" when nothing is."""
    text = str(error)
    if not text.strip():
        return f"{type(error).__name__} without a message"
    if isinstance(error, JobError) and (len(text) > _MOST_CHARACTERS or not _can_be_sent(text)):
        return f"{type(error).__name__} with a message that cannot be sent on: {text[:100]!r}"
    return ""


def _can_be_sent(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "/workers/" in one.filename or "/service/" in one.filename]
    last = [*ours[-1:], *frames[-1:]]
    return " <- ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(last))
