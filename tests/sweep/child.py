"""One stage of one case in a process of its own, with a limit on time and memory; its record is kept."""

import json
import multiprocessing
import time
import warnings
from pathlib import Path

import transformers

from tests.sweep.architectures import cases
from tests.sweep.stages import Record, attempt, limit_memory

CACHE = Path(__file__).parents[2] / ".cache" / "sweep"
SECONDS = {"check": 300, "export": 600}
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.sweep.child"])
"""Children are forked from a process that has the libraries: importing them takes five seconds."""
GIB = 16.0
"""Address space; the library's own maps take three of it."""


def run(name: str, stage: str) -> Record:
    """The record of one stage, from a child."""
    path = _path(name, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    child = CONTEXT.Process(target=alone, args=(name, stage))
    begin = time.monotonic()
    child.start()
    child.join(SECONDS[stage])
    record = kept(name, stage)
    if child.is_alive():
        child.kill()
        child.join()
        record = {"outcome": "failed", "reason": f"took more than {SECONDS[stage]} s"}
    elif record is None:
        record = {"outcome": "failed", "reason": f"the process ended with {child.exitcode}"}
    path.write_text(json.dumps({**record, "wall": round(time.monotonic() - begin, 1)}))
    return record


def alone(name: str, stage: str) -> None:
    """One stage, in this process, under the limit."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    limit_memory(GIB)
    _path(name, stage).write_text(json.dumps(attempt(cases()[name], stage)))


def kept(name: str, stage: str) -> Record | None:
    """The record of an earlier run."""
    path = _path(name, stage)
    record: Record | None = json.loads(path.read_text()) if path.is_file() else None
    return record


def _path(name: str, stage: str) -> Path:
    return CACHE / f"{name.replace('/', '-')}.{stage}.json"
