"""Sizes after a cut of every width, against figures taken with Torch-Pruning 1.6.1.

`golden.json` has torchvision models at half of each width, classifier ignored: parameters before and after,
and billions of multiply-accumulates by its own counter. Models and inputs are on the meta device: no weights.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import segmentation

from workers.pruning.structured.graph import DependencyGraph, Removal
from workers.pruning.structured.surgery import remove
from workers.pruning.structured.trace import trace

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())

INCEPTIONS = ("googlenet", "inception_v3")
QUICK = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "googlenet",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "squeezenet1_1",
    "vgg16_bn",
    "vit_b_16",
)
RESNET50 = {
    0.1: (20_837_770, 3_334_201_847),
    0.25: (14_771_992, 2_347_233_640),
    0.3: (12_935_549, 2_033_869_720),
    0.5: (6_917_640, 1_068_682_472),
    0.75: (1_993_976, 286_271_592),
}
VIT_B_16 = {0.25: 49_000_744, 0.75: 5_717_416}

# There half of the classes went as well, since the classifiers are convolutions and were not ignored; ours
# never touches what the model answers. So ours has these classes, each with its inputs and a bias.
OUTPUTS_THAT_WENT_THERE = {
    "deeplabv3_resnet50": 11 * (128 + 1),
    "fcn_resnet50": 11 * (256 + 1),
    "lraspp_mobilenet_v3_large": 11 * (20 + 1) + 11 * (64 + 1),
    "squeezenet1_1": 500 * (256 + 1),
}


def build(name: str) -> nn.Module:
    """On the meta device, where the architecture can be built on it."""
    with torch.device("cpu" if name.startswith("regnet") else "meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(segmentation, name):
            module: nn.Module = getattr(segmentation, name)(weights=None, weights_backbone=None)
        else:
            options = {"aux_logits": False, "init_weights": False} if name in INCEPTIONS else {}
            module = torchvision.models.get_model(name, weights=None, **options)
    return module.eval()


def inputs(module: nn.Module, name: str, *, samples: int) -> torch.Tensor:
    side = 299 if name == "inception_v3" else 224
    return torch.empty(samples, 3, side, side, device=next(module.parameters()).device)


def graph_of(module: nn.Module, name: str) -> DependencyGraph:
    return trace(module, lambda part: part(inputs(part, name, samples=2)))


def last_units(graph: DependencyGraph, ratio: float, *, multiple: int = 1) -> Removal:
    """All but the first int((1 - ratio) * C) of each group of C units."""
    kept = {
        group.name: (group.size, int((1 - ratio) * group.size) // multiple * multiple)
        for group in graph.groups
    }
    return {name: np.arange(stay, size) for name, (size, stay) in kept.items()}


def parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def softmax_of_lost_heads(module: nn.Module) -> int:
    """There each head became half as wide; here half of them went, as many as stayed, with their scores."""
    heads = [part.num_heads for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
    return sum(heads) * (module.seq_length**2 if heads else 0)


def macs(module: nn.Module, name: str) -> int:
    """By Torch-Pruning's counter, which counts norms, pooling and softmax too."""
    counters = pytest.importorskip("torch_pruning").utils
    counted, _ = counters.count_ops_and_params(module, inputs(module, name, samples=1))
    return int(counted)


@pytest.fixture(autouse=True)
def any_algorithm() -> Iterator[None]:
    """Where another test asked for deterministic algorithms, a rehearsed upsampling keeps its width."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in GOLDEN]
)
def test_half_of_every_width_leaves_the_known_number_of_parameters(name):
    module = build(name)
    before, after = GOLDEN[name]["parameters"]
    graph = graph_of(module, name)

    assert parameters(module) == before

    remove(module, graph, last_units(graph, 0.5))

    assert parameters(module) == after + OUTPUTS_THAT_WENT_THERE.get(name, 0)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("resnet18", "mobilenet_v3_small") else pytest.param(name, marks=pytest.mark.slow)
        for name in GOLDEN
        if name not in OUTPUTS_THAT_WENT_THERE
    ],
)
def test_half_of_every_width_leaves_the_known_multiply_accumulates(name):
    module = build(name)
    graph = graph_of(module, name)
    remove(module, graph, last_units(graph, 0.5))

    counted = macs(module, name) + softmax_of_lost_heads(module)

    assert counted / 1e9 == pytest.approx(GOLDEN[name]["gmacs"][1], abs=0.5001e-4)


@pytest.mark.parametrize("ratio", list(RESNET50))
def test_resnet50_has_the_known_size_at_every_ratio(ratio):
    module = build("resnet50")
    graph = graph_of(module, "resnet50")

    remove(module, graph, last_units(graph, ratio))

    assert (parameters(module), macs(module, "resnet50")) == RESNET50[ratio]


def test_resnet50_has_the_known_size_with_widths_rounded_down_to_eight():
    module = build("resnet50")
    graph = graph_of(module, "resnet50")

    remove(module, graph, last_units(graph, 0.3, multiple=8))

    assert (parameters(module), macs(module, "resnet50")) == (12_635_392, 1_938_198_376)


@pytest.mark.parametrize("ratio", list(VIT_B_16))
def test_vit_has_the_known_size_at_every_ratio(ratio):
    # 0.3 is left out: it makes each of 12 heads 44 wide there and the whole model 528; ours has 8 heads of 64
    # and a model of int(0.7 * 768) = 537: 41,749,888 there and 42,047,761 here
    module = build("vit_b_16")
    graph = graph_of(module, "vit_b_16")

    remove(module, graph, last_units(graph, ratio))

    assert parameters(module) == VIT_B_16[ratio]
