"""Images with boxes: shares of the image, classes as the model counts them, and bad rows named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from schemas.refs import DataRef
from schemas.task import Task
from tests import scenes, tiny
from workers.data.load import load_bundle
from workers.errors import DataError
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.tasks.detection import NO_OBJECT, Detection

SPEC = DataRef(uri="s3://data/boxes/", task="detection")
WIDTH, HEIGHT = 40, 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = scenes.yolos(tmp_path_factory.mktemp("yolos"))
    names = {"0": "cat", "1": "dog", "2": "cow"}
    label2id = {name: int(number) for number, name in names.items()}
    tiny.edit_json(folder / "config.json", id2label=names, label2id=label2id)
    return load_model(folder, Task.detection)


def written(folder: Path, *objects: Any, features: dict[str, Any] | None = None) -> Path:
    """A data folder whose two splits hold one image of 40 x 20 for each of `objects`."""
    images = scenes.cells(np.zeros((len(objects), HEIGHT, WIDTH, 3), np.uint8))
    table = pyarrow.table({"image": images, "objects": list(objects)})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for split in ("train", "validation"):
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    return folder


def one(box: list[float], category: Any = 1, **more: Any) -> dict[str, Any]:
    return {"bbox": [box], "category": [category], **more}


def read(folder: Path, model: LoadedModel) -> torch.Tensor:
    return load_bundle(folder, SPEC, model, seed=0).train.labels


def test_boxes_become_centre_and_size_as_shares_of_their_image(tmp_path: Path, model: LoadedModel):
    two = {"bbox": [[0.0, 0.0, 40.0, 20.0], [30.0, 5.0, 10.0, 10.0]], "category": [0, 2]}

    bundle = load_bundle(written(tmp_path, one([10.0, 5.0, 20.0, 10.0]), two), SPEC, model, seed=0)

    labels = bundle.train.labels
    assert bundle.train.inputs["pixel_values"].shape == (2, 3, scenes.SIDE, scenes.SIDE)
    assert labels.shape == (2, 2, 5)
    assert labels[0, 0].tolist() == [1, 0.5, 0.5, 0.5, 0.5]
    assert float(labels[0, 1, 0]) == NO_OBJECT
    assert labels[1].tolist() == [[0, 0.5, 0.5, 1, 1], [2, 0.875, 0.5, 0.25, 0.5]]


@pytest.mark.parametrize(
    "cell",
    [
        {"bbox": [[10.0, 5.0, 20.0, 10.0]], "label": [1], "area": [200.0]},
        [{"bbox": [10.0, 5.0, 20.0, 10.0], "category_id": 1, "id": 7}],
        {"bbox": [[10.0, 5.0, 20.0, 10.0]], "category": ["dog"]},
    ],
    ids=["label", "a list of objects", "a name"],
)
def test_the_ways_in_which_the_hub_stores_objects_are_read(tmp_path: Path, model: LoadedModel, cell: Any):
    assert read(written(tmp_path, cell), model)[0].tolist() == [[1, 0.5, 0.5, 0.5, 0.5]]


def test_a_data_set_that_numbers_its_classes_otherwise_is_renumbered_by_name(
    tmp_path: Path, model: LoadedModel
):
    label = {"names": ["cow", "cat"], "_type": "ClassLabel"}
    objects = {"bbox": {"feature": {"dtype": "float32", "_type": "Value"}}, "category": {"feature": label}}

    folder = written(tmp_path, one([10.0, 5.0, 20.0, 10.0], 0), features={"objects": objects})

    assert float(read(folder, model)[0, 0, 0]) == 2


def test_boxes_are_cut_at_the_edges_and_those_without_area_left_out(tmp_path: Path, model: LoadedModel):
    cell = {"bbox": [[-1.0, 0.0, 21.0, 21.0], [5.0, 5.0, 0.0, 4.0]], "category": [1, 2]}

    assert read(written(tmp_path, cell), model)[0].tolist() == [[1, 0.25, 0.5, 0.5, 1]]


def test_a_crowd_is_told_from_an_object(tmp_path: Path, model: LoadedModel):
    assert float(read(written(tmp_path, one([0.0, 0.0, 9.0, 9.0], 2, iscrowd=[1])), model)[0, 0, 0]) == -4


def test_an_image_may_be_without_objects(tmp_path: Path, model: LoadedModel):
    empty: dict[str, Any] = {"bbox": [], "category": []}

    labels = read(written(tmp_path, empty, one([0.0, 0.0, 9.0, 9.0])), model)

    assert labels[:, 0, 0].tolist() == [NO_OBJECT, 1]


BOX = [1.0, 1.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (one(BOX, 3), r"row 1 has an object of class 3, but the model's head has the classes 0 to 2"),
        (one(BOX, -1), r"row 1 has an object of class -1"),
        (
            one([30.0, 5.0, 30.0, 10.0]),
            r"row 1 has the box \[30.0, 5.0, 30.0, 10.0\], which leaves its image",
        ),
        (one([30.0, float("nan"), 30.0, 10.0]), r"row 1 has the box .* give \[x, y, width, height\]"),
        (one([1.0, 2.0, 3.0]), r"row 1 has the box \[1.0, 2.0, 3.0\]"),
        ({"bbox": [BOX, BOX], "category": [1]}, r"row 1 has 2 boxes and 1 classes"),
        ({"bbox": None, "category": [1]}, r"row 1 has no list 'bbox'"),
        (None, r"row 1 holds NoneType"),
        ({"bbox": [BOX] * 1001, "category": [1] * 1001}, r"row 1 has 1001 objects; at most 1000"),
    ],
    ids=["class", "negative", "beyond", "nan", "three", "count", "no boxes", "nothing", "many"],
)
def test_bad_objects_are_named_by_their_row(tmp_path: Path, model: LoadedModel, cell: Any, message: str):
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, one(BOX), cell), model)


def test_an_unknown_name_is_refused(tmp_path: Path, model: LoadedModel):
    with pytest.raises(DataError, match=r"row 0 has an object of class 'horse'"):
        read(written(tmp_path, one(BOX, "horse")), model)


def test_a_split_without_any_object_is_refused(tmp_path: Path, model: LoadedModel):
    folder = written(tmp_path, one([5.0, 5.0, 0.0, 4.0]))

    with pytest.raises(DataError, match=r"no image has an object"):
        read(folder, model)


def test_arrays_are_refused_with_the_remedy(tmp_path: Path, model: LoadedModel):
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", image=np.zeros((1, 4, 4, 3), np.uint8))

    with pytest.raises(DataError, match=r"give train\.parquet"):
        read(tmp_path, model)


class WithBackground(Detection):
    """As torchvision's SSD counts: class 0 is the background."""

    first_class = 1

    def __init__(self, class_offset: int) -> None:
        super().__init__(scenes.CLASSES, 0, 1)
        self.class_offset = class_offset


@pytest.mark.parametrize(("offset", "category", "expected"), [(0, 1, 1), (1, 0, 1), (1, 1, 2)])
def test_class_0_is_refused_where_it_is_the_background_unless_classes_are_moved(
    tmp_path: Path, model: LoadedModel, offset: int, category: int, expected: int
):
    ssd = replace(model, plugin=WithBackground(offset))
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()

    assert float(read(written(tmp_path / "good", one(BOX, category)), ssd)[0, 0, 0]) == expected
    with pytest.raises(DataError, match=r"the classes 1 to 2 \(class 0 is the background: 'class_offset': 1"):
        read(written(tmp_path / "bad", one(BOX, -offset)), ssd)


def test_images_and_labels_count_in_the_memory_that_is_allowed(tmp_path: Path, model: LoadedModel):
    folder = written(tmp_path, one(BOX))
    needed = 2 * (3 * scenes.SIDE**2 + 5 * 4)

    assert load_bundle(folder, SPEC, model, seed=0, max_bytes=needed)
    with pytest.raises(DataError, match=r"1 objects for each of 1 images would take"):
        load_bundle(folder, SPEC, model, seed=0, max_bytes=needed - 1)
