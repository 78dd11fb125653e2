"""What a removal would leave is what is left after the cut, to the last parameter and multiplication."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from schemas.task import Task
from tests.unit.pruning.structured import graphs
from workers.figures import macs_of
from workers.models.loaded import LoadedModel
from workers.pruning.structured.graph import Removal
from workers.pruning.structured.measures import bytes_after, macs_after, parameters_after, units_after
from workers.pruning.structured.surgery import remove


def loaded(case: graphs.Case) -> LoadedModel:
    return LoadedModel(
        module=case.module,
        architecture="test/Small",
        task=Task.image_classification,
        classes=2,
        folder=Path(),
        image_size=None,
        image_channels=3,
        call=lambda part, _: case.output(part),
    )


def some(case: graphs.Case) -> Removal:
    return {group.name: np.arange(group.size // 2) for group in case.graph.groups}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", graphs.CASES)
def test_sizes_and_work_are_those_after_the_cut(name: str):
    case = graphs.CASES[name]()
    removal, model = some(case), loaded(case)
    counts = {
        "parameters": parameters_after(case.module, case.graph)(removal),
        "bytes": bytes_after(case.module, case.graph)(removal),
        "macs": macs_after(model, case.graph, case.inputs)(removal),
    }

    pruned = copy.deepcopy(case.module)
    remove(pruned, case.graph, removal)

    tensors = [*pruned.parameters(), *pruned.buffers()]
    assert counts == {
        "parameters": parameters(pruned),
        "bytes": sum(one.numel() * one.element_size() for one in tensors),
        "macs": macs_of(replace(model, module=pruned), (), case.inputs)[0],
    }


@pytest.mark.parametrize("name", graphs.CASES)
def test_nothing_removed_leaves_the_dense_figures(name: str):
    case = graphs.CASES[name]()
    model = loaded(case)

    assert parameters_after(case.module, case.graph)({}) == parameters(case.module)
    assert macs_after(model, case.graph, case.inputs)({}) == macs_of(model, (), case.inputs)[0]


def test_units_are_counted_by_kind():
    graph = graphs.bert().graph
    removal = {
        "bert.encoder.layer.0.attention.self": np.array([0, 1]),
        "bert.encoder.layer.1.intermediate.dense": np.arange(10),
    }

    assert units_after(graph, "heads")({}) == 8
    assert units_after(graph, "heads")(removal) == 6
    assert units_after(graph, "neurons")(removal) == 38


def test_a_tensor_that_two_modules_share_counts_once():
    module = nn.ModuleDict({"one": nn.Linear(4, 4, bias=False), "two": nn.Linear(4, 4, bias=False)})
    module["two"].weight = module["one"].weight
    graph = graphs.graph(graphs.group("two", "hidden", graphs.layer("two", 4, bias=False)))

    count = parameters_after(module, graph)

    assert (count({}), count({"two": np.array([0])})) == (16, 12)


def test_a_measurement_leaves_the_mode_as_it_was():
    case = graphs.residual()
    case.module.train()
    mean = case.module.stem_norm.running_mean.clone()

    macs_after(loaded(case), case.graph, case.inputs)

    assert case.module.training
    assert torch.equal(case.module.stem_norm.running_mean, mean)
