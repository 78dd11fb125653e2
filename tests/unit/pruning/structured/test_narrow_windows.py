"""torchvision's window attention without some heads gives what the full one gives with them at zero."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from tests.unit.pruning.structured import graphs
from workers.pruning.structured.graph import DependencyGraph
from workers.pruning.structured.history import History, replay
from workers.pruning.structured.masked import mask_units
from workers.pruning.structured.narrow import NARROW, kind_of
from workers.pruning.structured.surgery import remove

HEADS = np.repeat(np.arange(4), 4).tolist()
GONE = {"0": np.array([1, 2])}


def heads_of(fused: str, output: str, table: list[object]) -> DependencyGraph:
    """4 heads of 4 channels."""
    made = [graphs.axis(f"0.{fused}.{part}", 0, "out", HEADS * 3) for part in ("weight", "bias")]
    return graphs.graph(
        graphs.group("0", "heads", [*made, *graphs.reader(f"0.{output}", 4, each=4), *table], each=4)
    )


def swin(shift: int) -> tuple[nn.Module, DependencyGraph]:
    table = graphs.axis("0.relative_position_bias_table", 1, "other", range(4))
    return ShiftedWindowAttention(16, [4, 4], [shift, shift], 4), heads_of("qkv", "proj", [table])


def swin_v2(shift: int) -> tuple[nn.Module, DependencyGraph]:
    own = [
        graphs.axis("0.logit_scale", 0, "other", range(4)),
        graphs.axis("0.cpb_mlp.2.weight", 0, "out", range(4)),
    ]
    return ShiftedWindowAttentionV2(16, [4, 4], [shift, shift], 4), heads_of("qkv", "proj", own)


def pruned_and_masked(attention: nn.Module, graph: DependencyGraph) -> tuple[nn.Module, nn.Module]:
    module = nn.Sequential(attention).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    masked = copy.deepcopy(module)
    mask_units(masked, graph, GONE)
    remove(module, graph, GONE)
    return module, masked


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (4, 4), (3, 9)], ids=str)
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("make", [swin, swin_v2])
@torch.no_grad()
def test_windows_of_any_size_and_shift_give_what_the_masked_ones_give(
    make, shift: int, size: tuple[int, int]
):
    torch.manual_seed(0)
    pruned, masked = pruned_and_masked(*make(shift))
    states = torch.randn(2, *size, 16)

    output = pruned(states)

    assert kind_of(pruned[0]) == NARROW
    assert (pruned[0].num_heads, pruned[0].qkv.out_features) == (2, 24)
    assert output.shape == states.shape
    assert (output - masked(states)).abs().max() < 2e-5


@torch.no_grad()
def test_partitions_give_what_the_masked_ones_give():
    torch.manual_seed(0)
    table = graphs.axis("0.relative_position_bias_table", 1, "other", range(4))
    attention = RelativePositionalMultiHeadAttention(16, 4, 9)
    pruned, masked = pruned_and_masked(attention, heads_of("to_qkv", "merge", [table]))
    states = torch.randn(2, 3, 9, 16)

    assert (pruned(states) - masked(states)).abs().max() < 1e-5
    assert (pruned[0].n_heads, pruned[0].scale_factor) == (2, 0.25)


def test_a_fresh_module_becomes_narrow_by_the_history():
    attention, graph = swin_v2(2)
    module = nn.Sequential(attention).eval()
    fresh = copy.deepcopy(module)

    replay(fresh, History().after(remove(module, graph, GONE)))

    states = torch.randn(1, 8, 8, 16)
    assert kind_of(fresh[0]) == NARROW
    assert torch.equal(fresh(states), module(states))


def test_it_learns():
    pruned, _ = pruned_and_masked(*swin_v2(2))

    pruned.train()(torch.randn(1, 8, 8, 16)).square().mean().backward()

    assert all(parameter.grad is not None for parameter in pruned.parameters())
