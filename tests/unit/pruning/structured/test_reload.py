"""A pruned model comes back from its folder the same, by the library alone where its config can say so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from schemas.task import Task
from tests import tiny
from tests.unit.pruning.structured import graphs
from workers.errors import ModelError
from workers.models.load import load_model
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.structured.graph import DependencyGraph, Removal
from workers.pruning.structured.history import FILE, History
from workers.pruning.structured.reload import is_pruned, load_pruned, save_pruned
from workers.pruning.structured.surgery import remove

TEXT, IMAGES = Task.text_classification, Task.image_classification


def words() -> Batch:
    torch.manual_seed(0)
    return {"input_ids": torch.randint(4, 30, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}


def bert(folder: Path, removal: Removal) -> tuple[LoadedModel, History]:
    """The tiny BERT of 2 layers, 2 heads of 8 channels and 32 neurons, after `removal`."""
    model = load_model(tiny.bert(folder), TEXT)
    for parameter in model.module.parameters():
        parameter.data.normal_(std=0.3)
    groups = []
    for number in range(2):
        at = f"bert.encoder.layer.{number}"
        made = [
            one
            for part in ("query", "key", "value")
            for one in graphs.layer(f"{at}.attention.self.{part}", 2, each=8)
        ]
        groups += [
            graphs.group(
                f"{number}.heads",
                "heads",
                made + graphs.reader(f"{at}.attention.output.dense", 2, each=8),
                each=8,
            ),
            graphs.group(
                f"{number}.neurons",
                "neurons",
                graphs.layer(f"{at}.intermediate.dense", 32) + graphs.reader(f"{at}.output.dense", 32),
            ),
        ]
    return model, History().after(remove(model.module, graphs.graph(*groups), removal))


@torch.no_grad()
def scores(model: LoadedModel, example: Batch) -> torch.Tensor:
    return model.logits(example)


def test_equal_widths_load_with_the_library_alone(tmp_path: Path):
    removal = {"0.neurons": np.arange(16), "1.neurons": np.arange(8, 24)}
    model, history = bert(tmp_path / "dense", removal)

    notes = save_pruned(model, history, tmp_path / "pruned", words())

    back = AutoModelForSequenceClassification.from_pretrained(tmp_path / "pruned")
    assert back.config.intermediate_size == 16
    assert torch.equal(back(**words()).logits, model.logits(words()))
    assert not (tmp_path / "pruned" / FILE).exists()
    assert (tmp_path / "pruned" / "tokenizer.json").is_file()
    assert "from_pretrained" in notes[0]


@pytest.mark.parametrize(
    "removal",
    [{"0.neurons": np.arange(16)}, {"0.heads": np.array([1]), "1.heads": np.array([0])}],
    ids=["widths that differ", "heads narrower than the hidden size"],
)
def test_what_the_config_cannot_say_is_replayed_bit_for_bit(removal: Removal, tmp_path: Path):
    model, history = bert(tmp_path / "dense", removal)

    save_pruned(model, history, tmp_path / "pruned", words())

    back = load_pruned(tmp_path / "pruned", lambda: type(model.module)(model.module.config))
    with torch.no_grad():
        assert torch.equal(model.call(back, words()), model.logits(words()))
    assert is_pruned(json.loads((tmp_path / "pruned" / "config.json").read_text()))
    assert (tmp_path / "pruned" / "tokenizer.json").is_file()
    assert not back.training


def test_a_program_runs_without_our_code_for_any_batch_and_length(tmp_path: Path):
    model, history = bert(tmp_path / "dense", {"0.heads": np.array([1]), "1.neurons": np.arange(9)})

    notes = save_pruned(model, history, tmp_path / "pruned", words())

    program = torch.export.load(tmp_path / "pruned" / "model.pt2").module()
    longer = {name: value.repeat(3, 2) for name, value in words().items()}
    assert "torch.export.load" in notes[1]
    for batch in (words(), longer):
        assert torch.allclose(program(*batch.values()), scores(model, batch), atol=1e-6)


def test_grouped_query_heads_are_said_by_a_config_that_knows_the_width_of_a_head(tmp_path: Path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=2,
        num_labels=3,
        pad_token_id=0,
        initializer_range=0.3,
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "dense")
    model = load_model(tmp_path / "dense", TEXT)
    graph = graphs.llama().graph
    history = History().after(
        remove(
            model.module,
            graph,
            {"model.layers.0.self_attn": np.array([1]), "model.layers.0.mlp": np.arange(8)},
        )
    )

    save_pruned(model, history, tmp_path / "pruned", words())

    back = LlamaForSequenceClassification.from_pretrained(tmp_path / "pruned")
    assert (back.config.num_attention_heads, back.config.num_key_value_heads, back.config.head_dim) == (
        4,
        1,
        4,
    )
    assert back.config.intermediate_size == 16
    assert torch.equal(back(**words()).logits, model.logits(words()))


def torchvision_resnet(folder: Path) -> tuple[LoadedModel, DependencyGraph]:
    """A torchvision ResNet-18 whose first block's inner channels are a group."""
    folder.mkdir()
    torch.manual_seed(0)
    save_file(resnet18(num_classes=4).state_dict(), folder / "model.safetensors")
    config = {"library_name": "torchvision", "architecture": "resnet18", "num_classes": 4}
    (folder / "config.json").write_text(json.dumps(config))
    inner = [
        *graphs.layer("layer1.0.conv1", 64, bias=False),
        *graphs.batch_norm("layer1.0.bn1", 64),
        *graphs.reader("layer1.0.conv2", 64),
    ]
    return load_model(folder, IMAGES), graphs.graph(graphs.group("layer1.0.conv1", "channels", inner))


