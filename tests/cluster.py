"""A steward and workers as real processes on the test servers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.job import Job, Status
from service.settings import Settings
from tests.jobs import Desk

ROOT = Path(__file__).parent.parent
Process = subprocess.Popen[bytes]


class Cluster:
    """Context: everything it started is dead afterwards. Its settings are those of the test."""

    def __init__(self, settings: Settings, folder: Path, **env: str) -> None:
        self.desk = Desk.on(settings.redis_url)
        self.workers: list[Process] = []
        self.stewards: list[Process] = []
        self._folder = folder
        self._env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),  # the fault fixtures are modules under tests/
            "SECATEUR_REDIS_URL": settings.redis_url,
            "SECATEUR_BROKER_URL": settings.broker_url,
            "SECATEUR_S3_ENDPOINT_URL": settings.s3_endpoint_url or "",
            "SECATEUR_BUCKET": settings.bucket,
            "SECATEUR_CACHE_DIR": str(settings.cache_dir),
            "SECATEUR_LOG_FORMAT": "console",
            "SECATEUR_WORKER_METRICS_PORT": "0",
            "SECATEUR_STEWARD_METRICS_PORT": "0",
            "SECATEUR_STEWARD_TICK_SECONDS": "0.2",
            "SECATEUR_LEASE_SECONDS": "5",
            "SECATEUR_HEARTBEAT_SECONDS": "0.5",
            "SECATEUR_THREADS": "1",
            **env,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for process in [*self.workers, *self.stewards]:
            if process.poll() is None:
                process.kill()
            process.wait()
        if kind is not None:
            sys.stderr.write(self.logs())

    def start_worker(self, **env: str) -> Process:
        """One more worker, a process of its own."""
        self.workers.append(self._start("workers", f"worker-{len(self.workers)}", env))
        return self.workers[-1]

    def start_steward(self) -> Process:
        """One more steward."""
        self.stewards.append(self._start("service.steward", f"steward-{len(self.stewards)}", {}))
        return self.stewards[-1]

    def _start(self, module: str, name: str, env: dict[str, str]) -> Process:
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module],
                env={**self._env, **env},
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )

    def logs(self) -> str:
        """The ends of all logs."""
        return "".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}\n"
            for path in sorted(self._folder.glob("*.log"))
        )

    def wait_for(self, wanted: Callable[[], bool], what: str, timeout_s: float = 60) -> float:
        """Seconds until `wanted`; fails the test after `timeout_s`."""
        began = time.monotonic()
        while not wanted():
            waited = time.monotonic() - began
            assert waited < timeout_s, f"{what}: not within {timeout_s} s"
            time.sleep(0.05)
        return time.monotonic() - began

    def ended(self, id: str, timeout_s: float = 120) -> Job:
        """The job once it is terminal."""
        self.wait_for(lambda: self.desk.job(id).is_terminal, f"{id} ends", timeout_s)
        return self.desk.job(id)

    def running(self, id: str) -> None:
        """Wait until a worker runs the job."""
        self.wait_for(lambda: self.desk.job(id).status is Status.running, f"{id} runs")


def child_of(process: Process, timeout_s: float = 20) -> int:
    """The process id of the child that runs a job for this worker."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True
        )
        for line in found.stdout.splitlines():
            pid, _, args = line.strip().partition(" ")
            if " -m " in args:
                return int(pid)
        time.sleep(0.05)
    raise AssertionError("the worker has no child")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def kill(process: Process) -> None:
    """SIGKILL, as the kernel or a spot market does it."""
    process.send_signal(signal.SIGKILL)
    process.wait()
