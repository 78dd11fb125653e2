"""The memory of this machine, or of the cgroup that the process is in: what there is, and what is free."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")


class _Files(NamedTuple):
    """How one version of cgroups names things; `cached` are lines of memory.stat."""

    limit: str
    used: str
    cached: tuple[str, ...]


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Files("memory.max", "memory.current", ("inactive_file", "active_file"))


def total_bytes(root: Path | None = None) -> int | None:
    """RAM, or the cgroup's limit where that is less; None: this system does not tell."""
    root = root or ROOT
    ram = _meminfo(root).get("MemTotal")
    if ram is None:
        return None
    limits = (_number(folder / files.limit) for folder, files in _groups(root))
    return min([ram, *(one for one in limits if one is not None)])


def free_bytes(root: Path | None = None) -> int | None:
    """What a process can get without another losing it, with caches of files and swap counted as free.

    None: this system does not tell.
    """
    root = root or ROOT
    meminfo = _meminfo(root)
    available = meminfo.get("MemAvailable")
    if available is None:
        return None
    rooms = (_room(folder, files) for folder, files in _groups(root))
    least = min([available, *(one for one in rooms if one is not None)])
    return max(0, least) + meminfo.get("SwapFree", 0)


def _room(folder: Path, files: _Files) -> int | None:
    """The cgroup's limit less what cannot be dropped; None: it has no limit."""
    limit, used = _number(folder / files.limit), _number(folder / files.used)
    if limit is None or used is None:
        return None
    stat = _pairs(folder / "memory.stat")
    return limit - used + sum(stat.get(name, 0) for name in files.cached)


def _groups(root: Path) -> Iterator[tuple[Path, _Files]]:
    """The process's cgroup and those it lies in, as far as they can be seen: each may have a limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, files = root / "sys/fs/cgroup/memory", _V1
        elif not controllers:
            top, files = root / "sys/fs/cgroup", _V2
        else:
            continue
        inner = Path(path.lstrip("/"))
        for one in (inner, *inner.parents):
            # in a container the path may be that of the host, which is not there
            if (top / one / files.limit).is_file():
                yield top / one, files


def _meminfo(root: Path) -> dict[str, int]:
    """Bytes by name."""
    return {name.rstrip(":"): 1024 * count for name, count in _pairs(root / "proc/meminfo").items()}


def _pairs(path: Path) -> dict[str, int]:
    """The lines of a file that are a name and a number."""
    split = (line.split() for line in _text(path).splitlines())
    return {one[0]: int(one[1]) for one in split if len(one) > 1 and one[1].isdecimal()}


def _number(path: Path) -> int | None:
    """None: no such file, or 'max'."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
