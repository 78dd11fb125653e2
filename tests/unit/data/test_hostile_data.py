"""Data files that were made to break a reader are refused like any other bad file."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests import tiny
from workers.data.class_names import label2id_of
from workers.data.files import SplitFiles
from workers.data.memory import Allowance
from workers.data.npz import read_arrays
from workers.data.parquet import open_table
from workers.data.tar import members
from workers.data.tokenizer import open_tokenizer
from workers.errors import DataError, ModelError
from workers.transfer import DATA_FILES, MODEL_FILES, wanted


def npz_refusal(path: Path, member: bytes, packing: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("x.npy", member)
    return refusal_of_arrays(path)


def refusal_of_arrays(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_arrays(path, required=["x"], optional=[], allowance=Allowance(2**20))
    return str(caught.value)


def npy(header: str) -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4L",
        "[" * 9000,
        "{'descr': [('a'], 'shape': ()}",
    ],
    ids=["below zero", "cut off", "nested", "unbalanced"],
)
def test_a_header_of_an_array_that_is_no_header(tmp_path, header):
    assert "x.npz" in npz_refusal(tmp_path / "x.npz", npy(header))


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2], ids=str)
def test_damage_in_packed_bytes(tmp_path, packing):
    path = tmp_path / "x.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.arange(1000.0))
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    data = bytearray(path.read_bytes())
    data[40:60] = b"\xff" * 20
    path.write_bytes(data)

    assert "x.npz" in refusal_of_arrays(path)


def test_an_array_that_is_small_only_while_it_is_packed(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2**21, np.uint8))

    assert "would take 2 MiB" in npz_refusal(tmp_path / "x.npz", buffer.getvalue(), zipfile.ZIP_DEFLATED)


def test_text_that_is_no_utf8_in_a_parquet_file(tmp_path):
    path = tmp_path / "train.parquet"
    texts = pyarrow.array([b"ok", b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    table = open_table(SplitFiles("train", (path,)), ["text"])

    with pytest.raises(DataError, match=r"train.parquet is not a valid parquet file"):
        list(table.column("text"))


def test_a_long_value_of_a_dictionary_is_unpacked_few_rows_at_a_time(tmp_path):
    path = tmp_path / "train.parquet"
    texts = pyarrow.DictionaryArray.from_arrays(np.zeros(70, np.int32), ["a" * 2**23])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    assert path.stat().st_size < 2**20

    chunks = list(open_table(SplitFiles("train", (path,)), ["text"]).column("text", np.array([0])))

    assert len(chunks) > 1
    assert [row for chunk in chunks for row, _ in chunk] == [0]


def test_a_column_whose_statistics_do_not_fit_does_not_end_the_process(tmp_path):
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"x": [[1, 2], [3]]}), path)
    data = path.read_bytes()
    assert b"\x35\x02\x18\x01x" in data  # in the footer: x, a list that may be missing
    path.write_bytes(data.replace(b"\x35\x02\x18\x01x", b"\x35\x36\x18\x01x"))

    with pytest.raises(DataError, match=r"train.parquet is not a valid parquet file"):
        list(open_table(SplitFiles("train", (path,)), ["x"]).column("x"))


def tar_refusal(path: Path, info: tarfile.TarInfo, layout: int = tarfile.PAX_FORMAT) -> str:
    with tarfile.open(path, "w", format=layout) as archive:
        archive.addfile(info)
    with pytest.raises(DataError) as caught:
        list(members(path, path.name))
    return str(caught.value)


def test_a_global_header_of_a_tar_that_ends_beyond_any_file(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XGLTYPE, 2**80

    assert "the shard has" in tar_refusal(tmp_path / "x.tar", info, tarfile.GNU_FORMAT)


def test_a_size_of_more_digits_than_python_reads(tmp_path):
    path, info = tmp_path / "x.tar", tarfile.TarInfo("x.png")
    info.pax_headers = {"size": "9" * 5000}
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)

    assert [one.bytes for one in members(path, path.name)] == [0]


def test_numbers_of_classes_that_no_integer_holds_are_left_out(tmp_path):
    tiny.edit_json(
        tiny.bert(tmp_path) / "config.json", label2id={"a": 0, "b": "9" * 5000, "c": 10**30, "d": -1}
    )

    assert label2id_of(tmp_path) == {"a": 0}


@pytest.mark.parametrize("limit", ["many", [1], -1, 0], ids=str)
def test_a_tokenizer_whose_length_is_no_length(tmp_path, limit):
    tiny.edit_json(tiny.bert(tmp_path) / "tokenizer_config.json", model_max_length=limit)

    with pytest.raises(ModelError, match="tokenizer"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ['{"model": {"type": "X"}}', "[" * 10_000, '{"version": "1.0"}', ""])
def test_a_tokenizer_file_that_is_none(tmp_path, text):
    (tiny.bert(tmp_path) / "tokenizer.json").write_text(text)

    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../config.json",
        "/config.json",
        "data//train.parquet",
        "data/../train.parquet",
        "data\\train.parquet",
        "tokenizer\0.json",
        "tokenizer\n.json",
        "tokenizer\u202e.json",
        "tokenizer" + "é" * 100 + ".json",
        "tokenizer.json.part",
        "tokenizer.json.part.json",
        "tokenizer.PKL",
    ],
)
def test_a_key_that_is_no_plain_name_is_not_pulled(name):
    assert not wanted(name, (*MODEL_FILES, *DATA_FILES))


def test_names_in_any_script_are_pulled():
    assert wanted("tokenizer-日本語.json", MODEL_FILES)
