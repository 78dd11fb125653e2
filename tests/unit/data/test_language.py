"""Blocks of tokens: from texts and arrays to what a causal language model learns from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.refs import DataRef
from tests.language import END, POSITIONS, VOCABULARY, ids, llama, text_folder
from tests.tiny import write_parquet
from workers.data.language import next_tokens
from workers.data.load import load_bundle
from workers.errors import DataError, ModelError
from workers.loss import IGNORED
from workers.models.loaded import LoadedModel

TALES = ["sport0 money0 music0", "film0 film1"]


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return llama(tmp_path / "model")


def spec(**fields: object) -> DataRef:
    return DataRef.model_validate({"uri": "s3://data/tales/", "task": "causal-lm", "max_length": 4, **fields})


def test_texts_become_one_stream_with_an_end_after_each_and_the_rest_goes(tmp_path, model):
    folder = text_folder(tmp_path / "data", train=[*TALES, "film2 film3 film4"], validation=TALES)

    bundle = load_bundle(folder, spec(input_column="text"), model, seed=0)

    stream = ids(f"sport0 money0 music0 {END} film0 film1 {END} film2 film3 film4 {END}")
    assert bundle.train.inputs["input_ids"].tolist() == [stream[:4], stream[4:8]]
    assert bundle.validation.inputs["input_ids"].tolist() == [stream[:4]]


def test_a_tokenizer_without_an_end_leaves_none_between_texts(tmp_path, model):
    folder = text_folder(tmp_path / "data", train=TALES, validation=TALES)
    settings = model.folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace(f'"eos_token": "{END}"', '"eos_token": null'))

    bundle = load_bundle(folder, spec(input_column="text"), model, seed=0)

    assert bundle.train.inputs["input_ids"].tolist() == [ids("sport0 money0 music0 film0")]


@given(st.integers(1, 5), st.integers(2, 9))
def test_a_label_is_the_token_that_comes_next(blocks: int, length: int):
    tokens = torch.randint(0, 50, (blocks, length))

    labels = next_tokens(tokens)

    assert torch.equal(labels[:, :-1], tokens[:, 1:])
    assert labels[:, -1].eq(IGNORED).all()


def test_arrays_are_taken_as_the_blocks(tmp_path, model):
    blocks = np.arange(12, dtype=np.uint16).reshape(2, 6)
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", input_ids=blocks)

    bundle = load_bundle(tmp_path, spec(), model, seed=0)

    assert bundle.train.inputs["input_ids"].tolist() == blocks.tolist()
    assert bundle.train.inputs["input_ids"].dtype == torch.int64


def test_the_seed_draws_blocks_and_keeps_their_order(tmp_path, model):
    np.savez(tmp_path / "train.npz", input_ids=np.arange(30).reshape(15, 2))
    np.savez(tmp_path / "validation.npz", input_ids=np.arange(8).reshape(4, 2))

    drawn = [load_bundle(tmp_path, spec(max_train_samples=6), model, seed=seed) for seed in (3, 3, 4)]

    first, again, other = (bundle.train.inputs["input_ids"][:, 0].tolist() for bundle in drawn)
    assert first == again == sorted(first)
    assert first != other
    assert [len(bundle.validation) for bundle in drawn] == [4, 4, 4]


def test_a_split_for_calibration_is_read_where_it_is(tmp_path, model):
    folder = text_folder(tmp_path / "data", train=TALES, validation=TALES, calibration=[TALES[0]])

    bundle = load_bundle(folder, spec(input_column="text"), model, seed=0)

    assert bundle.calibration is not None
    assert bundle.calibration.inputs["input_ids"].tolist() == [ids(f"sport0 money0 music0 {END}")]


def test_blocks_are_no_longer_than_the_model_has_positions(tmp_path, model):
    text = " ".join(["film0"] * 2 * POSITIONS)
    folder = text_folder(tmp_path / "data", train=[text], validation=[text])

    bundle = load_bundle(folder, spec(input_column="text", max_length=100), model, seed=0)

    assert bundle.train.inputs["input_ids"].shape == (2, POSITIONS)


def test_too_little_text_names_the_column_and_the_remedy(tmp_path, model):
    folder = text_folder(tmp_path / "data", train=["film0"], validation=TALES)

    with pytest.raises(DataError, match=r"'text' of the split 'train' has 2 tokens.*lower data\.max_length"):
        load_bundle(folder, spec(input_column="text"), model, seed=0)


def test_a_block_of_one_token_is_refused(tmp_path, model):
    with pytest.raises(DataError, match="one to read and one to predict"):
        load_bundle(tmp_path, spec(max_length=1), model, seed=0)


def test_a_row_without_text_is_named(tmp_path, model):
    folder = text_folder(tmp_path, validation=TALES)
    write_parquet(folder / "train.parquet", text=["film0 film1", None])

    with pytest.raises(DataError, match="row 1 holds NoneType"):
        load_bundle(folder, spec(input_column="text"), model, seed=0)


def test_a_token_that_the_model_does_not_know_is_named(tmp_path, model):
    np.savez(tmp_path / "train.npz", input_ids=np.array([[0, 1], [2, len(VOCABULARY)]]))
    np.savez(tmp_path / "validation.npz", input_ids=np.array([[0, 1]]))

    with pytest.raises(DataError, match=f"row 1 holds token {len(VOCABULARY)}"):
        load_bundle(tmp_path, spec(), model, seed=0)


@pytest.mark.parametrize("blocks", [np.zeros((2, 4), np.float32), np.zeros(4, int), np.zeros((2, 1), int)])
def test_arrays_that_are_no_blocks_are_refused(tmp_path, model, blocks):
    np.savez(tmp_path / "train.npz", input_ids=blocks)
    np.savez(tmp_path / "validation.npz", input_ids=np.array([[0, 1]]))

    with pytest.raises(DataError, match="two tokens or more"):
        load_bundle(tmp_path, spec(), model, seed=0)


def test_text_beyond_the_memory_bound_is_refused_before_it_is_held(tmp_path, model):
    text = " ".join(["film0"] * 1000)
    folder = text_folder(tmp_path / "data", train=[text], validation=[text])

    with pytest.raises(DataError, match="allowed"):
        load_bundle(folder, spec(input_column="text"), model, seed=0, max_bytes=10_000)


def test_a_model_without_a_tokenizer_is_refused(tmp_path, model):
    folder = text_folder(tmp_path / "data", train=TALES, validation=TALES)
    for file in model.folder.glob("tokenizer*"):
        file.unlink()

    with pytest.raises(ModelError, match="no tokenizer"):
        load_bundle(folder, spec(input_column="text"), model, seed=0)