def test_a_torchvision_model_is_replayed_and_a_second_job_adds_to_its_history(tmp_path: Path):
    example = {"pixel_values": torch.rand(2, 3, 32, 32)}
    model, graph = torchvision_resnet(tmp_path / "dense")
    history = History().after(remove(model.module, graph, {"layer1.0.conv1": np.arange(24)}))
    save_pruned(model, history, tmp_path / "once", example)

    again = load_pruned(tmp_path / "once", lambda: resnet18(num_classes=4))
    assert torch.equal(model.call(again, example), model.logits(example))

    second = LoadedModel(**{**vars(model), "module": again, "folder": tmp_path / "once"})
    smaller = graphs.graph(
        graphs.group(
            "layer1.0.conv1",
            "channels",
            [
                *graphs.layer("layer1.0.conv1", 40, bias=False),
                *graphs.batch_norm("layer1.0.bn1", 40),
                *graphs.reader("layer1.0.conv2", 40),
            ],
        )
    )
    history = History().after(remove(again, smaller, {"layer1.0.conv1": np.arange(8)}))
    save_pruned(second, history, tmp_path / "twice", example)

    back = load_pruned(tmp_path / "twice", lambda: resnet18(num_classes=4))
    assert back.layer1[0].conv1.out_channels == 32
    assert torch.equal(model.call(back, example), second.logits(example))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.output(self.embedding(input)).mean(1)


def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    model = LoadedModel(
        Tied(), "test/Tied", TEXT, 10, tmp_path, None, 0, lambda part, batch: part(batch["input"])
    )
    both = [graphs.axis(f"{name}.weight", 1, "out", range(6)) for name in ("embedding", "output")]
    graph = graphs.graph(graphs.group("embedding", "hidden", both))
    history = History().after(remove(model.module, graph, {"embedding": np.array([0, 5])}))
    example = {"input": torch.randint(0, 10, (2, 4))}

    save_pruned(model, history, tmp_path / "pruned", example)

    back = load_pruned(tmp_path / "pruned", Tied)
    assert list(load_file(tmp_path / "pruned" / "model.safetensors")) == ["embedding.weight"]
    assert back.embedding.weight is back.output.weight
    assert torch.equal(back(example["input"]), scores(model, example))


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path):
    model, history = bert(tmp_path / "dense", {"0.neurons": np.arange(16)})
    save_pruned(model, history, tmp_path / "pruned", words())
    weights = load_file(tmp_path / "pruned" / "model.safetensors")
    weights["bert.encoder.layer.0.intermediate.dense.bias"] = torch.zeros(9)
    weights["stray"] = weights.pop("classifier.bias")
    save_file(weights, tmp_path / "pruned" / "model.safetensors")

    with pytest.raises(
        ModelError, match=r"missing classifier.bias; unexpected stray; wrong shape: .* is \[9\]"
    ):
        load_pruned(tmp_path / "pruned", lambda: type(model.module)(model.module.config))


@pytest.mark.parametrize(
    "value", ["surgery.json", {"surgery": "../x"}, {"surgery": FILE, "more": 1}, []], ids=str
)
def test_a_config_can_name_nothing_but_the_history(value: object):
    with pytest.raises(ModelError, match="'secateur'"):
        is_pruned({"secateur": value})

    assert not is_pruned({})
