"""The trace on architectures of the three libraries, as small as their configurations allow."""

import resource
from collections import Counter

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from tests.unit.pruning.structured.traced import one, places, traced, without_first_units
from workers.pruning.structured.graph import DependencyGraph
from workers.pruning.structured.trace import follow

TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
GROUPED = {**TEXT, "num_key_value_heads": 2}
IDS = torch.arange(3, 13).view(2, 5)


def kinds(graph: DependencyGraph) -> Counter:
    return Counter(group.kind for group in graph.groups)


def check(module: nn.Module, graph: DependencyGraph) -> None:
    """Every axis has the size of its tensor, every unit a place where it is made, and names are unique."""
    state = {**module.state_dict(), **dict(module.named_buffers())}
    assert len({group.name for group in graph.groups}) == len(graph.groups)
    for group in graph.groups:
        assert group.size == len(group.widths) > 1
        assert group.widths.sum() == (next(a for a in group.axes if a.role == "out").units >= 0).sum()
        made = set()
        for axis in group.axes:
            assert len(axis.units) == state[axis.tensor].shape[axis.dim]
            assert axis.units.max() < group.size
            made |= set(axis.units.tolist()) if axis.role == "out" else set()
        assert made - {-1} == set(range(group.size))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("densenet121", 32),
        ("mobilenet_v3_small", 32),
        ("resnet18", 32),
        ("squeezenet1_1", 64),
    ],
)
def test_a_convolutional_network_runs_without_one_unit_of_each_group(name, size):
    module = getattr(torchvision.models, name)(num_classes=3).eval()

    graph = traced(module, 3, size, size)

    check(module, graph)
    assert set(graph.frozen.values()) == {"the model's output"}
    assert without_first_units(module, graph)(torch.randn(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize(
    "name",
    [
        "test_byobnet",
        "test_convnext",
        "test_efficientnet",
        "test_efficientnet_gn",
        "test_efficientnet_ln",
        "test_nfnet",
        "test_resnet",
    ],
)
def test_a_timm_network_runs_without_one_unit_of_each_group(name):
    module = timm.create_model(name, num_classes=3).eval()

    graph = traced(module, 3, 64, 64)

    check(module, graph)
    assert set(graph.frozen.values()) == {"the model's output"}
    if name in ("test_byobnet", "test_efficientnet", "test_resnet"):  # the others' layers state their sizes
        assert without_first_units(module, graph)(torch.randn(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3"])
def test_a_vision_transformer_has_a_stream_and_heads_and_neurons_in_each_block(name):
    module = timm.create_model(name).eval()

    graph = traced(module, *module.default_cfg["input_size"])

    blocks = len(module.blocks)
    check(module, graph)
    found = kinds(graph)
    assert found["hidden"] == 1
    assert min(found["heads"], found["neurons"]) >= blocks


def model(config: transformers.PretrainedConfig, auto: type) -> nn.Module:
    torch.manual_seed(0)
    return auto.from_config(config).eval()


@pytest.mark.parametrize(
    "config",
    [
        transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=4, n_positions=16),
        transformers.GPTNeoXConfig(**TEXT),
        transformers.GPTJConfig(vocab_size=50, n_embd=16, n_layer=2, n_head=4, n_positions=16, rotary_dim=4),
        transformers.LlamaConfig(**GROUPED),
        transformers.MistralConfig(**GROUPED),
        transformers.Qwen2Config(**GROUPED, tie_word_embeddings=True),
        transformers.Qwen3Config(**GROUPED, head_dim=4),
        transformers.Gemma2Config(**GROUPED, head_dim=4),
        transformers.PhiConfig(**TEXT),
        transformers.FalconConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_kv_heads=2,
            new_decoder_architecture=True,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_a_causal_model_has_heads_and_neurons_in_each_layer_and_one_stream(config):
    module = model(config, transformers.AutoModelForCausalLM)

    graph = follow(module, lambda each: each(input_ids=IDS, attention_mask=torch.ones_like(IDS)))

    check(module, graph)
    assert kinds(graph) == {"hidden": 1, "heads": 2, "neurons": 2}
    groups = getattr(config, "num_key_value_heads", getattr(config, "num_kv_heads", 4))
    assert {group.size for group in graph.groups if group.kind == "heads"} == {groups}


@pytest.mark.parametrize(
    "config",
    [
        transformers.BertConfig(**TEXT),
        transformers.RobertaConfig(**TEXT),
        transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=4, hidden_dim=24),
        transformers.ElectraConfig(**TEXT, embedding_size=8),
        transformers.RoFormerConfig(**TEXT, embedding_size=16),
        transformers.DebertaV2Config(**TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    ],
    ids=lambda config: config.model_type,
)
def test_an_encoder_has_heads_and_neurons_in_each_layer(config):
    module = model(config, transformers.AutoModelForSequenceClassification)

    graph = follow(module, lambda each: each(input_ids=IDS, attention_mask=torch.ones_like(IDS)))

    check(module, graph)
    found = kinds(graph)
    assert found["heads"] == 2
    assert found["neurons"] >= 2
    assert found["hidden"] >= 1


def test_shared_layers_have_one_group_for_all_their_uses():
    module = model(
        transformers.AlbertConfig(**TEXT, embedding_size=8), transformers.AutoModelForSequenceClassification
    )

    graph = follow(module, lambda each: each(input_ids=IDS))

    check(module, graph)
    assert kinds(graph)["heads"] == 1


def test_gpt2s_transposed_weights_lose_columns():
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=4, n_positions=16)
    module = model(config, transformers.AutoModelForCausalLM)

    graph = follow(module, lambda each: each(input_ids=IDS))

    neurons = places(one(graph, "transformer.h.0.mlp.c_fc"))
    assert neurons["transformer.h.0.mlp.c_fc.weight", 1] == list(range(64))
    assert neurons["transformer.h.0.mlp.c_proj.weight", 0] == list(range(64))
    assert graph.frozen.keys() == {"transformer.wte"}


def test_swin_takes_little_time_and_memory():
    module = torchvision.models.swin_t().eval()
    before = resource.getrusage(resource.RUSAGE_SELF)

    graph = traced(module, 3, 224, 224)

    after = resource.getrusage(resource.RUSAGE_SELF)
    check(module, graph)
    assert kinds(graph) == {"hidden": 4, "heads": 12, "neurons": 12}
    assert after.ru_utime - before.ru_utime < 30
    assert after.ru_maxrss - before.ru_maxrss < 256 << 10
