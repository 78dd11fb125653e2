"""Saving: the original library loads the result, zeros in place."""

import json

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from schemas.task import Task
from tests import tiny
from workers.models.load import load_model
from workers.models.save import save_model

IMAGES, TEXTS = Task.image_classification, Task.text_classification


def cut_half(module) -> int:
    """Zero every second weight of the matrices; how many zeros there are."""
    matrices = [value for value in module.parameters() if value.dim() > 1]
    for value in matrices:
        value.data.view(-1)[::2] = 0
    return zeros(module)


def zeros(module) -> int:
    return sum(int((value == 0).sum()) for value in module.parameters() if value.dim() > 1)


def test_from_pretrained_finds_the_zeros_of_a_resnet(tmp_path):
    model = load_model(tiny.resnet(tmp_path / "dense"), IMAGES)
    cut = cut_half(model.module)

    save_model(model, tmp_path / "pruned")

    back = AutoModelForImageClassification.from_pretrained(tmp_path / "pruned")
    pixels = torch.rand(2, 1, tiny.SIDE, tiny.SIDE)
    assert zeros(back) == cut
    assert torch.equal(back(pixel_values=pixels).logits, model.logits({"pixel_values": pixels}))


def test_a_vit_keeps_the_names_that_it_has_on_the_hub(tmp_path):
    folder = tiny.vit(tmp_path / "dense")
    model = load_model(folder, IMAGES)
    cut = cut_half(model.module)

    save_model(model, tmp_path / "pruned")

    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "pruned"))
    assert before.keys() == after.keys()
    assert zeros(AutoModelForImageClassification.from_pretrained(tmp_path / "pruned")) == cut


def test_the_tokenizer_travels_with_a_text_model(tmp_path):
    model = load_model(tiny.bert(tmp_path / "dense"), TEXTS)
    cut = cut_half(model.module)

    save_model(model, tmp_path / "pruned")

    back = AutoModelForSequenceClassification.from_pretrained(tmp_path / "pruned")
    encoded = AutoTokenizer.from_pretrained(tmp_path / "pruned")("sport1 filler2", return_tensors="pt")
    assert zeros(back) == cut
    assert encoded["input_ids"].tolist() == [[2, 5, 26, 3]]
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(back(**inputs).logits, model.logits(inputs))


def test_torchvision_loads_the_zeros_strictly(tmp_path):
    model = load_model(tiny.torchvision_folder(tmp_path / "dense"), IMAGES)
    cut = cut_half(model.module)

    save_model(model, tmp_path / "pruned")

    back = torchvision.models.squeezenet1_1(num_classes=tiny.CLASSES)
    back.load_state_dict(load_file(tmp_path / "pruned" / "model.safetensors"))
    assert zeros(back) == cut
    assert zeros(load_model(tmp_path / "pruned", IMAGES).module) == cut


def test_weights_that_came_as_float16_are_declared_float32(tmp_path):
    folder = tmp_path / "dense"
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertForSequenceClassification(config).half().save_pretrained(folder)

    save_model(load_model(folder, TEXTS), tmp_path / "out")

    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    back = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert back.dtype == torch.float32


def test_the_file_says_that_it_is_for_pytorch(tmp_path):
    for name, folder in (("a", tiny.resnet(tmp_path / "r")), ("b", tiny.torchvision_folder(tmp_path / "t"))):
        save_model(load_model(folder, IMAGES), tmp_path / name)

        with safe_open(tmp_path / name / "model.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}


def test_no_other_file_of_the_folder_travels(tmp_path):
    folder = tiny.resnet(tmp_path / "dense")
    (folder / "modeling.py").write_text("")
    (folder / "notes.txt").write_text("")

    save_model(load_model(folder, IMAGES), tmp_path / "out")

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
