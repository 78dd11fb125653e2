"""Every way in which a data folder can be wrong ends in a DataError that names the cause and the remedy."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest

from schemas.refs import DataRef
from schemas.task import Task
from tests import tiny
from workers.data.load import load_bundle
from workers.errors import DataError, ModelError
from workers.models.load import load_model

IMAGES = DataRef(uri="s3://data/images/")
TEXTS = DataRef(uri="s3://data/texts/", task="text-classification")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny.resnet(tmp_path_factory.mktemp("resnet")), Task.image_classification)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return load_model(tiny.bert(tmp_path_factory.mktemp("bert")), Task.text_classification)


def refusal(folder, model, spec=IMAGES, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_bundle(folder, spec, model, seed=0, **options)
    return str(caught.value)


def parquet_with(folder, **columns):
    """A good folder whose train split has these columns instead."""
    tiny.image_parquet(folder, train=4, validation=4)
    cells = [tiny.png(image) for image in tiny.images(4)[0]]
    tiny.write_parquet(folder / "train.parquet", **{"image": cells, "label": [0, 1, 2, 3], **columns})
    return folder


def npz_with(folder, **arrays):
    """A good folder whose train split has these arrays instead."""
    tiny.image_npz(folder, train=4, validation=4)
    pixels, labels = tiny.images(4)
    np.savez(folder / "train.npz", **{"image": pixels, "label": labels, **arrays})
    return folder


def test_says_which_files_there_are_when_a_split_is_missing(tmp_path, model):
    (tiny.image_parquet(tmp_path) / "validation.parquet").rename(tmp_path / "valid.parquet")

    message = refusal(tmp_path, model)

    assert "no files of the split 'validation' (the folder holds train.parquet, valid.parquet)" in message


def test_refuses_a_split_that_is_there_twice(tmp_path, model):
    tiny.image_parquet(tmp_path)
    tiny.image_npz(tmp_path)

    assert "more than once (train.npz, train.parquet)" in refusal(tmp_path, model)


def test_refuses_a_split_that_lacks_a_shard(tmp_path, model):
    (tiny.image_parquet(tmp_path) / "train.parquet").rename(tmp_path / "train-00000-of-00003.parquet")

    message = refusal(tmp_path, model)

    assert "1 files are there (train-00000-of-00003.parquet) and their names say 3" in message


def test_names_the_columns_that_there_are(tmp_path, model, bert):
    parquet, npz = tiny.image_parquet(tmp_path / "p"), tiny.image_npz(tmp_path / "n")
    spec = DataRef(uri="s3://data/images/", label_column="target")

    assert "train.parquet has no column 'target' (it has image, label)" in refusal(parquet, model, spec)
    assert "train.npz has no array 'target' (it has image, label)" in refusal(npz, model, spec)
    assert "no column 'text'" in refusal(parquet, bert, TEXTS)


def test_refuses_an_empty_split(tmp_path, model):
    parquet = tiny.image_parquet(tmp_path / "p", validation=0)
    npz = npz_with(tmp_path / "n", image=np.zeros((0, 16, 16), np.uint8), label=np.zeros(0, int))

    assert "the split 'validation' is empty" in refusal(parquet, model)
    assert "the split 'train' is empty" in refusal(npz, model)


@pytest.mark.parametrize("label", [4, -1])
def test_names_the_row_of_a_label_outside_the_head(tmp_path, model, label):
    parquet = parquet_with(tmp_path / "p", label=[0, 1, label, 9])
    npz = npz_with(tmp_path / "n", label=np.array([0, 1, label, 9]))

    for folder in (parquet, npz):
        message = refusal(folder, model)
        assert f"row 2 is {label}, but the model's head has the 4 classes 0 to 3" in message


def test_refuses_names_of_classes_that_the_config_does_not_map(tmp_path, model):
    message = refusal(parquet_with(tmp_path, label=["LABEL_1", "shoe", "LABEL_0", "x"]), model)

    assert "row 1 is 'shoe'" in message
    assert "knows LABEL_0, LABEL_1, LABEL_2, LABEL_3" in message


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, None, 1, 2], "row 1 is None: every sample needs a label"),
        ([0.0, 1.0, 2.0, 3.0], "holds float64 values: give class numbers as integers"),
        ([[0], [1], [2], [3]], "has the shape [4, 1]"),
    ],
)
def test_refuses_labels_that_are_no_class_numbers(tmp_path, model, labels, told):
    assert told in refusal(parquet_with(tmp_path, label=labels), model)


def test_names_the_row_of_an_image_that_cannot_be_decoded(tmp_path, model):
    good = tiny.png(tiny.images(1)[0][0])

    for bad in (b"not an image", good[:60], b"GIF89a" + b"\0" * 20):
        message = refusal(parquet_with(tmp_path, image=[good, good, bad, good]), model)
        assert "column 'image' of the split 'train': row 2 is not a readable PNG or JPEG image" in message


@pytest.mark.parametrize("cell", [None, b""])
def test_names_the_row_of_an_image_that_is_missing(tmp_path, model, cell):
    good = tiny.png(tiny.images(1)[0][0])

    assert "row 1 holds no image" in refusal(parquet_with(tmp_path, image=[good, cell, good, good]), model)


def test_refuses_images_that_are_only_paths(tmp_path, model):
    cells = [{"bytes": None, "path": "/etc/passwd"}] * 4

    assert "row 0 holds no image" in refusal(parquet_with(tmp_path, image=cells), model)


def test_refuses_a_picture_that_would_unpack_to_gigabytes(tmp_path, model):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (8_000, 100_000):  # below and above the bound at which Pillow itself refuses
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

        message = refusal(parquet_with(tmp_path, image=[bomb] * 4), model)

        assert "row 0" in message
        assert "pixels" in message


def test_refuses_sixteen_bit_images(tmp_path, model):
    deep = tiny.png(np.full((16, 16), 40_000, np.uint16))

    assert "row 0 has more than 8 bits a channel" in refusal(parquet_with(tmp_path, image=[deep] * 4), model)


def test_refuses_images_of_several_sizes_where_the_model_states_none(tmp_path):
    folder = tiny.resnet(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    model = load_model(folder, Task.image_classification)
    cells = [tiny.png(tiny.images(1, side=side)[0][0]) for side in (16, 16, 20, 16)]

    message = refusal(parquet_with(tmp_path / "data", image=cells), model)

    assert "row 2 is 20 x 20, the first image is 16 x 16, and the model states no size" in message


@pytest.mark.parametrize("make", [tiny.image_parquet, tiny.image_npz])
def test_refuses_a_data_set_above_the_memory_bound(tmp_path, model, make):
    folder = make(tmp_path, train=256, validation=128)
    both = (256 + 128) * tiny.SIDE**2 + (256 + 128) * 8

    assert "set data.max_train_samples" in refusal(folder, model, max_bytes=(256 + 64) * tiny.SIDE**2)
    load_bundle(folder, IMAGES, model, seed=0, max_bytes=both)


def test_refuses_more_texts_than_the_memory_bound(tmp_path, bert):
    folder = tiny.text_parquet(tmp_path)

    assert "256 texts of 11 tokens" in refusal(folder, bert, TEXTS, max_bytes=256 * 11 * 16 - 1)


def test_believes_no_shape_in_an_npz_header(tmp_path, model):
    tiny.image_npz(tmp_path)
    buffer = io.BytesIO()
    stated = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)}
    np.lib.format.write_array_header_1_0(buffer, stated)
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        archive.writestr("image.npy", buffer.getvalue())
        archive.writestr("label.npy", buffer.getvalue())

    assert "would take" in refusal(tmp_path, model)


def test_refuses_pickled_arrays_without_reading_them(tmp_path, model):
    folder = npz_with(tmp_path, label=np.array([0, 1, "x", None], dtype=object))

    message = refusal(folder, model)

    assert "the array 'label' is pickled" in message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip"])
def test_refuses_an_npz_that_is_none(tmp_path, model, content):
    (tiny.image_npz(tmp_path) / "train.npz").write_bytes(content)

    assert "train.npz is not a valid .npz file" in refusal(tmp_path, model)


def test_refuses_a_parquet_file_that_is_cut_short(tmp_path, model):
    path = tiny.image_parquet(tmp_path) / "train.parquet"
    path.write_bytes(path.read_bytes()[:-100])

    assert "train.parquet is not a valid parquet file" in refusal(tmp_path, model)


def test_refuses_arrays_of_different_lengths(tmp_path, model):
    assert "(image 4, label 3)" in refusal(npz_with(tmp_path, label=np.zeros(3, int)), model)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((4, 16), np.uint8), "has the shape [4, 16]"),
        (np.zeros((4, 16, 16), np.int64), "holds int64 values"),
        (np.zeros((4, 3, 16, 16), np.uint8), "has 16 channels, the model takes 1"),
        (np.zeros((4, 20, 20), np.float32), "floats are not resized"),
    ],
)
def test_refuses_arrays_that_are_no_images_for_this_model(tmp_path, model, array, told):
    assert told in refusal(npz_with(tmp_path, image=array), model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_names_the_row_of_a_value_that_is_not_finite(tmp_path, model, value):
    pixels = np.zeros((4, 16, 16), np.float32)
    pixels[2, 3, 3] = value

    assert "row 2 holds NaN or infinity" in refusal(npz_with(tmp_path, image=pixels), model)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"input_ids": np.full((2, 4), 99)}, "row 0 holds token 99, the model has the tokens 0 to 33"),
        ({"input_ids": np.array([[1, 2], [3, -1]])}, "row 1 holds token -1"),
        ({"input_ids": np.zeros((2, 40), int)}, "texts have 40 tokens, the model has 32 positions"),
        ({"input_ids": np.zeros((2, 4))}, "'input_ids' is float64 [2, 4]"),
        (
            {"input_ids": np.zeros((2, 4), int), "attention_mask": np.ones((2, 5), int)},
            "'attention_mask' is int64 [2, 5]",
        ),
    ],
)
def test_refuses_tokens_that_the_model_does_not_have(tmp_path, bert, arrays, told):
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", label=np.zeros(2, int), **arrays)

    assert told in refusal(tmp_path, bert, TEXTS)


def test_names_the_row_of_a_text_that_is_none(tmp_path, bert):
    tiny.text_parquet(tmp_path)
    tiny.write_parquet(tmp_path / "train.parquet", text=["film1", None], label=[0, 1])

    assert "row 1 holds NoneType where a text should be" in refusal(tmp_path, bert, TEXTS)


def test_a_text_model_without_its_tokenizer_is_refused(tmp_path):
    folder = tiny.bert(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    model = load_model(folder, Task.text_classification)

    with pytest.raises(ModelError, match="has no tokenizer"):
        load_bundle(tiny.text_parquet(tmp_path / "data"), TEXTS, model, seed=0)


def test_a_tokenizer_that_asks_for_code_is_refused(tmp_path):
    folder = tiny.bert(tmp_path / "model")
    tiny.edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    model = load_model(folder, Task.text_classification)

    with pytest.raises(ModelError, match="'auto_map' asks for Python code"):
        load_bundle(tiny.text_parquet(tmp_path / "data"), TEXTS, model, seed=0)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path):
    folder = tiny.bert(tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    model = load_model(folder, Task.text_classification)

    with pytest.raises(ModelError, match="set 'pad_token'"):
        load_bundle(tiny.text_parquet(tmp_path / "data"), TEXTS, model, seed=0)
