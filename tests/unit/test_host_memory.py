"""What a machine's files say of its memory, for cgroups of both versions."""

from pathlib import Path

import pytest

from workers.host_memory import free_bytes, total_bytes

KB = 1024
MEMINFO = {"MemTotal": 1000, "MemFree": 1, "MemAvailable": 400, "SwapFree": 0}
V1, V2 = "4:memory:{}\n3:cpu,cpuacct:/x\n0::/\n", "0::{}\n"


def machine(root: Path, cgroup: str = "", **files: str) -> Path:
    """A root with these files in its cgroups, a slash for each double underscore and a dot for `_dot_`."""
    lines = "".join(f"{name}:{count:10} kB\n" for name, count in MEMINFO.items())
    named = {name.replace("__", "/").replace("_dot_", "."): text for name, text in files.items()}
    every = {"proc/meminfo": lines, "proc/self/cgroup": cgroup}
    for name, text in {**every, **{f"sys/fs/cgroup/{name}": text for name, text in named.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_cgroup_it_is_the_machines(tmp_path: Path):
    root = machine(tmp_path)

    assert (total_bytes(root), free_bytes(root)) == (1000 * KB, 400 * KB)


def test_a_system_without_meminfo_tells_nothing(tmp_path: Path):
    assert (total_bytes(tmp_path), free_bytes(tmp_path)) == (None, None)


def test_a_limit_of_version_2_counts_less_what_is_used_and_cannot_be_dropped(tmp_path: Path):
    root = machine(
        tmp_path,
        V2.format("/pod/box"),
        pod__box__memory_dot_max=str(300 * KB),
        pod__box__memory_dot_current=str(200 * KB),
        pod__box__memory_dot_stat=f"anon {150 * KB}\ninactive_file {30 * KB}\nactive_file {20 * KB}\n",
    )

    assert total_bytes(root) == 300 * KB
    assert free_bytes(root) == (300 - 200 + 50) * KB


def test_a_limit_of_version_1_counts_too(tmp_path: Path):
    root = machine(
        tmp_path,
        V1.format("/box"),
        memory__box__memory_dot_limit_in_bytes=str(300 * KB),
        memory__box__memory_dot_usage_in_bytes=str(250 * KB),
        memory__box__memory_dot_stat=f"inactive_file 0\ntotal_inactive_file {10 * KB}\n",
    )

    assert (total_bytes(root), free_bytes(root)) == (300 * KB, 60 * KB)


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n"])
def test_no_limit_is_none(tmp_path: Path, limit: str):
    files = {"box__memory_dot_max": limit, "box__memory_dot_current": "7"}

    root = machine(tmp_path, V2.format("/box"), **files)

    assert (total_bytes(root), free_bytes(root)) == (1000 * KB, 400 * KB)


def test_the_smallest_limit_of_all_groups_around_the_process_holds(tmp_path: Path):
    root = machine(
        tmp_path,
        V2.format("/pod/box"),
        pod__memory_dot_max=str(200 * KB),
        pod__memory_dot_current=str(190 * KB),
        pod__box__memory_dot_max=str(300 * KB),
        pod__box__memory_dot_current=str(100 * KB),
    )

    assert (total_bytes(root), free_bytes(root)) == (200 * KB, 10 * KB)


def test_in_a_container_whose_path_is_the_hosts_the_limit_lies_at_the_top(tmp_path: Path):
    root = machine(tmp_path, V1.format("/docker/1a2b"), memory__memory_dot_limit_in_bytes=str(100 * KB))

    assert total_bytes(root) == 100 * KB


def test_swap_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(MEMINFO, "SwapFree", 50)

    assert free_bytes(machine(tmp_path)) == 450 * KB


def test_this_machine_has_more_than_is_free():
    total, free = total_bytes(), free_bytes()

    assert total is not None
    assert free is not None
    assert free > 0
    assert total > 2**28
