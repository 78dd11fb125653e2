"""The process that measures, seen from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from schemas.benchmark import BenchmarkSpec
from schemas.job import FailureClass
from tests.unit.benchmark.models import feeds_of, write_matmuls
from workers.benchmark.compare import compare, crash
from workers.benchmark.protocol import Request
from workers.benchmark.sentence import zeros_note
from workers.errors import JobError, OutOfMemory, Stopped

SHORT = BenchmarkSpec(batch_sizes=(1, 4), rounds=5, round_seconds=0.002, warmup_seconds=0.0)
LONG = BenchmarkSpec(batch_sizes=(1,), rounds=1000, round_seconds=0.02, warmup_seconds=0.0)
"""A minute."""


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return write_matmuls(tmp_path / "dense.onnx", depth=3)


def request_for(model: Path, folder: Path, spec: BenchmarkSpec, *, parent: int) -> Path:
    np.savez(folder / "1.npz", **feeds_of(1))
    request = Request(
        parent=parent, dense=model, pruned=model, feeds={1: folder / "1.npz"}, spec=spec, threads=1
    )
    file = folder / "request.json"
    file.write_text(request.model_dump_json())
    return file


def test_gives_a_result_and_tells_of_each_round(dense):
    told = []

    result = compare(
        dense, dense, feeds_of, SHORT, threads=1, on_round=lambda done, total: told.append((done, total))
    )

    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert [one.batch_size for one in result.comparisons] == [1, 4]
    assert (result.threads, result.rounds, result.precision) == (1, 5, "fp32")
    assert result.device
    assert result.note == zeros_note("ONNX Runtime")


def test_wrong_input_is_a_job_error_with_cause_and_remedy(dense):
    def wrong(size):
        return {"y": np.ones((size, 64), dtype=np.float32)}

    with pytest.raises(JobError, match=r"'x'.* benchmark\.backend: none") as raised:
        compare(dense, dense, wrong, SHORT, threads=1, on_round=lambda done, total: None)

    assert "Traceback" not in str(raised.value)


def test_stop_in_on_round_ends_the_process_at_once(dense):
    def stop(done, total):
        raise Stopped("cancelled")

    began = time.monotonic()
    with pytest.raises(Stopped):
        compare(dense, dense, feeds_of, LONG, threads=1, on_round=stop)

    assert time.monotonic() - began < 5


def test_process_does_not_outlive_its_parent(dense, tmp_path):
    script = (
        "import os, subprocess, sys, time, pathlib\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "file.write_text(file.read_text().replace('424242', str(os.getpid())))\n"
        "child = subprocess.Popen([sys.executable, '-m', 'workers.benchmark', str(file)])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    file = request_for(dense, tmp_path, LONG, parent=424242)
    parent = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert json.loads(parent.stdout.readline()) == {"kind": "round"}

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.stdout.close()
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_measures_without_loading_torch(dense, tmp_path):
    file = request_for(dense, tmp_path, SHORT.model_copy(update={"batch_sizes": (1,)}), parent=os.getpid())
    script = (
        "import sys; from workers.benchmark.__main__ import main\n"
        "code = main()\n"
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)\n"
    )

    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True)

    assert done.stderr.strip() == "False"
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds == ["round"] * 5 + ["result"]


def test_killed_process_is_named_as_out_of_memory(tmp_path):
    error = crash(-signal.SIGKILL, None, tmp_path / "none")

    assert isinstance(error, OutOfMemory)
    assert error.failure_class is FailureClass.out_of_memory


def test_crash_says_the_signal_and_the_last_line_of_stderr(tmp_path):
    log = tmp_path / "stderr.txt"
    log.write_text("much\nfree(): invalid pointer\n")

    error = crash(-signal.SIGABRT, None, log)

    assert "SIGABRT" in str(error)
    assert "free(): invalid pointer" in str(error)
