"""Processes that die are started again; all end in order."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.dev.process import Server, ServerError, start
from service.dev.supervision import Part, Stopping, Supervision, pause_after
from service.dev.watchdog import Watchdog, leftovers

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def sleeper(name: str, folder: Path, supervision: Supervision | None = None) -> Part:
    def begin() -> Server:
        ready = supervision.ready_or_stopping(lambda: False) if supervision else lambda: True
        return start(name, SLEEP, folder=folder / name, url="", ready=ready)

    return Part(name, begin)


def wait_for(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pid(part: Part) -> int:
    assert part.server is not None
    return part.server.process.pid


def test_the_pause_before_a_restart_doubles_up_to_half_a_minute():
    assert [pause_after(failures) for failures in (0, 1, 2, 20)] == [0.5, 1.0, 2.0, 30.0]


def test_a_process_that_was_killed_is_started_again_and_that_is_said(tmp_path: Path):
    said: list[str] = []
    supervision, part = Supervision(said.append), sleeper("a", tmp_path)
    supervision.start_all([part])
    supervision.watch()
    first = pid(part)

    assert part.server is not None
    part.server.process.send_signal(signal.SIGKILL)
    wait_for(lambda: len(said) == 2)

    assert said == ["a ended with code -9; it is started again in 0.5 s", "a runs again"]
    assert pid(part) != first
    supervision.stop()


def test_later_waves_end_before_earlier_ones(tmp_path: Path):
    supervision = Supervision(lambda _: None)
    storage, service = sleeper("storage", tmp_path), sleeper("service", tmp_path)
    supervision.start_all([storage])
    supervision.start_all([service])
    assert storage.server is not None
    assert service.server is not None
    ended: list[str] = []
    storage.server.on_stop(lambda: ended.append("storage"))
    service.server.on_stop(lambda: ended.append("service"))

    supervision.stop()
    supervision.stop()

    assert ended == ["service", "storage"]
    assert storage.died
    assert service.died


def test_a_part_that_does_not_start_is_an_error_and_holds_up_nobody(tmp_path: Path):
    def fail() -> Server:
        raise ServerError("no such port")

    supervision = Supervision(lambda _: None)
    slow = sleeper("slow", tmp_path, supervision)

    with pytest.raises(ServerError, match="no such port"):
        supervision.start_all([Part("broken", fail), slow])

    supervision.stop()
    assert slow.server is None


def test_a_start_under_way_ends_when_all_is_stopped():
    supervision = Supervision(lambda _: None)
    ready = supervision.ready_or_stopping(lambda: False)
    assert not ready()

    supervision.stopping.set()

    with pytest.raises(Stopping):
        ready()


def test_leftovers_end_storage_last(tmp_path: Path):
    for number, name in enumerate(("valkey", "api", "worker-2"), 1):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.pid").write_text(str(number))

    found = [folder.name for _, folder in leftovers(tmp_path)]

    assert found[-1] == "valkey"
    assert sorted(found) == ["api", "valkey", "worker-2"]


def test_the_watchdog_stops_what_a_killed_process_left(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from service.dev.watchdog import Watchdog;"
        "from service.dev.process import start; root = Path(sys.argv[1]); dog = Watchdog(root);"
        f"s = start('a', {SLEEP!r}, folder=root / 'a', url='', ready=lambda: True);"
        "print(s.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())

    parent.kill()
    parent.wait()

    cwd = Path(f"/proc/{child}/cwd")
    wait_for(lambda: not cwd.exists() or cwd.resolve() != (tmp_path / "a").resolve())
    parent.stdout.close()


def test_the_watchdog_goes_when_it_is_no_longer_needed(tmp_path: Path):
    watchdog = Watchdog(tmp_path)
    assert watchers(tmp_path) == 1

    watchdog.close()

    assert watchers(tmp_path) == 0


def watchers(root: Path) -> int:
    """Processes that watch over `root`."""
    listing = ["ps", "-ww", "-eo", "args="]
    commands = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    return sum(
        "service.dev.watchdog" in line and str(root.resolve()) in line for line in commands.splitlines()
    )
