"""Widths that only a model's own code fixes: found by a rehearsed cut, and frozen with the reason."""

import torch
from torch import Tensor, nn

from workers.pruning.structured.graph import DependencyGraph
from workers.pruning.structured.trace import trace


class Attention(nn.Module):
    """Two heads of four; `derived`: their width is worked out from the input, as in XCiT."""

    def __init__(self, *, derived: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.derived = 2, 4, derived
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1] // self.num_heads if self.derived else self.head_dim
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, width).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-2, -1), -1) @ v
        return x + self.proj(mixed.transpose(1, 2).flatten(2))


class Body(nn.Module):
    """Some blocks between an embedding of eight and a classifier."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.first, self.blocks, self.last = nn.Linear(3, 8), nn.Sequential(*blocks), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(x)))


class FeedForward(nn.Module):
    """Eight neurons; `fixed`: their number stands in the code."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.up, self.down, self.fixed = nn.Linear(8, 8), nn.Linear(8, 8), fixed

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.up(x))
        return x + self.down(inner + torch.zeros(8) if self.fixed else inner)


def graph_of(module: nn.Module) -> DependencyGraph:
    return trace(module.eval(), lambda part: part(torch.randn(2, 4, 3)))


def kinds(graph: DependencyGraph) -> dict[str, str]:
    return {group.name: group.kind for group in graph.groups}


def test_heads_as_wide_as_the_module_says_may_go():
    assert "heads" in kinds(graph_of(Body(Attention(derived=False)))).values()


def test_heads_whose_width_follows_from_the_input_stay_and_the_reason_is_told():
    graph = graph_of(Body(Attention(derived=True)))

    assert "heads" not in kinds(graph).values()
    assert "the code of the model fixes this width (shape" in graph.frozen["blocks.0"]


def test_heads_and_hidden_size_that_would_shrink_together_hide_nothing():
    graph = graph_of(Body(Attention(derived=True)))

    assert kinds(graph) == {}


def test_one_odd_layer_does_not_freeze_the_others():
    blocks = [FeedForward(fixed=number == 1) for number in range(4)]

    graph = graph_of(Body(*blocks))

    inner = [name for name in kinds(graph) if name.endswith(".up")]
    assert inner == ["blocks.0.up", "blocks.2.up", "blocks.3.up"]
    assert "blocks.1.up" in graph.frozen


def test_an_output_that_would_change_its_shape_is_trouble_too():
    class Folded(nn.Module):
        """Rows of eight, however wide the layer is."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 16), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).reshape(-1, 8))

    graph = graph_of(Folded())

    assert kinds(graph) == {}
    assert graph.frozen["first"]


def test_code_that_looks_at_values_is_rehearsed_on_data():
    class Looking(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if float(x.sum()) > -1e9 else -x)

    graph = graph_of(Looking(FeedForward(fixed=False), Attention(derived=True)))

    assert kinds(graph)["blocks.0.up"] == "neurons"
    assert "blocks.1" in graph.frozen


def test_code_that_makes_tensors_of_its_own_is_rehearsed_without_data():
    class Making(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.arange(3, device="cpu"))

    graph = graph_of(Making(FeedForward(fixed=False)))

    assert kinds(graph)["blocks.0.up"] == "neurons"


def test_layers_that_run_in_training_only_lose_what_they_read():
    class Helped(nn.Module):
        """With a second classifier, as GoogLeNet has it."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.aux = nn.Linear(3, 16), nn.Linear(16, 5), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            inner = torch.relu(self.first(x))
            return (self.last(inner), self.aux(inner)) if self.training else self.last(inner)

    graph = graph_of(Helped())

    (group,) = graph.groups
    assert ("aux.weight", 1) in {(axis.tensor, axis.dim) for axis in group.axes}
    assert {"last", "aux"} <= graph.frozen.keys()


def test_the_module_is_as_it_was():
    module = Body(Attention(derived=True), FeedForward(fixed=True), nn.BatchNorm1d(4)).train()
    before = {name: (id(value), value.clone()) for name, value in module.state_dict(keep_vars=True).items()}

    trace(module, lambda part: part(torch.randn(2, 4, 3)))

    after = module.state_dict(keep_vars=True)
    for name, (identity, value) in before.items():
        assert id(after[name]) == identity
        assert torch.equal(after[name], value)
    assert module.training
    assert not any(part._forward_pre_hooks for part in module.modules())
