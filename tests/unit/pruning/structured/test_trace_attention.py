"""Transformers' hazards: heads, shared numbers, tied tables, and forwards that look at values."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.unit.pruning.structured.traced import by_name, one, places, traced
from workers.pruning.structured.trace import follow

HEADS, WIDTH = 2, 3


class Attention(nn.Module):
    """Self-attention with `kv` key-value heads, over an embedding, read by a classifier."""

    def __init__(self, kv: int = HEADS, *, scale_of: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.q = nn.Linear(4, HEADS * WIDTH)
        self.k = nn.Linear(4, kv * WIDTH)
        self.v = nn.Linear(4, kv * WIDTH)
        self.out = nn.Linear(HEADS * WIDTH, 4)
        self.last = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(scale_of)) if scale_of else None
        self.kv = kv

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        q = self.q(x).view(2, -1, HEADS, WIDTH)
        if self.scale is not None:
            q = q * self.scale
        k, v = (each(x).view(2, -1, self.kv, WIDTH) for each in (self.k, self.v))
        k, v = (each[:, :, :, None].expand(-1, -1, -1, HEADS // self.kv, -1).flatten(2, 3) for each in (k, v))
        y = nn.functional.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v)))
        x = x + self.out(y.transpose(1, 2).reshape(2, -1, HEADS * WIDTH))
        return self.last(x)


class Sequence(nn.Module):
    """A body between a linear layer that makes the width and one that reads it."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.first, self.body, self.last = nn.Linear(5, width), body, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x)))


IDS = torch.arange(6).view(2, 3)


def test_a_head_goes_as_a_whole_from_query_key_value_and_output():
    graph = follow(Attention(), lambda module: module(IDS))

    rows = [0] * WIDTH + [1] * WIDTH
    heads = next(group for group in graph.groups if group.kind == "heads")
    assert by_name(graph) == {"table": ("hidden", 4), heads.name: ("heads", HEADS)}
    assert heads.widths.tolist() == [WIDTH, WIDTH]
    expected = {(f"{name}.{leaf}", 0): rows for name in "qkv" for leaf in ("weight", "bias")}
    assert places(heads) == {**expected, ("out.weight", 1): rows}


def test_the_width_of_the_stream_ties_the_table_to_every_reader():
    graph = follow(Attention(), lambda module: module(IDS))

    hidden = places(one(graph, "table"))
    assert set(hidden) == {
        ("table.weight", 1),
        ("q.weight", 1),
        ("k.weight", 1),
        ("v.weight", 1),
        ("out.weight", 0),
        ("out.bias", 0),
        ("last.weight", 1),
    }


