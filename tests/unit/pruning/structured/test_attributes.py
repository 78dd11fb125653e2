"""Sizes that modules keep as attributes follow the cut."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.pruning.structured import graphs
from workers.errors import PreflightError
from workers.pruning.structured.attributes import apply, check
from workers.pruning.structured.records import Change
from workers.pruning.structured.surgery import remove, surgery_of


def cut_outputs(
    part: nn.Module, size: int, gone: list[int], *, dim: int = 0, tensor: str = "weight"
) -> nn.Module:
    """`part` without some of the positions of one axis of its own tensors."""
    module = nn.ModuleDict({"part": part})
    axes = [graphs.axis(f"part.{tensor}", dim, "out", range(size))]
    if dim == 0 and getattr(part, "bias", None) is not None:
        axes.append(graphs.axis("part.bias", 0, "out", range(size)))
    remove(module, graphs.graph(graphs.group("part", "channels", axes)), {"part": np.array(gone)})
    return part


@pytest.mark.parametrize(
    ("part", "dim", "size", "changed"),
    [
        (nn.Linear(4, 6), 0, 6, {"in_features": 4, "out_features": 4}),
        (nn.Linear(6, 4), 1, 6, {"in_features": 4, "out_features": 4}),
        (nn.Conv1d(3, 6, 3), 0, 6, {"in_channels": 3, "out_channels": 4, "groups": 1}),
        (nn.Conv2d(6, 3, 3), 1, 6, {"in_channels": 4, "out_channels": 3, "groups": 1}),
        (nn.Conv3d(3, 6, 1), 0, 6, {"in_channels": 3, "out_channels": 4}),
        (nn.Conv2d(6, 6, 3, groups=6), 0, 6, {"in_channels": 4, "out_channels": 4, "groups": 4}),
        (nn.ConvTranspose2d(6, 3, 3, bias=False), 0, 6, {"in_channels": 4, "out_channels": 3}),
        (nn.Embedding(9, 6), 1, 6, {"num_embeddings": 9, "embedding_dim": 4}),
        (nn.PReLU(6), 0, 6, {"num_parameters": 4}),
        (nn.Bilinear(6, 3, 2), 1, 6, {"in1_features": 4, "in2_features": 3, "out_features": 2}),
        (nn.LayerNorm(6), 0, 6, {"normalized_shape": (4,)}),
        (nn.RMSNorm(6), 0, 6, {"normalized_shape": (4,)}),
        (nn.LayerNorm((6, 5), bias=False), 0, 6, {"normalized_shape": (4, 5)}),
    ],
    ids=str,
)
def test_a_layer_knows_its_new_size(part: nn.Module, dim: int, size: int, changed: dict[str, object]):
    cut_outputs(part, size, [1, 2], dim=dim)

    assert {name: getattr(part, name) for name in changed} == changed


def test_a_convolution_that_loses_whole_groups_has_fewer_of_them():
    part = cut_outputs(nn.Conv2d(8, 16, 3, groups=4), 16, [0, 1, 2, 3])

    assert (part.groups, part.in_channels, part.out_channels) == (3, 6, 12)
    assert part(torch.rand(1, 6, 4, 4)).shape == (1, 12, 2, 2)


def test_a_convolution_whose_groups_lose_the_same_has_as_many_narrower_ones():
    part = cut_outputs(nn.Conv2d(8, 16, 3, groups=4), 16, [0, 4, 8, 12])

    assert (part.groups, part.in_channels, part.out_channels) == (4, 8, 12)
    assert part(torch.rand(1, 8, 4, 4)).shape == (1, 12, 2, 2)


def test_a_group_norm_keeps_its_groups_where_they_stay_equal():
    case = graphs.grouped()

    remove(case.module, case.graph, {"grouped": np.array([0])})

    assert (case.module.norm.num_groups, case.module.norm.num_channels) == (4, 4)
    assert (case.module.depthwise.groups, case.module.grouped.groups) == (4, 2)


def test_a_batch_norm_without_scale_knows_its_size():
    module = nn.ModuleDict({"norm": nn.BatchNorm2d(4, affine=False)})
    axes = [graphs.axis(f"norm.{part}", 0, "norm", range(4)) for part in ("running_mean", "running_var")]

    remove(module, graphs.graph(graphs.group("norm", "channels", axes)), {"norm": np.array([0])})

    assert module["norm"].num_features == 3
    assert module["norm"](torch.rand(2, 3, 2, 2)).shape == (2, 3, 2, 2)


def test_bert_attention_has_fewer_heads_of_the_same_width():
    case = graphs.bert()

    remove(case.module, case.graph, {"bert.encoder.layer.1.attention.self": np.array([3])})

    first, second = (one.attention.self for one in case.module.bert.encoder.layer)
    assert (second.num_attention_heads, second.attention_head_size, second.all_head_size) == (3, 4, 12)
    assert (first.num_attention_heads, first.attention_head_size, first.all_head_size) == (4, 4, 16)


def test_gpt2_attention_splits_its_fused_output_at_the_new_width():
    case = graphs.gpt2()

    remove(case.module, case.graph, {"transformer.h.0.attn": np.array([3])})

    attention = case.module.transformer.h[0].attn
    assert (attention.num_heads, attention.head_dim, attention.split_size) == (3, 4, 12)
    assert (attention.c_attn.nx, attention.c_attn.nf, attention.c_proj.nx, attention.c_proj.nf) == (
        16,
        36,
        12,
        16,
    )


def test_whole_groups_of_query_heads_leave_the_heads_per_group_as_they_are():
    case = graphs.llama()

    remove(case.module, case.graph, {"model.layers.0.self_attn": np.array([0])})

    attention = case.module.model.layers[0].self_attn
    assert (attention.num_key_value_groups, attention.head_dim) == (4, 4)
    assert (attention.q_proj.out_features, attention.k_proj.out_features) == (16, 4)


def test_query_heads_that_go_from_each_group_make_the_groups_smaller():
    case = graphs.llama(whole_groups=False)

    remove(case.module, case.graph, {"model.layers.0.self_attn": np.array([0, 5])})

    attention = case.module.model.layers[0].self_attn
    assert (attention.num_key_value_groups, attention.head_dim) == (3, 4)
    assert (attention.q_proj.out_features, attention.k_proj.out_features) == (24, 8)
    assert case.output().shape == (2, 7, 20)


def test_heads_that_leave_groups_of_no_whole_size_are_refused():
    case = graphs.llama(whole_groups=False)

    with pytest.raises(PreflightError, match="no whole number"):
        surgery_of(case.module, case.graph, {"model.layers.0.self_attn": np.array([0])})


class Config:
    """Sizes that all layers of a model read at each forward."""

    num_attention_heads = 4


class Shared(nn.Module):
    """Attention that asks its config for the number of heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.query, self.output = config, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.output(self.query(states).unflatten(-1, (self.config.num_attention_heads, 2)).flatten(-2))


