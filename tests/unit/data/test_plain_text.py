"""Text files, in pieces and as the stream of a language model."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.refs import DataRef
from tests.language import END, ids, llama
from workers.data.load import load_bundle
from workers.data.plain_text import pieces
from workers.errors import DataError

SPEC = DataRef.model_validate({"uri": "s3://data/tales/", "task": "causal-lm", "max_length": 4})


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), max_size=40), max_size=5),
    st.integers(0, 3),
)
def test_the_pieces_together_are_the_file(tmp_path_factory, lines: list[str], long: int):
    path = tmp_path_factory.mktemp("text") / "train.txt"
    text = "\n".join([*lines, "film0 " * 12_000 * long, *lines])
    path.write_bytes(text.encode())

    found = list(pieces(path))

    assert "".join(found) == text
    assert all(len(piece) <= 2 * 65_536 for piece in found)
    assert all(piece.endswith("\n") or len(piece) >= 65_536 for piece in found[:-1])


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path):
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbffilm0")

    assert list(pieces(tmp_path / "train.txt")) == ["film0"]


def test_files_are_one_stream_in_the_order_of_their_names(tmp_path: Path):
    model = llama(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    (data / "train-00000-of-00002.txt").write_text("film0 film1\nfilm2\n")
    (data / "train-00001-of-00002.txt").write_text("film3 film4 sport0")
    (data / "validation.txt").write_text("film0 film1 film2 film3")

    bundle = load_bundle(data, SPEC, model, seed=0)

    stream = ids(f"film0 film1 film2 {END} film3 film4 sport0 {END}")
    assert bundle.train.inputs["input_ids"].flatten().tolist() == stream
    assert bundle.validation.inputs["input_ids"].tolist() == [ids("film0 film1 film2 film3")]


def test_a_shard_that_is_not_there_is_missed(tmp_path: Path):
    model = llama(tmp_path / "model")
    (tmp_path / "train-00000-of-00002.txt").write_text("film0")

    with pytest.raises(DataError, match="not complete"):
        load_bundle(tmp_path, SPEC, model, seed=0)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path):
    model = llama(tmp_path / "model")
    (tmp_path / "train.txt").write_bytes(b"film0 \xe4\xf6")
    (tmp_path / "validation.txt").write_text("film0 film1 film2 film3")

    with pytest.raises(DataError, match=r"train\.txt is not UTF-8"):
        load_bundle(tmp_path, SPEC, model, seed=0)
