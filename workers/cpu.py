"""The processor's name; without torch, since the process that measures has none."""

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """The model name as the kernel states it, or the architecture where it states none (most ARM kernels)."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
