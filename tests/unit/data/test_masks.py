"""Images with masks: pairs stay pairs, numbers stay numbers, and a bad row is named."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.refs import DataRef
from schemas.task import Task
from tests import scenes, tiny
from workers.data.load import load_bundle
from workers.errors import DataError
from workers.loss import IGNORED
from workers.models.load import load_model
from workers.models.loaded import LoadedModel

SPEC = DataRef(uri="s3://data/masks/", task="segmentation")
SIDE = scenes.FILE_SIDE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(scenes.segformer(tmp_path_factory.mktemp("segformer")), Task.segmentation)


@pytest.fixture(scope="module")
def reducing(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Its preprocessor takes 0 for no class."""
    folder = scenes.segformer(tmp_path_factory.mktemp("reducing"), do_reduce_labels=True)
    return load_model(folder, Task.segmentation)


def written(folder: Path, masks: list[bytes] | np.ndarray, images: np.ndarray | None = None) -> Path:
    """A data folder whose two splits have these masks."""
    pixels = scenes.pictures(len(masks))[0] if images is None else images
    stored = scenes.cells(masks) if isinstance(masks, np.ndarray) else [{"bytes": one} for one in masks]
    for split in ("train", "validation"):
        tiny.write_parquet(folder / f"{split}.parquet", image=scenes.cells(pixels), label=stored)
    return folder


def file_of(image: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def ground() -> np.ndarray:
    return np.zeros((2, SIDE, SIDE), np.uint8)


def test_a_mask_is_resized_with_its_image_and_keeps_whole_numbers(tmp_path: Path, model: LoadedModel):
    masks = ground()
    masks[1, : SIDE // 2, : SIDE // 2] = 2

    split = load_bundle(written(tmp_path, masks), SPEC, model, seed=0).validation

    half = scenes.SIDE // 2
    assert split.inputs["pixel_values"].shape == (2, 3, scenes.SIDE, scenes.SIDE)
    assert split.labels.dtype == torch.int16
    assert split.labels[0].eq(0).all()
    assert split.labels[1, :half, :half].eq(2).all()
    assert int((split.labels == 2).sum()) == half * half


def test_npz_and_parquet_give_the_same_masks(tmp_path: Path, model: LoadedModel):
    from_files = load_bundle(scenes.mask_parquet(tmp_path / "parquet"), SPEC, model, seed=0)
    from_arrays = load_bundle(scenes.mask_npz(tmp_path / "npz"), SPEC, model, seed=0)

    assert torch.equal(from_files.train.labels, from_arrays.train.labels)
    assert from_files.train.labels.unique().tolist() == [0, 1, 2]


def test_a_model_without_a_size_takes_images_and_masks_as_they_are(tmp_path: Path):
    folder = scenes.segformer(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    tiny.edit_json(folder / "config.json", image_size=None)
    images, masks, _ = scenes.pictures(2)

    split = load_bundle(
        written(tmp_path / "data", masks, images), SPEC, load_model(folder, Task.segmentation), seed=0
    ).validation

    assert torch.equal(split.labels, torch.from_numpy(masks).short())
    assert torch.equal(split.inputs["pixel_values"], torch.from_numpy(images).permute(0, 3, 1, 2))


def test_255_is_no_class(tmp_path: Path, model: LoadedModel):
    masks = ground()
    masks[0] = 255

    labels = load_bundle(written(tmp_path, masks), SPEC, model, seed=0).train.labels

    assert labels[0].eq(IGNORED).all()
    assert labels[1].eq(0).all()


def test_a_preprocessor_that_reduces_labels_counts_from_one(tmp_path: Path, reducing: LoadedModel):
    masks = ground()
    masks[0, 0], masks[1] = 255, 3

    labels = load_bundle(written(tmp_path, masks), SPEC, reducing, seed=0).train.labels

    assert labels[0].eq(IGNORED).all()
    assert labels[1].eq(2).all()


def test_a_palette_gives_places_not_colours(tmp_path: Path, model: LoadedModel):
    mask = Image.fromarray(np.full((SIDE, SIDE), 2, np.uint8), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])

    labels = load_bundle(written(tmp_path, [file_of(mask)] * 2), SPEC, model, seed=0).train.labels

    assert labels.eq(2).all()


def test_a_subset_keeps_images_and_masks_together(tmp_path: Path, model: LoadedModel):
    whole = load_bundle(scenes.mask_parquet(tmp_path), SPEC, model, seed=0).train
    some = load_bundle(tmp_path, SPEC.model_copy(update={"max_train_samples": 3}), model, seed=0).train

    rows = [
        next(row for row in range(len(whole)) if torch.equal(whole.inputs["pixel_values"][row], image))
        for image in some.inputs["pixel_values"]
    ]
    assert rows == sorted(rows)
    assert torch.equal(some.labels, whole.labels[rows])


def too_high() -> np.ndarray:
    masks = ground()
    masks[1, 3, 4] = 7
    return masks


def coloured() -> list[bytes]:
    return [file_of(Image.new("L", (SIDE, SIDE))), file_of(Image.new("RGB", (SIDE, SIDE)))]


def small() -> list[bytes]:
    return [file_of(Image.new("L", (SIDE, SIDE))), file_of(Image.new("L", (SIDE, SIDE - 1)))]


def photographed() -> list[bytes]:
    return [file_of(Image.new("L", (SIDE, SIDE))), file_of(Image.new("L", (SIDE, SIDE)), "JPEG")]


def missing() -> list[bytes]:
    return [file_of(Image.new("L", (SIDE, SIDE))), b""]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (too_high, r"row 1 has a pixel of class 7, but the model's head has the 3 classes 0 to 2"),
        (coloured, r"row 1 is an image of the mode RGB: give masks of one channel"),
        (small, r"row 1 is 47 x 48, its image 48 x 48"),
        (photographed, r"row 1 is not a readable mask"),
        (missing, r"row 1 is not a readable mask"),
        (lambda: np.full((2, SIDE, SIDE), 255, np.uint8), r"no pixel has a class"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_bad_mask_is_named_by_its_row(tmp_path: Path, model: LoadedModel, masks: Any, message: str):
    with pytest.raises(DataError, match=message):
        load_bundle(written(tmp_path, masks()), SPEC, model, seed=0)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros((2, SIDE, SIDE), np.float32), r"'label' is float32"),
        (np.zeros((2, SIDE), np.uint8), r"give a class number for each pixel"),
        (np.zeros((2, SIDE, SIDE - 1), np.uint8), r"give a class number for each pixel"),
        (np.full((2, SIDE, SIDE), 70_000, np.int64), r"row 0 has a pixel of class 70000"),
        (np.full((2, SIDE, SIDE), -4, np.int64), r"row 0 has a pixel of class -4"),
    ],
    ids=["floats", "no masks", "narrow", "beyond 16 bits", "negative"],
)
def test_a_bad_array_of_masks_is_refused(tmp_path: Path, model: LoadedModel, label: np.ndarray, message: str):
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", image=scenes.pictures(2)[0], label=label)

    with pytest.raises(DataError, match=message):
        load_bundle(tmp_path, SPEC, model, seed=0)


def test_masks_count_in_the_memory_that_is_allowed(tmp_path: Path, model: LoadedModel):
    folder = scenes.mask_parquet(tmp_path)
    images, masks = 12 * 3 * scenes.SIDE**2, 12 * 2 * scenes.SIDE**2

    assert load_bundle(folder, SPEC, model, seed=0, max_bytes=images + masks)
    with pytest.raises(DataError, match=r"4 masks would take"):
        load_bundle(folder, SPEC, model, seed=0, max_bytes=images + masks - 1)