def test_a_config_that_layers_share_changes_for_one_layer_only():
    config = Config()
    module = nn.ModuleList([Shared(config), Shared(config)])
    axes = graphs.layer("0.query", 4, each=2) + graphs.reader("0.output", 4, each=2)

    remove(module, graphs.graph(graphs.group("0", "heads", axes, each=2)), {"0": np.array([1])})

    assert (module[0].config.num_attention_heads, module[1].config.num_attention_heads) == (3, 4)
    assert module[0](torch.rand(1, 8)).shape == (1, 8)


class Stages:
    """Widths of three stages."""

    hidden_sizes = [4, 8, 8]


class Reshaping(nn.Module):
    """A model that reshapes by its config's last width but one, as SegFormer's head does."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.first, self.head = Stages(), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(states).reshape(-1, self.config.hidden_sizes[0]))


def test_a_forward_that_reshapes_by_a_stage_of_its_config_reads_the_new_width():
    module = Reshaping()

    hidden = graphs.group("first", "hidden", graphs.layer("first", 4) + graphs.reader("head", 4))
    remove(module, graphs.graph(hidden), {"first": np.array([0])})

    assert module.config.hidden_sizes == [3, 8, 8]
    assert Stages.hidden_sizes == [4, 8, 8]
    assert module(torch.rand(5, 3)).shape == (5, 2)


@pytest.mark.parametrize(
    "change",
    [
        Change(module="0", attribute="training", value=1),
        Change(module="0", attribute="forward", value=1),
        Change(module="0", attribute="num_heads", value=1),
        Change(module="9", attribute="in_features", value=1),
        Change(module="0", attribute="in_features", value="many"),
    ],
    ids=lambda change: f"{change.module}.{change.attribute}",
)
def test_nothing_but_sizes_that_are_there_is_ever_written(change: Change):
    with pytest.raises(ValueError, match=r"no size of a module|the model has no"):
        check(graphs.mlp().module, [change])


def test_a_change_is_written_where_it_belongs():
    module = graphs.mlp().module

    apply(module, [Change(module="2", attribute="in_features", value=5)])

    assert (module[0].in_features, module[2].in_features) == (6, 5)
