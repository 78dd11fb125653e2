"""Which files are read, which come along, and which stay."""

import json
from pathlib import Path

import pytest

from workers.convert.sources import find_sources
from workers.errors import ModelError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def read(folder: Path) -> list[str]:
    return [path.name for path in find_sources(folder).files]


def test_a_file_is_itself(tmp_path: Path):
    fill(tmp_path, "a.pt", "config.json")

    sources = find_sources(tmp_path / "a.pt")

    assert (sources.files, sources.companions) == ((tmp_path / "a.pt",), ())


def test_configs_and_tokenizers_come_along_and_code_stays(tmp_path: Path):
    fill(tmp_path, "pytorch_model.bin", "config.json", "vocab.txt", "spiece.model", "LICENSE")
    fill(tmp_path, "modeling.py", "optimizer.pt", "pytorch_model.bin.index.json", "tf_model.h5")

    sources = find_sources(tmp_path)

    assert [one.name for one in sources.files] == ["pytorch_model.bin"]
    assert [one.name for one in sources.companions] == ["LICENSE", "config.json", "spiece.model", "vocab.txt"]
    assert set(sources.left_behind) == {
        "modeling.py",
        "optimizer.pt",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
    }


def test_a_link_to_elsewhere_stays_and_one_of_the_hubs_cache_comes(tmp_path: Path):
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    fill(tmp_path, "secret.json")
    fill(blobs, "1234")
    fill(snapshot, "pytorch_model.bin")
    (snapshot / "config.json").symlink_to("../../blobs/1234")
    (snapshot / "stolen.json").symlink_to(tmp_path / "secret.json")

    sources = find_sources(snapshot)

    assert [one.name for one in sources.companions] == ["config.json"]
    assert sources.left_behind == ("stolen.json",)


def test_shards_are_read_in_order(tmp_path: Path):
    fill(tmp_path, "m-2.bin", "m-1.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"b": "m-2.bin", "a": "m-1.bin", "c": "m-2.bin"}})
    )

    assert read(tmp_path) == ["m-1.bin", "m-2.bin"]


def test_the_only_checkpoint_of_a_folder_is_it(tmp_path: Path):
    fill(tmp_path, "best.ckpt", "optimizer.pt", "notes.md")

    assert read(tmp_path) == ["best.ckpt"]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"a": "../../etc/passwd.bin"}}', "which is not a"),
        ('{"weight_map": {"a": "absent.bin"}}', "which is not in the folder: download it"),
        ("{}", "has no 'weight_map'"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, index: str, message: str):
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)

    with pytest.raises(ModelError, match=message):
        find_sources(tmp_path)


def test_a_folder_that_is_not_clear_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"none of them: give the file itself"):
        find_sources(tmp_path)
    fill(tmp_path, "a.pt", "b.pt")
    with pytest.raises(ModelError, match=r"a\.pt, b\.pt: give the file itself"):
        find_sources(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        find_sources(tmp_path / "absent")
