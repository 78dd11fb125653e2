"""Jobs without labelled data."""

from typing import Any

import pytest
import torch

from schemas.job_spec import JobSpec
from schemas.refs import DataRef
from schemas.task import Task
from tests import tiny
from workers.data.bundle import Split
from workers.data.load import load_bundle
from workers.errors import DataError
from workers.evaluate import metric_of
from workers.models.load import load_model

NO_DATA = {"model": {"uri": "s3://zoo/m/"}, "data": {"synthetic": True}, "goal": {"sparsity": 0.5}}


@pytest.mark.parametrize(
    ("make", "task"),
    [(tiny.resnet, Task.image_classification), (tiny.bert, Task.text_classification)],
    ids=["images", "texts"],
)
def test_the_dense_model_agrees_with_itself_and_another_does_not(tmp_path, make: Any, task: Task):
    model = load_model(make(tmp_path / "dense"), task)
    ref = DataRef(synthetic=True, task=task)

    bundle = load_bundle(None, ref, model, seed=3)

    def agreement() -> float:
        return metric_of(model, bundle, batch_size=64, on_batch=lambda *_: None)

    assert len(bundle.train) == 0
    assert agreement() == 1.0
    with torch.no_grad():
        for weight in model.module.classifier.parameters():
            weight.mul_(-1)
    assert agreement() < 1.0


def test_the_same_seed_gives_the_same_inputs_and_calibration_others(tmp_path):
    model = load_model(tiny.resnet(tmp_path), Task.image_classification)
    found = [load_bundle(None, DataRef(synthetic=True), model, seed=seed) for seed in (1, 1, 2)]

    def first(split: object) -> torch.Tensor:
        assert isinstance(split, Split)
        return split.inputs["pixel_values"]

    same, again, other = (first(bundle.validation) for bundle in found)
    assert same.shape[1:] == (1, tiny.SIDE, tiny.SIDE)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    assert not torch.equal(same, first(found[0].calibration))


def test_the_shortest_spec_prunes_at_once_without_training_or_floor():
    spec = JobSpec.model_validate(NO_DATA)

    assert spec.schedule.kind == "one_shot"
    assert spec.fine_tune.epochs == 0
    assert spec.floor.min_value == 0
    assert not spec.learns


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fine_tune": {"epochs": 1}}, "fine_tune.epochs learns from data"),
        ({"method": {"criterion": {"kind": "taylor"}}}, "method.criterion 'taylor' measures on data"),
        ({"method": {"criterion": {"kind": "wanda"}}}, "method.criterion 'wanda'"),
        ({"method": {"criterion": {"kind": "sparsegpt"}}}, "method.criterion 'sparsegpt'"),
        ({"method": {"allocation": {"kind": "sensitivity"}}}, "use allocation 'global'"),
        ({"floor": {"max_drop": 0.01}}, "floor would promise an accuracy"),
        ({"goal": None}, "schedule 'search' goes by a floor"),
        ({"goal": None, "recipe": "auto"}, "recipe measures and fine-tunes"),
        ({"data": {"synthetic": True, "uri": "s3://data/x/"}}, "leave out data.uri, or data.synthetic"),
        ({"data": {}}, "give data.uri, or data.synthetic"),
        ({"data": {"synthetic": True, "task": "detection"}}, "not for 'detection': give data.uri"),
    ],
)
def test_refuses_what_needs_data_with_the_remedy(changes: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        JobSpec.model_validate({**NO_DATA, **changes})


def test_a_folder_with_validation_alone_does_where_nothing_is_learned(tmp_path):
    model = load_model(tiny.resnet(tmp_path / "model"), Task.image_classification)
    folder = tiny.image_parquet(tmp_path / "data", validation=10)
    (folder / "train.parquet").unlink()
    ref = DataRef(uri="s3://data/images/")

    bundle = load_bundle(folder, ref, model, seed=0, learns=False)

    assert (len(bundle.train), len(bundle.validation)) == (0, 10)
    with pytest.raises(DataError, match="no files of the split 'train'"):
        load_bundle(folder, ref, model, seed=0)