def test_grouped_queries_go_with_their_key_and_value():
    class Wide(Attention):
        """Four query heads, two key-value heads."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.out = nn.Linear(4, 4 * WIDTH), nn.Linear(4 * WIDTH, 4)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.table(ids)
            q = self.q(x).view(2, -1, 4, WIDTH).transpose(1, 2)
            k, v = (each(x).view(2, -1, 2, WIDTH).transpose(1, 2) for each in (self.k, self.v))
            y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return self.last(x + self.out(y.transpose(1, 2).flatten(2)))

    graph = follow(Wide(), lambda module: module(IDS))

    heads = next(group for group in graph.groups if group.kind == "heads")
    assert places(heads)["q.weight", 0] == [0] * 6 + [1] * 6
    assert places(heads)["k.weight", 0] == places(heads)["v.weight", 0] == [0] * 3 + [1] * 3
    assert places(heads)["out.weight", 1] == [0] * 6 + [1] * 6
    assert heads.widths.tolist() == [6, 6]


def test_one_key_for_all_queries_leaves_nothing_to_choose():
    graph = follow(Attention(kv=1), lambda module: module(IDS))

    assert by_name(graph) == {"table": ("hidden", 4)}
    assert {"q", "k", "v"} <= graph.frozen.keys()


def test_numbers_that_every_head_uses_alike_do_not_tie_the_heads():
    graph = follow(Attention(scale_of=WIDTH), lambda module: module(IDS))

    heads = next(group for group in graph.groups if group.kind == "heads")
    assert heads.size == HEADS
    assert "scale" not in {axis.tensor for axis in heads.axes}


def test_torchs_own_attention_is_fused_and_its_heads_go_in_all_three_parts():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mha = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.mha(x, x, x, need_weights=False)[0]

    graph = traced(Sequence(Own(), 4), 3, 5)

    heads = next(group for group in graph.groups if group.kind == "heads")
    assert places(heads) == {
        ("body.mha.in_proj_weight", 0): [0, 0, 1, 1] * 3,
        ("body.mha.in_proj_bias", 0): [0, 0, 1, 1] * 3,
        ("body.mha.out_proj.weight", 1): [0, 0, 1, 1],
    }
    assert by_name(graph)["first"] == ("hidden", 4)


def test_an_encoder_layer_of_torch_is_followed_past_its_fast_path():
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True)

    graph = traced(Sequence(layer, 4), 3, 5)

    kinds = sorted(kind for kind, _ in by_name(graph).values())
    assert kinds == ["heads", "hidden", "neurons"]
    assert by_name(graph)["body.linear1"] == ("neurons", 6)


class Fused(nn.Module):
    """Query, key and value from one layer: `Conv1D` as GPT-2 has it, or linear."""

    def __init__(self, fused: nn.Module, out: nn.Module, *, window: bool = False) -> None:
        super().__init__()
        self.fused, self.out = fused, out
        self.bias = nn.Parameter(torch.zeros(5, HEADS)) if window else None
        self.register_buffer("index", torch.zeros(4, 4, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            each.view(*each.shape[:2], HEADS, -1).transpose(1, 2) for each in self.fused(x).chunk(3, -1)
        )
        scores = q @ k.transpose(-2, -1)
        if self.bias is not None:
            scores = scores + self.bias[self.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)[None]
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("make", "made", "read"),
    [(lambda i, o: nn.Linear(i, o), 0, 1), (lambda i, o: Conv1D(o, i), 1, 0)],
    ids=["linear", "conv1d"],
)
def test_fused_projections_lose_the_head_in_each_part(make, made, read):
    graph = traced(Sequence(Fused(make(4, 12), make(4, 4)), 4), 4, 5)

    heads = places(one(graph, "body"))
    assert one(graph, "body").kind == "heads"
    assert heads["body.fused.weight", made] == [0, 0, 1, 1] * 3
    assert heads["body.out.weight", read] == [0, 0, 1, 1]


def test_a_table_of_position_biases_has_a_column_for_each_head():
    class Windows(nn.Module):
        """Windows of four tokens, cut out, rolled and put back."""

        def __init__(self) -> None:
            super().__init__()
            self.attention = Fused(nn.Linear(4, 12), nn.Linear(4, 4), window=True)

        def forward(self, x: Tensor) -> Tensor:
            cut = x.view(2, 4, 4, 4).roll((-1, -1), (1, 2)).view(2, 2, 2, 2, 2, 4)
            cut = cut.permute(0, 1, 3, 2, 4, 5).reshape(8, 4, 4)
            y = self.attention(cut).view(2, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5)
            return x + y.reshape(2, 4, 4, 4).roll((1, 1), (1, 2)).view(2, 16, 4)

    graph = traced(Sequence(Windows(), 4), 16, 5)

    assert by_name(graph) == {"first": ("hidden", 4), "body.attention": ("heads", 2)}
    assert places(one(graph, "body.attention"))["body.attention.bias", 1] == [0, 1]


def test_heads_whose_scores_meet_a_constant_are_frozen_with_their_values():
    class Biased(Attention):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.table(ids)
            q, k, v = (each(x).view(2, -1, HEADS, WIDTH).transpose(1, 2) for each in (self.q, self.k, self.v))
            scores = q @ k.transpose(-1, -2) + torch.zeros(1, HEADS, 3, 3)
            return self.last(self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))

    graph = follow(Biased(), lambda module: module(IDS))

    assert {"q", "k", "v"} <= graph.frozen.keys()
    assert all(group.kind != "heads" for group in graph.groups)


def test_rotary_positions_leave_the_heads_free():
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qk, self.v, self.out = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8)
            self.register_buffer("inverse", torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            angles = torch.outer(torch.arange(3.0), self.inverse)
            cos, sin = (each(torch.cat([angles, angles], -1)) for each in (torch.cos, torch.sin))
            turned = []
            for each in self.qk(x).chunk(2, -1):
                heads = each.view(2, 3, 2, 4).transpose(1, 2)
                one, other = heads.chunk(2, -1)
                turned.append(heads * cos + torch.cat([-other, one], -1) * sin)
            y = (turned[0] @ turned[1].transpose(-1, -2)).softmax(-1) @ self.v(x).view(2, 3, 2, 4).transpose(
                1, 2
            )
            return self.out(y.transpose(1, 2).flatten(2))

    graph = traced(Sequence(Rotary(), 8), 3, 5)

    assert by_name(graph)["body"] == ("heads", 2)
    assert places(one(graph, "body"))["body.qk.weight", 0] == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


def test_linear_attention_has_whole_heads():
    class Kernel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (each(x).view(2, 3, 2, 2).transpose(1, 2) for each in (self.q, self.k, self.v))
            y = nn.functional.elu(q) @ (k.softmax(2).transpose(-1, -2) @ v)
            return self.out(y.transpose(1, 2).flatten(2))

    graph = traced(Sequence(Kernel(), 4), 3, 5)

    assert by_name(graph)["body"] == ("heads", 2)


def test_a_gated_unit_ties_the_gate_to_the_value():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.down = nn.Linear(4, 12), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            gate, up = self.both(x).chunk(2, -1)
            return self.down(nn.functional.silu(gate) * up)

    graph = traced(Sequence(Gated(), 4), 3, 5)

    assert by_name(graph)["body.both"] == ("neurons", 6)
    assert places(one(graph, "body.both"))["body.both.weight", 0] == [0, 1, 2, 3, 4, 5] * 2


def test_a_tied_output_keeps_the_vocabulary_and_shares_the_width():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm, self.last = (
                nn.Embedding(7, 4),
                nn.LayerNorm(4),
                nn.Linear(4, 7, bias=False),
            )
            self.last.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.last(self.norm(self.table(ids)))

    graph = follow(Tied(), lambda module: module(IDS))

    assert by_name(graph) == {"table": ("hidden", 4)}
    assert set(places(one(graph, "table"))) == {("table.weight", 1), ("norm.weight", 0), ("norm.bias", 0)}


def test_class_tokens_and_position_tables_belong_to_the_stream():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.places = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.zeros(1, 4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return (torch.cat([self.token.expand(2, -1, -1), x], 1) + self.places)[:, 0]

    graph = traced(Sequence(Tokens(), 4), 3, 5)

    assert by_name(graph) == {"first": ("hidden", 4)}
    assert {("body.token", 2), ("body.places", 2)} <= set(places(one(graph, "first")))


def test_layers_over_tokens_keep_the_number_of_tokens():
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.up(x.transpose(1, 2)).relu()).transpose(1, 2)

    graph = traced(Sequence(Mixer(), 4), 3, 5)

    assert by_name(graph) == {"first": ("neurons", 4), "body.up": ("neurons", 6)}
    assert graph.frozen["body.down"].startswith("meets an axis of fixed size (add")


class Careful(nn.Module):
    """Looks at the values of what it computes, and keeps a note."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.note = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x))
        self.note = y
        if y.abs().sum() > 0:
            y = y * 2
        return self.b(y)


def test_a_forward_that_looks_at_values_is_followed_on_real_ones():
    assert by_name(traced(Careful(), 5)) == {"a": ("neurons", 4)}


def test_the_module_is_as_before():
    module = Careful().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    traced(module, 5)

    assert module.training
    assert module.note is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not torch.nn.modules.module._global_forward_hooks


def test_nothing_of_the_module_stays_alive():
    modules = [Careful() for _ in range(6)]
    seen = [weakref.ref(module) for module in modules]
    graphs = [traced(module, 5) for module in modules]

    del modules
    gc.collect()

    assert len(graphs) == 6
    assert [each() for each in seen] == [None] * 6


def test_what_the_forward_raises_passes_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        traced(nn.Linear(3, 2), 4)


def test_caches_among_the_outputs_are_not_results():
    module = Sequence(nn.Linear(4, 4), 4)
    batch = torch.randn(2, 5)

    def run(each):
        return {"logits": each(batch), "past_key_values": (each.first(batch),)}

    assert by_name(follow(module, run)) == {"first": ("neurons", 4), "body": ("neurons", 4)}
    assert (
        follow(module, lambda each: (each(batch), each.first(batch))).frozen["first"] == "the model's output"
    )
