"""`secateur dev`: one command starts everything, keeps it running, and takes it down again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.cli.connection import read_client_file
from service.dev.process import ServerError
from service.dev.stack import Stack

PARTS = {"api", "steward", "worker", "seaweedfs", "valkey"}


def wait_for(wanted: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def works(folder: Path) -> bool:
    """Whether a process of ours still has its working folder there."""
    pid = int((folder / f"{folder.name}.pid").read_text())
    link = Path(f"/proc/{pid}/cwd")
    return link.exists() and link.resolve() == folder.resolve()


def alive(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/*.pid") if works(path.parent))


@pytest.fixture(autouse=True)
def _own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SECATEUR_", "AWS_")) or name in ("REDIS_URL", "S3_ENDPOINT_URL"):
            monkeypatch.delenv(name)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`secateur dev --json` in an empty folder, started and ready."""
    command = [sys.executable, "-m", "service.cli.main", "dev", "--json"]
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=err, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (tmp_path / "err").read_text()
    assert json.loads(line)["object"] == "stack"
    yield process
    if process.poll() is None:
        process.terminate()
    process.wait(30)
    process.stdout.close()


def cli(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli.main", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_one_command_starts_all_and_ctrl_c_ends_all(dev: subprocess.Popen[str], tmp_path: Path):
    root = tmp_path / ".secateur"
    below = tmp_path / "a" / "folder" / "below"
    below.mkdir(parents=True)

    workers = json.loads(cli(below, "workers", "--json").stdout)["data"]
    second = cli(tmp_path, "dev")
    assert set(alive(root)) == PARTS
    dev.send_signal(signal.SIGINT)

    assert dev.wait(15) == 0
    assert len(workers) == 1
    assert second.returncode == 4
    assert f"process {dev.pid}" in second.stderr
    assert alive(root) == []


def test_a_killed_worker_is_replaced_and_that_is_said(dev: subprocess.Popen[str], tmp_path: Path):
    root = tmp_path / ".secateur"
    first = int((root / "worker" / "worker.pid").read_text())

    os.kill(first, signal.SIGKILL)
    wait_for(lambda: "worker runs again" in (tmp_path / "err").read_text())

    assert "worker ended with code -9" in (tmp_path / "err").read_text()
    assert set(alive(root)) == PARTS
    dev.terminate()
    assert dev.wait(15) == 0


def test_nothing_outlives_a_killed_dev_for_long(dev: subprocess.Popen[str], tmp_path: Path):
    root = tmp_path / ".secateur"
    assert "api" in alive(root)

    dev.kill()

    wait_for(lambda: alive(root) == [], timeout_s=30)


def test_a_restart_keeps_key_jobs_and_credentials(tmp_path: Path):
    root = tmp_path / "s"
    with Stack(root) as stack:
        first = (stack.key, stack.credentials)
        stack.s3().put_object(Bucket="zoo", Key="x", Body=b"kept")

    with Stack(root) as again:
        assert (again.key, again.credentials) == first
        assert again.s3().get_object(Bucket="zoo", Key="x")["Body"].read() == b"kept"
        assert read_client_file(root / "client.json").url == again.url


def test_a_stack_gives_its_processes_the_environment_it_was_asked_to(tmp_path: Path):
    with Stack(tmp_path / "s", workers=2, env={"SECATEUR_MAX_BODY_BYTES": "2000"}) as stack:
        headers = {"Authorization": f"Bearer {stack.key}"}
        workers = httpx.get(f"{stack.url}/v1/workers", headers=headers).json()["data"]
        large = httpx.post(f"{stack.url}/v1/jobs", headers=headers, json={"x": "y" * 3000})

    assert len(workers) == 2
    assert large.status_code == 413


def test_a_stack_that_cannot_start_leaves_nothing(tmp_path: Path):
    root = tmp_path / "s"

    with (
        pytest.raises(ServerError, match=r"api ended with code"),
        Stack(root, env={"SECATEUR_LEASE_SECONDS": "x"}),
    ):
        pass

    assert alive(root) == []
