"""The same cases through a library, each in a virtual environment of its own, as one JSON line a case."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.tables.assets import local, named_by
from tests.tables.packages import pip
from tests.tables.places import CACHE, PEERS, VENVS
from tests.tables.plan import Case
from tests.tables.results import Result
from tests.tables.speed import file_of, measured

VENV_OF = {"torch_prune": "torch", "torch_pruning": "torch", "llm_compressor": "llm_compressor"}


def prepare(cases: Sequence[Case]) -> None:
    """What the cases need, made before any of them runs: models, data, virtual environments."""
    for uri in named_by(cases):
        local(uri)
    for name in {VENV_OF[case.peer] for case in cases if case.peer}:
        _python(name)


def run_library(case: Case) -> Result:
    """Run the case's script. Raises CalledProcessError, ValueError where it prints no JSON."""
    assert case.peer is not None
    python = _python(VENV_OF[case.peer])
    out = CACHE / "libraries" / f"{case.peer}-{case.digest}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "order.json").write_text(json.dumps(order(case, out), indent=2))
    threads = (os.cpu_count() or 1) // case.slots
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
    }
    command = [str(python), "-P", str(PEERS / f"{case.peer}.py"), str(out / "order.json")]
    began = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds = time.monotonic() - began
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    pruned, speeds = out / "model.onnx", []
    if pruned.is_file():
        file_of(case, case.peer).parent.mkdir(parents=True, exist_ok=True)
        speeds = measured(case, pruned.rename(file_of(case, case.peer)), threads=threads)
    print(f"{case.key} by {case.peer}: {found}", file=sys.stderr, flush=True)
    return Result(
        key=case.key,
        digest=case.digest,
        by=case.peer,
        dense=found["dense"],
        metric=found["metric"],
        removed=found["removed"],
        nonzeros=found["nonzeros"],
        macs=found.get("macs"),
        seconds=seconds,
        speeds=tuple(speeds),
        versions=found["versions"],
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        note=found.get("note", ""),
    )


def order(case: Case, out: Path) -> dict[str, Any]:
    """What a script is told: folders, seed, pattern, the shares after each round, and the training."""
    spec = case.job()
    rounds = spec.rounds_in_all()
    numbers = range(1, rounds + 1)
    return {
        "model": str(local(spec.model.uri)),
        "data": str(local(spec.data.uri)),
        "out": str(out),
        "seed": spec.seed,
        "task": spec.data.task.value,
        "max_length": spec.data.max_length,
        "train_samples": spec.data.max_train_samples,
        "goal": spec.goal.name if spec.goal else None,
        "shares": [spec.removed_after(number) for number in numbers],
        "epochs": [spec.fine_tune.epochs_of(number, rounds) for number in numbers],
        "method": spec.method.model_dump(mode="json"),
        "batch_size": spec.fine_tune.batch_size,
        "optimizer": spec.fine_tune.optimizer.model_dump(mode="json"),
        "warmup": spec.fine_tune.lr_schedule.warmup,
        "max_grad_norm": spec.fine_tune.max_grad_norm,
    }


def _python(name: str) -> Path:
    """The interpreter of the virtual environment, made on first use from `peers/NAME.txt`."""
    folder = VENVS / name
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip("install", "--requirement", str(PEERS / f"{name}.txt"), python=python)
        (folder / "complete").touch()
    return python
