"""Groups that a module's code cannot lose units of are found before anything is cut."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.pruning.structured import graphs
from workers.errors import PreflightError
from workers.pruning.structured.graph import DependencyGraph
from workers.pruning.structured.probe import cuttable


class Attention(nn.Module):
    """Takes the width of a head as input width / heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.value, self.output = 4, nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, states: Tensor) -> Tensor:
        count, width = states.shape
        heads = self.value(states).reshape(count, self.num_heads, width // self.num_heads)
        return self.output(heads.flatten(1))


class Model(nn.Module):
    """Two such attentions between layers of neurons; `looks` makes its code depend on values."""

    def __init__(self, *, looks: bool = False) -> None:
        super().__init__()
        self.first, self.looks = nn.Linear(3, 16), looks
        self.attentions = nn.ModuleList([Attention(), Attention()])
        self.up, self.down = nn.Linear(16, 8), nn.Linear(8, 2)
        self.register_buffer("shift", torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.first(inputs)
        if self.looks and inputs.sum().item() > 1e9:
            return states
        for attention in self.attentions:
            states = states + attention(states)
        return self.down(torch.relu(self.up(states))) + self.shift


def graph() -> DependencyGraph:
    heads = [
        graphs.group(
            f"attentions.{number}",
            "heads",
            graphs.layer(f"attentions.{number}.value", 4, each=4)
            + graphs.reader(f"attentions.{number}.output", 4, each=4),
            each=4,
        )
        for number in range(2)
    ]
    return graphs.graph(
        *heads, graphs.group("up", "neurons", graphs.layer("up", 8) + graphs.reader("down", 8))
    )


@pytest.mark.parametrize("looks", [False, True], ids=["without data", "with data"])
def test_heads_that_the_code_cannot_lose_are_frozen_and_neurons_are_not(looks: bool):
    module = Model(looks=looks).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    found = cuttable(module, graph(), lambda part: part(torch.randn(5, 3)))

    assert [group.name for group in found.groups] == ["up"]
    assert list(found.frozen) == ["attentions.0", "attentions.1"]
    assert "the model's code takes its width from elsewhere" in found.frozen["attentions.0"]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert type(module.first.weight) is nn.Parameter
    assert module.attentions[0].num_heads == 4


@pytest.mark.parametrize("name", graphs.CASES)
def test_graphs_of_models_that_can_be_cut_stay_as_they_are(name: str):
    case = graphs.CASES[name]()

    assert cuttable(case.module, case.graph, case.output) is not None
    assert cuttable(case.module, case.graph, case.output).groups == case.graph.groups


def test_a_width_that_fits_the_heads_by_chance_hides_nothing():
    width = [
        *graphs.layer("first", 16),
        *graphs.reader("attentions.0.value", 16),
        *graphs.layer("attentions.0.output", 16),
        *graphs.reader("attentions.1.value", 16),
        *graphs.layer("attentions.1.output", 16),
        *graphs.reader("up", 16),
    ]
    whole = graphs.graph(graphs.group("first", "hidden", width), *graph().groups)

    found = cuttable(Model().eval(), whole, lambda part: part(torch.randn(5, 3)))

    assert [group.name for group in found.groups] == ["up"]
    assert set(found.frozen) == {"first", "attentions.0", "attentions.1"}


class Fixed(nn.Module):
    """Two layers that each alone may shrink, yet not both."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(3, 4), nn.Linear(3, 6), nn.Linear(10, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        one, two = self.one(inputs), self.two(inputs)
        if one.shape[1] < 4 and two.shape[1] < 6:
            raise RuntimeError("too narrow")
        return self.head(torch.cat([one, two], 1))


def test_what_fails_only_together_is_refused():
    places = {"one": [*range(4), *[-1] * 6], "two": [*[-1] * 4, *range(6)]}
    groups = [
        graphs.group(
            name, "neurons", [*graphs.layer(name, size), graphs.axis("head.weight", 1, "in", places[name])]
        )
        for name, size in (("one", 4), ("two", 6))
    ]

    with pytest.raises(PreflightError, match=r"does not run after its units are removed .too narrow"):
        cuttable(Fixed().eval(), graphs.graph(*groups), lambda part: part(torch.randn(5, 3)))


def test_a_group_of_one_unit_is_not_tried():
    module = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2))
    single = graphs.group("0", "neurons", graphs.layer("0", 1) + graphs.reader("1", 1))

    found = cuttable(module, graphs.graph(single), lambda part: part(torch.randn(5, 3)))

    assert np.array_equal([group.name for group in found.groups], ["0"])
