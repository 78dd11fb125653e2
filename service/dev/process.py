"""Start a server of our own, wait until it answers, and stop it: by its pid, never by name."""

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path

KILL_AFTER_S = 10.0


class ServerError(Exception):
    """A local server is missing, did not start, or its folder is in use. The message says what to do."""


@dataclass(frozen=True)
class Server:
    """A running server. It outlives us if we are killed; the next start in its folder stops it first."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    _held: ExitStack = field(repr=False)

    def stop(self) -> None:
        """Ask it to end, insist after ten seconds, and let go of its folder. Twice is harmless."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._held.close()

    def on_stop(self, clean_up: Callable[[], object]) -> None:
        """Call `clean_up` once it has stopped."""
        self._held.callback(clean_up)


def start(
    name: str,
    command: Sequence[str],
    *,
    folder: Path,
    url: str,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Server:
    """Run `command` in `folder` (its output in `<name>.log`) and return once `ready()` is true.

    `env` comes on top of our own environment.
    Raises ServerError when the folder is in use, or the server ends or stays silent for `timeout_s`.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        _claim(folder, name, stack)
        log = folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for us; we then stop it in order
            )
        (folder / f"{name}.pid").write_text(str(process.pid))
        server = Server(name, url, process, log, stack.pop_all())
    try:
        _wait(server, ready, timeout_s)
    except BaseException:
        server.stop()
        raise
    return server


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _claim(folder: Path, name: str, stack: ExitStack) -> None:
    """Hold the folder for as long as we live; a server left over from a killed run is stopped."""
    lock: TextIOWrapper = stack.enter_context((folder / f"{name}.lock").open("a+"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise ServerError(
            f"{folder} is in use by process {lock.read().strip() or '?'}: stop it, or use another folder"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    pid_file = folder / f"{name}.pid"
    if pid_file.exists():
        stop_leftover(int(pid_file.read_text() or 0), folder)


def stop_leftover(pid: int, folder: Path) -> None:
    """End the process that an earlier run left in `folder`; a pid that now is another's is let be."""
    if not _works_in(pid, folder):
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + KILL_AFTER_S
        while _works_in(pid, folder):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def _works_in(pid: int, folder: Path) -> bool:
    """Whether the process still lives and is ours: pids are used again, working folders tell them apart."""
    command = ["lsof", "-a", "-p", str(pid), "-d", "cwd", "-Fn"]
    link = Path(f"/proc/{pid}/cwd")
    if Path("/proc/self").exists():
        return link.exists() and link.resolve() == folder.resolve()
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return f"n{folder.resolve()}\n" in found


def _wait(server: Server, ready: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        code = server.process.poll()
        if code is not None:
            raise ServerError(f"{server.name} ended with code {code} at once{_last_words(server.log)}")
        if time.monotonic() > deadline:
            raise ServerError(
                f"{server.name} did not answer within {timeout_s:.0f} s{_last_words(server.log)}"
            )
        time.sleep(0.02)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-8:]
    return f"; the end of {log}:\n" + "\n".join(lines)
