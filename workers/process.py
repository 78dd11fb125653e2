"""Starting a child process that dies with its parent, and ending it for certain."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

PR_SET_PDEATHSIG = 1


def die_with_parent(expected_parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2), Linux only)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != expected_parent:  # the parent died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def start_child(module: str, *, env: Mapping[str, str], messages_fd: int) -> "subprocess.Popen[str]":
    """Run `python -m module` in a session of its own; it writes its messages to `messages_fd`."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],  # -P: import nothing from the working directory
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(messages_fd,),
        start_new_session=True,
        text=True,
        errors="replace",  # native libraries print what they like
        bufsize=1,
        env={**os.environ, **env},
    )


def kill_group(process: "subprocess.Popen[str]") -> None:
    """SIGKILL to the child and all it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
