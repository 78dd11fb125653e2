"""`secateur convert` on files that want to run code, to fill the memory, or are broken; each in its child."""

import contextlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.convert.pickled import load_pickled
from workers.errors import ModelError

MB = 10**6


class Evil:
    """Runs a command when it is unpickled; the command leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self._mark}",)


class Builder:
    """Opens a file for writing when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self._mark), "w")


def command(source: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "service.cli.main", "convert", str(source), str(folder), "--json"]


def refusal(source: Path, *options: str) -> str:
    """Why the command refuses the file; nothing may be left of it."""
    parent = source.parent
    before = sorted(parent.iterdir())
    ran = subprocess.run(
        [*command(source, parent / "out"), *options], capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == ""
    assert sorted(parent.iterdir()) == before
    return str(json.loads(ran.stderr)["why"])


@pytest.mark.parametrize("evil", [Evil, Builder])
@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, evil: type[Evil] | type[Builder], new: bool
):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    value = {"state_dict": {"w": torch.zeros(2)}, "x": evil(mark)}
    torch.save(value, path, _use_new_zipfile_serialization=new)
    pickle.loads(pickle.dumps(evil(mark)))
    assert mark.exists(), "it would have run"
    mark.unlink()

    with pytest.raises(ModelError, match=r"asks for '(posix\.system|io\.open)' to be called or built"):
        load_pickled(path)

    assert not mark.exists()


def test_the_command_says_what_the_file_asked_for(tmp_path: Path):
    path = tmp_path / "evil.pt"
    torch.save({"w": torch.zeros(2), "x": Evil(tmp_path / "mark")}, path)

    why = refusal(path)

    assert "evil.pt asks for 'posix.system' to be called or built, which could run code: refused" in why
    assert not (tmp_path / "mark").exists()


def test_a_plain_pickle_is_not_even_opened(tmp_path: Path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))

    with pytest.raises(ModelError, match=r"evil\.pkl is not a file that torch\.save wrote"):
        load_pickled(path)

    assert not (tmp_path / "mark").exists()


def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")

    with pytest.raises(ModelError, match=r"torch\.nn\.modules\.linear\.Linear.*save model\.state_dict\(\)"):
        load_pickled(tmp_path / "whole.pt")


def test_a_compressed_bomb_is_refused_before_it_is_opened(tmp_path: Path):
    whole, bomb = io.BytesIO(), tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(50 * MB // 4)}, whole)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as written:
        for member in read.infolist():
            written.writestr(member.filename, read.read(member))
    assert bomb.stat().st_size < MB

    assert "bomb.pt is packed so that it grows when it is opened" in refusal(bomb)


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path):
    path = tmp_path / "overlap.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", b"x")
        file.writestr("m/data/0", bytes(1000))
        file.filelist += [file.filelist[-1]] * 50  # fifty entries of the directory, one and the same bytes

    with pytest.raises(ModelError, match="refused as a decompression bomb"):
        load_pickled(path)


def test_a_file_that_claims_more_than_it_holds_meets_the_memory_limit(tmp_path: Path):
    path = tmp_path / "claims.pt"
    whole = io.BytesIO()
    torch.save({"w": torch.zeros(7)}, whole, _use_new_zipfile_serialization=False)
    # the storage's size in the pickle: 7 becomes 2,147,483,647 elements, 8.6 GB
    small, large = b"X\x03\x00\x00\x00cpuq\x06K\x07N", b"X\x03\x00\x00\x00cpuq\x06J\xff\xff\xff\x7fN"
    assert whole.getvalue().count(small) == 1, whole.getvalue()
    path.write_bytes(whole.getvalue().replace(small, large))

    assert "claims.pt takes more memory than this conversion may have" in refusal(path)


def test_a_sound_file_meets_a_limit_that_is_too_low(tmp_path: Path):
    path = tmp_path / "big.pt"
    torch.save({"w": torch.zeros(100 * MB // 4)}, path)

    assert "raise --max-memory" in refusal(path, "--max-memory", "50MB")


def test_the_tar_format_is_refused(tmp_path: Path):
    path = tmp_path / "old.pt"
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            file.addfile(tarfile.TarInfo(name))

    with pytest.raises(ModelError, match=r"tar format of torch 0\.1, which has no safe reader"):
        load_pickled(path)


def test_a_program_is_no_state_dict(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as file:
        file.writestr("script/constants.pkl", b"")
        file.writestr("script/data.pkl", b"")

    with pytest.raises(ModelError, match="is a program"):
        load_pickled(tmp_path / "script.pt")


def test_safetensors_need_no_conversion(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(ModelError, match="is in safetensors already"):
        load_pickled(tmp_path / "model.safetensors")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("new", [True, False])
def test_a_damaged_file_is_refused_and_nothing_else(tmp_path: Path, new: bool):
    whole = io.BytesIO()
    torch.save({"w": torch.zeros(4), "b": torch.ones(2)}, whole, _use_new_zipfile_serialization=new)
    path = tmp_path / "damaged.pt"

    @settings(max_examples=150)
    @given(st.data())
    def damage(data: st.DataObject) -> None:
        content = bytearray(whole.getvalue())
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        with contextlib.suppress(ModelError):
            load_pickled(path)

    damage()


def test_a_command_that_is_ended_leaves_nothing(tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    torch.save({"w": torch.zeros(100 * MB // 4)}, source / "big.pt")
    process = subprocess.Popen(command(source / "big.pt", tmp_path / "out"), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.part")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)

    process.send_signal(signal.SIGINT)

    assert process.wait(60) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
