"""Dense against pruned in a fresh process, where no thread of ours disturbs the measurement."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from schemas.benchmark import RUNTIMES, BenchmarkResult, BenchmarkSpec
from workers.benchmark.backends.registry import AUTO
from workers.benchmark.protocol import LINE, ErrorLine, Request, ResultLine, RoundLine
from workers.benchmark.sentence import zeros_note
from workers.errors import JobError, OutOfMemory

MakeFeeds = Callable[[int], dict[str, np.ndarray]]
"""Inputs of one batch size, by name."""

OnRound = Callable[[int, int], None]
"""Called after each interleaved round, with the rounds done and the rounds in all."""

_STDERR = "stderr.txt"
_REMEDY = "Lower benchmark.batch_sizes, or set benchmark.backend: none."


def compare(
    dense: Path, pruned: Path, feeds: MakeFeeds, spec: BenchmarkSpec, *, threads: int, on_round: OnRound
) -> BenchmarkResult:
    """Measure two files in the spec's backend on the CPU, with `threads` threads each.

    ONNX files, or for PyTorch programs of torch.export.

    Each batch size takes 3 x (warmup_seconds + rounds x round_seconds), and memory holds three models. The
    process that measures ends with this one, and as soon as `on_round` raises. Raises OutOfMemory where the
    kernel killed it, JobError where it failed.
    """
    with tempfile.TemporaryDirectory(prefix="secateur-benchmark-") as folder:
        request = Request(
            parent=os.getpid(),
            dense=dense.resolve(),
            pruned=pruned.resolve(),
            feeds={size: _store(feeds(size), Path(folder) / f"{size}.npz") for size in spec.batch_sizes},
            spec=spec,
            threads=threads,
        )
        measured = _run(request, Path(folder), on_round)
    backend = AUTO if spec.backend == "auto" else spec.backend
    return BenchmarkResult(
        backend=backend,
        device=measured.device,
        threads=threads,
        precision=spec.precision,
        rounds=spec.rounds,
        comparisons=measured.comparisons,
        note=zeros_note(RUNTIMES[backend]),
    )


def _store(feeds: dict[str, np.ndarray], path: Path) -> Path:
    np.savez(path, allow_pickle=False, **feeds)
    return path


def _run(request: Request, folder: Path, on_round: OnRound) -> ResultLine:
    done, result, failure = 0, None, None
    with _process(request, folder) as process:
        assert process.stdout is not None
        for text in process.stdout:
            match LINE.validate_json(text):
                case RoundLine():
                    done += 1
                    on_round(done, request.spec.rounds)
                case ResultLine() as line:
                    result = line
                case ErrorLine(message=message):
                    failure = message
        code = process.wait()
    if code != 0 or result is None:
        raise crash(code, failure, folder / _STDERR)
    return result


@contextmanager
def _process(request: Request, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    file = folder / "request.json"
    file.write_text(request.model_dump_json())
    # -P: never import from the working directory, which may be a folder of a downloaded model
    command = [sys.executable, "-P", "-m", "workers.benchmark", str(file)]
    with (
        (folder / _STDERR).open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def crash(code: int, failure: str | None, stderr: Path) -> JobError:
    """What the user is told of a process that ended with `code`; `failure` is its error line, if any."""
    if failure is not None:
        return JobError(f"The benchmark failed: {failure}. {_REMEDY}")
    if code == -signal.SIGKILL:
        return OutOfMemory(f"The benchmark was killed, most likely for want of memory. {_REMEDY}")
    lines = stderr.read_text(errors="replace").strip().splitlines()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return JobError(f"The benchmark crashed ({how}): {lines[-1] if lines else 'it said nothing'}. {_REMEDY}")
