"""WebDataset shards: what is read from them, and what is refused."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from schemas.refs import DataRef
from schemas.task import Task
from tests import image_shards, tiny
from tests.image_shards import write_tar
from workers.data.bundle import Split
from workers.data.load import load_bundle
from workers.data.tar import groups_of, members
from workers.errors import DataError
from workers.models.load import load_model
from workers.models.loaded import LoadedModel

REF = DataRef(uri="s3://data/images/")
IMAGE = tiny.png(tiny.images(1)[0][0])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LoadedModel:
    folder = tiny.resnet(tmp_path_factory.mktemp("resnet"))
    tiny.edit_json(folder / "config.json", label2id={"cat": 2, "dog": 1, "a": 0, "b": 3})
    return load_model(folder, Task.image_classification)


def train_labels(folder: Path, model: LoadedModel, ref: DataRef = REF) -> list[int]:
    image_shards.image_tars(folder, samples=2, shards=1, split="validation")
    first = load_bundle(folder, ref, model, seed=0).train.first(99)
    assert isinstance(first, Split)
    return first.labels.tolist()


@pytest.mark.parametrize(
    ("kind", "text", "label"),
    [("cls", "3", 3), ("cls", " 3\n", 3), ("txt", "cat", 2), ("json", '{"label": 1}', 1), ("json", "2", 2)],
)
def test_a_label_is_a_number_a_name_or_a_field(
    tmp_path: Path, model: LoadedModel, kind: str, text: str, label: int
):
    write_tar(tmp_path / "train.tar", [("a/x.png", IMAGE), (f"a/x.{kind}", text.encode())])

    assert train_labels(tmp_path, model) == [label]


def test_the_spec_chooses_the_label(tmp_path: Path, model: LoadedModel):
    sample = [("x.png", IMAGE), ("x.cls", b"0"), ("x.json", b'{"breed": "dog"}'), ("x.txt", b"cat")]
    write_tar(tmp_path / "train.tar", sample)
    by_name = DataRef(uri="s3://data/images/", label_column="txt")

    assert train_labels(tmp_path, model) == [0]
    assert train_labels(tmp_path, model, by_name) == [2]


def test_shards_may_lie_in_a_folder_of_the_split(tmp_path: Path, model: LoadedModel):
    for number in range(2):
        write_tar(tmp_path / "train" / f"{number:06}.tar", [("x.png", IMAGE), ("x.cls", b"%d" % number)])

    assert train_labels(tmp_path, model) == [0, 1]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read_in_both_formats(tmp_path: Path, form: int):
    name = "folder/" + "x" * 300 + ".png"
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        image_shards.add(tar, name, b"1234")

    (found,) = members(path, "a.tar")

    assert (found.name, found.bytes) == (name, 4)
    assert path.read_bytes()[found.offset :][:4] == b"1234"


def special(name: str, kind: bytes, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)
    return buffer.getvalue()


def plain(name: str, data: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        image_shards.add(tar, name, data)
    return buffer.getvalue()


def huge_header() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (special("x.png", tarfile.SYMTYPE, "/etc/passwd"), "s.tar: 'x.png' is a link"),
        (special("x.png", tarfile.LNKTYPE, "y.png"), "s.tar: 'x.png' is a link"),
        (special("x.png", tarfile.FIFOTYPE), "s.tar: 'x.png' is no plain file"),
        (plain("../x.png"), r"s.tar: '\.\./x.png' leads out of the folder"),
        (plain("a/../../x.png"), "leads out of the folder"),
        (plain("/etc/x.png"), "leads out of the folder"),
        (
            plain("x.png", b"y" * 2000)[:1500],
            "s.tar: 'x.png' says that it has 2,000 bytes, and the shard has 1,500",
        ),
        (gzip.compress(plain("x.png")), "s.tar is compressed with gzip: give an uncompressed"),
        (b"hello" * 200, "s.tar is not a valid tar file at byte 0"),
        (huge_header(), "s.tar: '././@LongLink' says that it has 8,589,934,592 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_what_is_no_plain_tar_with_shard_and_member(tmp_path: Path, content: bytes, says: str):
    (tmp_path / "s.tar").write_bytes(content)

    with pytest.raises(DataError, match=says):
        list(groups_of(tmp_path / "s.tar", "s.tar"))


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ([("x.cls", b"1")], "the sample 'x' has no image"),
        ([("x.png", IMAGE), ("x.jpg", IMAGE), ("x.cls", b"1")], "the sample 'x' has more than one image"),
        ([("x.png", IMAGE)], "the sample 'x' has no label"),
        ([("x.png", b""), ("x.cls", b"1")], "'x.png' has 0 bytes"),
        ([("x.png", IMAGE), ("x.cls", b"9")], r"train\.tar: 'x\.cls': row 0 is 9"),
        ([("x.png", IMAGE), ("x.txt", b"bird")], r"train\.tar: 'x\.txt': row 0 is 'bird'"),
        ([("x.png", IMAGE), ("x.json", b"{")], "'x.json' is not valid JSON"),
        ([("x.png", IMAGE), ("x.json", b"[" * 100_000)], "'x.json' is not valid JSON"),
        ([("x.png", IMAGE), ("x.json", b'{"name": 1}')], "no class number or name as 'label'"),
        ([("x.png", IMAGE), ("x.cls", b"1" * 2**21)], "a label has at most"),
        ([("x.png", IMAGE), ("x.png", IMAGE)], "'x.png' is there twice"),
        ([("x.png", IMAGE), ("x.cls", b"99999999999999999999")], "row 0 is '9999"),
        ([], "the split 'train' is empty"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_refuses_what_is_no_sample(
    tmp_path: Path, model: LoadedModel, sample: list[tuple[str, bytes]], says: str
):
    write_tar(tmp_path / "train.tar", sample)

    with pytest.raises(DataError, match=says):
        train_labels(tmp_path, model)


def test_other_tasks_do_not_read_tars(tmp_path: Path, tmp_path_factory):
    bert = load_model(tiny.bert(tmp_path_factory.mktemp("bert")), Task.text_classification)
    image_shards.image_tars(tmp_path, samples=2, shards=1)

    with pytest.raises(DataError, match="WebDataset shards are read for image classification"):
        load_bundle(tmp_path, DataRef(uri="s3://data/x/", task="text-classification"), bert, seed=0)
