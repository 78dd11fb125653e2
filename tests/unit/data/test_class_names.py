"""Labels by name and by number: a data set and a model may count classes in different orders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from tests import tiny
from tests.small_tasks import data
from workers.data.class_names import class_names, label2id_of, renumbering
from workers.data.labels import to_numbers
from workers.data.load import load_bundle
from workers.errors import DataError
from workers.models.load import load_model

SPEC = data("text-classification")
OF_MODEL = {"sport": 0, "money": 1, "music": 2, "film": 3}


def write(path: Path, feature: Any, **columns: Any) -> Path:
    """A parquet file as the `datasets` library writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
    return path


def labels_of(tmp_path: Path, names: list[str], label2id: dict[str, int] | None) -> list[int]:
    """Labels 0, 1, 2 and 3 of a data set with these names, as the model counts them."""
    folder = tiny.bert(tmp_path / "model")
    if label2id is not None:
        tiny.edit_json(
            folder / "config.json",
            label2id=label2id,
            id2label={str(number): name for name, number in label2id.items()},
        )
    feature = {"_type": "ClassLabel", "names": names}
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}.parquet", feature, text=["film0"] * 4, label=[0, 1, 2, 3])
    model = load_model(folder, SPEC.task)
    labels: list[int] = load_bundle(tmp_path / "data", SPEC, model, seed=0).train.labels.tolist()
    return labels


@pytest.mark.parametrize(
    ("names", "label2id", "expected"),
    [
        (["sport", "money", "music", "film"], OF_MODEL, [0, 1, 2, 3]),
        (["film", "music", "money", "sport"], OF_MODEL, [3, 2, 1, 0]),
        (["Film", "MUSIC", " money", "sport"], OF_MODEL, [3, 2, 1, 0]),
        (["film", "music", "money", "sport"], None, [0, 1, 2, 3]),
    ],
    ids=["same order", "other order", "other case", "nobody named the model's classes"],
)
def test_numbers_follow_the_names(tmp_path, names, label2id, expected):
    assert labels_of(tmp_path, names, label2id) == expected


def test_names_that_the_model_does_not_know_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"column 'label' of the split 'train' has the class 'pop'.*id2label"):
        labels_of(tmp_path, ["film", "pop", "money", "sport"], OF_MODEL)


def test_names_that_differ_only_in_case_are_compared_with_it():
    found = renumbering(["b", "B"], {"B": 0, "b": 1}, where="here")

    assert found is not None
    assert found.tolist() == [1, 0]
    with pytest.raises(DataError, match="does not know"):
        renumbering(["b", "c"], {"B": 0, "b": 1}, where="here")


@pytest.mark.parametrize(
    "feature",
    [
        {"_type": "ClassLabel", "names": ["a", "b"]},
        {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["a", "b"]}},
        {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": ["a", "b"]}},
        [{"_type": "ClassLabel", "names": ["a", "b"]}],
    ],
)
def test_names_are_found_in_features_and_lists_of_them(tmp_path, feature):
    path = write(tmp_path / "train.parquet", feature, label=[0])

    assert class_names([path], "label") == ["a", "b"]
    assert class_names([path], "other") is None


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": []}}', None])
def test_metadata_of_another_kind_has_no_names(tmp_path, metadata):
    table = pyarrow.table({"label": [0]})
    table = table.replace_schema_metadata({b"huggingface": metadata} if metadata else None)
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")

    assert class_names([tmp_path / "train.parquet"], "label") is None


def test_files_that_disagree_are_refused(tmp_path):
    paths = [
        write(tmp_path / f"{names[0]}.parquet", {"_type": "ClassLabel", "names": names}, label=[0])
        for names in (["a", "b"], ["b", "a"])
    ]

    with pytest.raises(DataError, match=r"b\.parquet names other classes of 'label' than a\.parquet"):
        class_names(paths, "label")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"label2id": {"a": 0, "b": "1"}}, {"a": 0, "b": 1}),
        ({"id2label": {"0": "a", "1": "b"}}, {"a": 0, "b": 1}),
        ({"label_names": ["a", "b"]}, {"a": 0, "b": 1}),
        ({"label2id": {"a": None}}, {}),
        ({}, {}),
    ],
)
def test_a_model_names_its_classes_in_three_ways(tmp_path, config, expected):
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert label2id_of(tmp_path) == expected


def test_numbers_of_a_regression_are_finite_floats():
    assert torch.equal(to_numbers([1, 2.5], where="here"), torch.tensor([1.0, 2.5]))
    assert to_numbers(np.array([1, 2], np.int16), where="here").dtype == torch.float32


@pytest.mark.parametrize("bad", ["2", None, float("nan"), 1e300])
def test_a_row_that_is_no_number_is_named(bad):
    with pytest.raises(DataError, match="here: row 1 is "):
        to_numbers([1.0, bad], where="here")
