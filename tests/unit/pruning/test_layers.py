"""Which layers are found, and which are chosen."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.pytorch_utils import Conv1D

from schemas.allocation import UniformAllocation
from schemas.method import Unstructured
from tests.unit.pruning.small import small_module
from workers.errors import PreflightError
from workers.pruning.layers import choose, outside_layers, packed_attention, prunable_layers, resized


def test_finds_linear_and_convolution_layers_in_module_order():
    layers = prunable_layers(small_module())

    assert [(layer.name, layer.kind) for layer in layers] == [
        ("0", "Conv2d"),
        ("3", "Conv2d"),
        ("8", "Linear"),
    ]


def test_finds_the_transposed_linear_layer_of_gpt2():
    layers = prunable_layers(nn.Sequential(Conv1D(8, 4), nn.ConvTranspose2d(2, 2, 3), nn.Embedding(3, 3)))

    assert [layer.kind for layer in layers] == ["Conv1D", "ConvTranspose2d"]


def test_counts_a_tied_weight_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight

    layers = prunable_layers(nn.Sequential(first, second))

    assert [layer.name for layer in layers] == ["0"]


def test_leaves_out_a_weight_that_is_computed_from_others():
    layers = prunable_layers(nn.Sequential(weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2)))

    assert [layer.name for layer in layers] == ["1"]


def test_exclude_wins_over_include():
    choice = choose(prunable_layers(small_module()), Unstructured(include=("0", "8"), exclude=("8",)))

    assert [layer.name for layer in choice.pruned] == ["0"]
    assert choice.reasons == {"3": "not matched by method.include", "8": "excluded by '8'"}


def test_uniform_allocation_keeps_the_first_and_the_last_layer_dense():
    choice = choose(prunable_layers(small_module()), Unstructured(allocation=UniformAllocation()))

    assert [layer.name for layer in choice.pruned] == ["3"]
    assert choice.reasons["0"] == "first layer, kept dense by uniform allocation"


def test_uniform_allocation_prunes_all_layers_when_asked():
    allocation = UniformAllocation(keep_first_and_last=False)

    choice = choose(prunable_layers(small_module()), Unstructured(allocation=allocation))

    assert len(choice.pruned) == 3


@pytest.mark.parametrize("field", ["include", "exclude"])
def test_a_glob_that_matches_nothing_is_refused_by_name(field: str):
    method = Unstructured.model_validate({field: ("layer9.*",)})

    with pytest.raises(PreflightError, match=rf"method.{field}: 'layer9.\*' matches no .*there are: 0, 3, 8"):
        choose(prunable_layers(small_module()), method)


def test_refuses_to_prune_nothing():
    layers = prunable_layers(small_module())

    with pytest.raises(PreflightError, match="no layer is left to prune"):
        choose(layers, Unstructured(exclude=("*",)))


def test_refuses_a_model_without_prunable_layers():
    with pytest.raises(PreflightError, match="no linear or convolution layer"):
        choose(prunable_layers(nn.ReLU()), Unstructured())


def test_names_attention_whose_packed_weights_stay_dense():
    module = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2))

    assert packed_attention(module) == ["1"]
    assert "1.in_proj_weight" not in [layer.name for layer in prunable_layers(module)]


class Tied(nn.Module):
    """A head that is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight


def test_a_head_that_is_its_embedding_stays_dense_unless_it_is_named():
    layers = prunable_layers(Tied())

    choice = choose(layers, Unstructured())
    named = choose(layers, Unstructured(include=("hidden", "head")))

    assert [layer.name for layer in choice.pruned] == ["hidden"]
    assert "the embedding's too" in choice.reasons["head"]
    assert [layer.name for layer in named.pruned] == ["hidden", "head"]


def test_the_head_of_a_language_model_stays_dense_unless_it_is_named():
    module = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
    )
    layers = prunable_layers(module)

    choice = choose(layers, Unstructured())
    named = choose(layers, Unstructured(include=("lm_head",)))

    assert "head of a language model" in choice.reasons["lm_head"]
    assert [layer.name for layer in named.pruned] == ["lm_head"]


def test_layers_that_lost_no_units_say_so():
    dense = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 6))
    pruned = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 6))

    choice = resized(pruned, dense)

    assert [layer.name for layer in choice.pruned] == ["0", "1"]
    assert choice.reasons == {"2": "its weight keeps its shape"}


def test_names_weights_that_lie_in_no_layer():
    module = nn.Sequential(nn.Conv2d(2, 4, 3), weight_norm(nn.Conv1d(4, 4, 3)), nn.Embedding(3, 3))
    module.experts = nn.Parameter(torch.zeros(4, 6, 5))
    module.token = nn.Parameter(torch.zeros(1, 1, 8))

    found = outside_layers(module)

    assert found == {"experts": 120, "1.parametrizations.weight.original1": 48}
