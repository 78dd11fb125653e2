"""Stops what we started if we are killed: a process of its own that waits for our end of a pipe to close."""

import subprocess
import sys
from pathlib import Path

from service.dev.process import stop_leftover

_STORAGE = ("seaweedfs", "valkey")


class Watchdog:
    """Watches this process, for all servers whose pid files are under `root`."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.dev.watchdog", str(root.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def close(self) -> None:
        """Let it end. It stops first what is still there."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def leftovers(root: Path) -> list[tuple[int, Path]]:
    """Pids and folders of the processes under `root`, storage last."""
    files = sorted(root.glob("*/*.pid"), key=lambda path: path.stem in _STORAGE)
    return [(int(text), path.parent) for path in files if (text := path.read_text()).isdecimal()]


def main(root: Path) -> None:
    """Wait until the process that started us is gone, then stop what it left."""
    sys.stdin.buffer.read()
    for pid, folder in leftovers(root):  # listed at once: a new start in the same folder has other pids
        stop_leftover(pid, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
