"""torch's attention without some of its heads gives what the full one gives with them set to zero."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.pruning.structured import graphs
from workers.pruning.structured.masked import mask_units
from workers.pruning.structured.narrow import NarrowAttention, become_narrow, kind_of
from workers.pruning.structured.surgery import remove

HEADS = np.repeat(np.arange(4), 4)


def pair(**options: object) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    """Masked and pruned: both without head 1 of four."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, **options).eval()
    module = nn.ModuleDict({"attention": attention})
    if attention.in_proj_weight is not None:
        made = [graphs.axis("attention.in_proj_weight", 0, "out", [*HEADS] * 3)]
    else:
        made = [graphs.axis(f"attention.{one}_proj_weight", 0, "out", HEADS.tolist()) for one in "qkv"]
    nn.init.normal_(attention.in_proj_bias)
    made += [
        graphs.axis("attention.in_proj_bias", 0, "out", [*HEADS] * 3),
        *graphs.reader("attention.out_proj", 4, each=4),
    ]
    graph = graphs.graph(graphs.group("attention", "heads", made, each=4))
    masked, pruned = copy.deepcopy(module), module
    mask_units(masked, graph, {"attention": np.array([1])})
    remove(pruned, graph, {"attention": np.array([1])})
    return masked["attention"], pruned["attention"]


def inputs(batch_first: bool = True) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 5, 16) if batch_first else torch.randn(5, 2, 16)


def difference(attentions: tuple[nn.Module, nn.Module], *args: Tensor, **options: object) -> float:
    with torch.no_grad():
        one, other = (attention(*args, **options) for attention in attentions)
    return float((one[0] - other[0]).abs().max())


MASKS = {
    "none": {},
    "causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
    "added": {"attn_mask": torch.linspace(-1, 1, 25).view(5, 5)},
    "padding": {"key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    "both": {
        "attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1),
        "key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2]),
    },
}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_it_computes_what_the_masked_attention_computes(mask: str, need_weights: bool):
    attentions, states = pair(batch_first=True), inputs()

    assert isinstance(attentions[1], NarrowAttention)
    assert difference(attentions, states, states, states, need_weights=need_weights, **MASKS[mask]) < 1e-6


@pytest.mark.parametrize(
    "options", [{}, {"batch_first": True, "kdim": 6, "vdim": 7}], ids=["time first", "cross"]
)
def test_layouts_of_torch_are_taken(options: dict[str, object]):
    attentions = pair(**options)
    states = inputs("batch_first" in options)
    keys, values = (torch.randn(2, 3, 6), torch.randn(2, 3, 7)) if "kdim" in options else (states, states)

    assert difference(attentions, states, keys, values) < 1e-6


def test_a_single_sequence_without_a_batch_axis_is_taken():
    attentions, states = pair(batch_first=True), inputs()[0]

    output, weights = attentions[1](states, states, states)

    assert (output.shape, weights.shape) == ((5, 16), (5, 5))
    assert difference(attentions, states, states, states) < 1e-6


def test_weights_are_a_mean_over_the_heads_that_stay():
    _, pruned = pair(batch_first=True)
    states = inputs()

    each = pruned(states, states, states, average_attn_weights=False)[1]
    mean = pruned(states, states, states)[1]

    assert each.shape == (2, 3, 5, 5)
    assert torch.allclose(each.mean(dim=1), mean)
    assert torch.allclose(mean.sum(dim=-1), torch.ones(2, 5))


def test_the_encoder_layer_of_torch_does_not_take_its_fast_path():
    case = graphs.encoder()
    assert torch.backends.mha.get_fastpath_enabled()

    remove(case.module, case.graph, {"self_attn": np.array([0])})

    with torch.no_grad():
        fast = case.output()
    case.module.train()
    assert torch.allclose(fast, case.output(), atol=1e-6)


def test_only_attention_of_torch_becomes_narrow():
    with pytest.raises(ValueError, match="Linear has no narrow form"):
        become_narrow(nn.Linear(2, 2))

    assert kind_of(nn.MultiheadAttention(4, 2)) == "dense"
    assert kind_of(nn.Linear(2, 2)) is None
