"""From a data folder to a bundle: hub layouts, arrays, texts, subsets."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from schemas.refs import DataRef
from schemas.task import Task
from tests import tiny
from workers.data.load import load_bundle, require_one_batch
from workers.errors import DataError
from workers.models.load import load_model

IMAGES = DataRef(uri="s3://data/images/")
TEXTS = DataRef(uri="s3://data/texts/", task="text-classification")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny.resnet(tmp_path_factory.mktemp("resnet")), Task.image_classification)


@pytest.fixture(scope="module")
def color_model(tmp_path_factory):
    folder = tiny.torchvision_folder(tmp_path_factory.mktemp("squeeze"), side=32)
    return load_model(folder, Task.image_classification)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return load_model(tiny.bert(tmp_path_factory.mktemp("bert")), Task.text_classification)


def test_png_images_come_back_pixel_by_pixel(tmp_path, model):
    pixels, labels = tiny.images(256, seed=1)

    bundle = load_bundle(tiny.image_parquet(tmp_path), IMAGES, model, seed=0)

    assert bundle.train.inputs["pixel_values"].dtype == torch.uint8
    assert torch.equal(bundle.train.inputs["pixel_values"], torch.from_numpy(pixels)[:, None])
    assert bundle.train.labels.tolist() == labels.tolist()
    assert (len(bundle.train), len(bundle.validation)) == (256, 128)


def test_npz_and_parquet_give_the_same_bundle(tmp_path, model):
    parquet = load_bundle(tiny.image_parquet(tmp_path / "a"), IMAGES, model, seed=0)
    npz = load_bundle(tiny.image_npz(tmp_path / "b"), IMAGES, model, seed=0)

    assert torch.equal(parquet.train.inputs["pixel_values"], npz.train.inputs["pixel_values"])
    assert torch.equal(parquet.validation.labels, npz.validation.labels)


def test_a_binary_column_holds_images_too(tmp_path, model):
    folder = tiny.image_parquet(tmp_path)
    pixels, labels = tiny.images(8)
    cells = [tiny.png(image) for image in pixels]
    tiny.write_parquet(folder / "train.parquet", picture=cells, target=labels)
    tiny.write_parquet(folder / "validation.parquet", picture=cells, target=labels)
    spec = DataRef(uri="s3://data/images/", input_column="picture", label_column="target")

    bundle = load_bundle(folder, spec, model, seed=0)

    assert torch.equal(bundle.train.inputs["pixel_values"][:, 0], torch.from_numpy(pixels))


@pytest.mark.parametrize("pattern", ["{}-0000{}-of-00002.parquet", "data/{}-0000{}-of-00002.parquet"])
def test_shards_are_one_split_in_the_order_of_their_names(tmp_path, model, pattern):
    pixels, labels = tiny.images(10)
    cells = [tiny.png(image) for image in pixels]
    for split in ("train", "validation"):
        for number in (1, 0):
            rows = slice(0, 4) if number == 0 else slice(4, None)
            path = tmp_path / pattern.format(split, number)
            tiny.write_parquet(path, image=cells[rows], label=labels[rows])

    bundle = load_bundle(tmp_path, IMAGES, model, seed=0)

    assert torch.equal(bundle.train.inputs["pixel_values"][:, 0], torch.from_numpy(pixels))
    assert bundle.train.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("make", [tiny.image_parquet, tiny.image_npz])
def test_draws_the_same_subset_with_the_same_seed(tmp_path, model, make):
    folder = make(tmp_path)
    spec = DataRef(uri="s3://data/images/", max_train_samples=20)

    first, again, other = (load_bundle(folder, spec, model, seed=seed).train for seed in (1, 1, 2))

    everything = load_bundle(folder, IMAGES, model, seed=1).train
    assert len(first) == 20
    assert torch.equal(first.inputs["pixel_values"], again.inputs["pixel_values"])
    assert not torch.equal(first.inputs["pixel_values"], other.inputs["pixel_values"])
    for image, label in zip(first.inputs["pixel_values"], first.labels, strict=True):
        row = int((everything.inputs["pixel_values"] == image).flatten(1).all(dim=1).nonzero()[0])
        assert everything.labels[row] == label


def test_a_subset_never_touches_validation(tmp_path, model):
    spec = DataRef(uri="s3://data/images/", max_train_samples=20)

    bundle = load_bundle(tiny.image_npz(tmp_path), spec, model, seed=0)

    assert len(bundle.validation) == 128


def test_images_are_resized_to_what_the_model_states(tmp_path, model):
    folder = tiny.image_parquet(tmp_path, train=4, validation=4, side=24)
    first = Image.fromarray(tiny.images(4, seed=1, side=24)[0][0])

    bundle = load_bundle(folder, IMAGES, model, seed=0)

    expected = np.asarray(first.resize((tiny.SIDE, tiny.SIDE), Image.Resampling.BILINEAR))
    assert np.array_equal(bundle.train.inputs["pixel_values"][0, 0].numpy(), expected)


def test_arrays_are_resized_almost_as_images_are(tmp_path, model):
    parquet = load_bundle(tiny.image_parquet(tmp_path / "a", side=24), IMAGES, model, seed=0)
    npz = load_bundle(tiny.image_npz(tmp_path / "b", side=24), IMAGES, model, seed=0)

    images, arrays = (bundle.train.inputs["pixel_values"].int() for bundle in (parquet, npz))
    assert images.shape == arrays.shape == (256, 1, tiny.SIDE, tiny.SIDE)
    assert (images - arrays).abs().max() <= 1


@pytest.mark.parametrize("make", [tiny.image_parquet, tiny.image_npz])
def test_gray_images_become_three_channels_for_a_color_model(tmp_path, color_model, make):
    bundle = load_bundle(make(tmp_path), IMAGES, color_model, seed=0)

    pixels = bundle.train.inputs["pixel_values"]
    assert pixels.shape == (256, 3, 32, 32)
    assert torch.equal(pixels[:, 0], pixels[:, 2])


def test_color_arrays_have_their_channels_last(tmp_path, color_model):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", image=pixels, label=np.zeros(8, np.int64))

    bundle = load_bundle(tmp_path, IMAGES, color_model, seed=0)

    assert torch.equal(bundle.train.inputs["pixel_values"], torch.from_numpy(pixels).permute(0, 3, 1, 2))


def test_normalizes_as_the_preprocessor_says(tmp_path):
    folder = tiny.resnet(tmp_path / "model")
    tiny.preprocessor(folder, 1, image_mean=[0.25], image_std=[0.125])
    model = load_model(folder, Task.image_classification)
    bundle = load_bundle(tiny.image_npz(tmp_path / "data"), IMAGES, model, seed=0)

    inputs, _ = next(bundle.batches(bundle.train, 8, device=model.device))

    expected = (bundle.train.inputs["pixel_values"][:8].float() / 255 - 0.25) / 0.125
    torch.testing.assert_close(inputs["pixel_values"], expected)


def test_float_arrays_are_taken_as_already_normalized(tmp_path, model):
    pixels = np.random.default_rng(0).normal(size=(8, tiny.SIDE, tiny.SIDE)).astype(np.float32)
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", image=pixels, label=np.zeros(8, np.int64))

    bundle = load_bundle(tmp_path, IMAGES, model, seed=0)

    inputs, _ = next(bundle.batches(bundle.train, 8, device=model.device))
    assert torch.equal(inputs["pixel_values"][:, 0], torch.from_numpy(pixels))


def test_texts_are_tokenized_as_the_tokenizer_would(tmp_path, bert):
    lines, _ = tiny.texts(256, seed=1)

    bundle = load_bundle(tiny.text_parquet(tmp_path), TEXTS, bert, seed=0)

    expected = AutoTokenizer.from_pretrained(bert.folder)(lines, padding=True, return_tensors="pt")
    assert torch.equal(bundle.train.inputs["input_ids"], expected["input_ids"])
    assert torch.equal(bundle.train.inputs["attention_mask"], expected["attention_mask"])


def test_long_texts_are_cut_at_max_length_and_at_the_positions_of_the_model(tmp_path, bert):
    tiny.text_parquet(tmp_path)
    tiny.write_parquet(tmp_path / "train.parquet", text=["film1 " * 500], label=[0])
    short = DataRef(uri="s3://data/texts/", task="text-classification", max_length=8)

    to_spec = load_bundle(tmp_path, short, bert, seed=0).train.inputs["input_ids"]
    to_model = load_bundle(tmp_path, TEXTS, bert, seed=0).train.inputs["input_ids"]

    assert (to_spec.shape, to_model.shape) == ((1, 8), (1, 32))


def test_an_empty_text_is_a_text(tmp_path, bert):
    tiny.text_parquet(tmp_path)
    tiny.write_parquet(tmp_path / "train.parquet", text=["", "film1"], label=[0, 1])

    bundle = load_bundle(tmp_path, TEXTS, bert, seed=0)

    assert bundle.train.inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_token_arrays_need_no_mask(tmp_path, bert):
    ids = np.arange(12, dtype=np.int32).reshape(3, 4)
    np.savez(tmp_path / "train.npz", input_ids=ids, label=np.zeros(3, np.int8))
    np.savez(tmp_path / "validation.npz", input_ids=ids, attention_mask=ids > 2, label=np.zeros(3, np.int8))

    bundle = load_bundle(tmp_path, TEXTS, bert, seed=0)

    assert bundle.train.inputs["input_ids"].dtype == torch.int64
    assert bundle.train.inputs["attention_mask"].min() == 1
    assert bundle.validation.inputs["attention_mask"][0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("layout", ["parquet", "npz"])
def test_names_of_classes_become_numbers_by_the_config(tmp_path, layout):
    folder = tiny.resnet(tmp_path / "model")
    names = ["top", "shoe", "bag", "coat"]
    tiny.edit_json(folder / "config.json", label2id={name: number for number, name in enumerate(names)})
    model = load_model(folder, Task.image_classification)
    pixels, _ = tiny.images(3)
    for split in ("train", "validation"):
        if layout == "npz":
            np.savez(tmp_path / f"{split}.npz", image=pixels, label=["bag", "top", "coat"])
        else:
            cells = [tiny.png(image) for image in pixels]
            tiny.write_parquet(tmp_path / f"{split}.parquet", image=cells, label=["bag", "top", "coat"])

    bundle = load_bundle(tmp_path, IMAGES, model, seed=0)

    assert bundle.train.labels.tolist() == [2, 0, 3]


def test_a_train_split_smaller_than_one_batch_is_refused(tmp_path, model):
    bundle = load_bundle(tiny.image_npz(tmp_path, train=10), IMAGES, model, seed=0)

    require_one_batch(bundle, 10)
    with pytest.raises(DataError, match="10 samples, fewer than one batch of 11"):
        require_one_batch(bundle, 11)


def test_reads_the_demo_data_with_the_demo_model(tmp_path):
    demo = tiny.DEMO
    shutil.copytree(demo / "data", tmp_path / "data")
    model = load_model(demo / "model", Task.image_classification)
    spec = DataRef(uri="s3://data/fashion-mnist/", max_train_samples=100)

    bundle = load_bundle(tmp_path / "data", spec, model, seed=0)

    right = sum(
        int((model.logits(inputs).argmax(1) == labels).sum())
        for inputs, labels in bundle.batches(bundle.validation, 500, device=model.device)
    )
    assert len(bundle.validation) == 2000
    assert right / 2000 > 0.9
    assert json.loads((demo / "model" / "config.json").read_text())["label2id"]["Bag"] == 8
