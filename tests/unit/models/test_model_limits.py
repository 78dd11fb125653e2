"""What a model folder may ask for: bounded before memory or time is spent."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

from schemas.task import Task
from tests import tiny
from workers.errors import ModelError
from workers.models.folder import MAX_DEPTH, MAX_JSON_BYTES
from workers.models.load import load_model

IMAGES, TEXTS = Task.image_classification, Task.text_classification


def refusal(folder: Path, task: Task = IMAGES) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder, task)
    return str(caught.value)


def timm_folder(folder: Path, **arguments: Any) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=tiny.CLASSES)
    save_for_hf(model, folder, safe_serialization=True, model_args=arguments)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 10**9},
        {"intermediate_size": 10**10},
        {"num_hidden_layers": 9_000},
    ],
    ids=str,
)
def test_a_config_cannot_ask_for_more_than_the_weights_give_cause_for(tmp_path, changes):
    tiny.edit_json(tiny.bert(tmp_path) / "config.json", **changes)

    assert "describes a far larger model than the weights are" in refusal(tmp_path, TEXTS)


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 10**6}, {"num_labels": 10**9}, {"max_position_embeddings": 10**12}],
    ids=str,
)
def test_numbers_that_a_constructor_loops_over_are_bounded(tmp_path, changes):
    tiny.edit_json(tiny.bert(tmp_path) / "config.json", **changes)

    message = refusal(tmp_path, TEXTS)

    assert f"'{next(iter(changes))}' is" in message
    assert "at most" in message


@pytest.mark.parametrize("arguments", [{"channels": [4000] * 4}, {"layers": [2_000] * 4}], ids=str)
def test_timm_arguments_cannot_ask_for_more_either(tmp_path, arguments):
    assert "describes a far larger model than the weights are" in refusal(timm_folder(tmp_path, **arguments))


def test_ten_million_layers_of_timm_are_refused_before_they_are_built(tmp_path):
    assert "'layers' is" in refusal(timm_folder(tmp_path, layers=[10**7]))


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tiny.resnet(tmp_path) / "config.json"
    path.write_text('{"auto_map": 1, ' + path.read_text().strip()[1:-1] + ', "model_type": "bert"}')

    assert "the key 'model_type' stands twice" in refusal(tmp_path)


def test_json_that_is_nested_too_deep_is_refused(tmp_path):
    value: Any = {}
    for _ in range(MAX_DEPTH):
        value = {"a": value}
    tiny.edit_json(tiny.resnet(tmp_path) / "config.json", extra=value)

    assert f"nested deeper than {MAX_DEPTH} levels" in refusal(tmp_path)


def test_json_that_is_too_long_is_refused_unread(tmp_path):
    path = tiny.resnet(tmp_path) / "config.json"
    with path.open("r+b") as file:
        file.truncate(MAX_JSON_BYTES + 1)

    assert "at most 33,554,432 are read" in refusal(tmp_path)


@pytest.mark.parametrize("key", ["trust_remote_code", "custom_pipelines"])
def test_other_ways_to_ask_for_code_are_refused(tmp_path, key):
    tiny.edit_json(tiny.resnet(tmp_path) / "config.json", **{key: {"x": {"impl": "code.X"}}})

    assert f"'{key}' asks for Python code, which is never run" in refusal(tmp_path)


def test_a_shard_name_that_no_disk_can_have_is_refused(tmp_path):
    (tiny.resnet(tmp_path) / "model.safetensors").unlink()
    index = {"weight_map": {"a": "a" * 5000 + ".safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "which is not in the folder" in refusal(tmp_path)


@pytest.mark.parametrize("mean", [[float("nan")], [float("inf")]], ids=str)
def test_normalization_by_no_number_is_refused(tmp_path, mean):
    tiny.preprocessor(tiny.resnet(tmp_path), 1, image_mean=mean)

    assert "'image_mean' is" in refusal(tmp_path)


def test_a_message_holds_nothing_that_cannot_be_sent_on():
    message = str(ModelError("tensor \ud800\0\x1b[31m\u202e is " + "long" * 10_000))

    message.encode()
    assert message.startswith("tensor \ufffd\ufffd\ufffd[31m\ufffd is long")
    assert len(message) < 5000
