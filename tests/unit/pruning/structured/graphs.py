"""Small models whose dependency graphs are written by hand: what the cut is tested on, without a tracer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from workers.pruning.structured.graph import Axis, DependencyGraph, Group, Kind, Role

WIDE = 0.3
"""Spread of a transformer's weights: with the usual 0.02 no head changes a score by more than 1e-5."""


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def axis(tensor: str, dim: int, role: Role, units: list[int] | range) -> Axis:
    return Axis(tensor, dim, np.array(list(units), dtype=np.int64), role)


def layer(name: str, size: int, *, bias: bool = True, dim: int = 0, each: int = 1) -> list[Axis]:
    """What makes `size` units of `each` rows: weight and bias."""
    units = np.repeat(np.arange(size), each)
    made = [Axis(f"{name}.weight", dim, units, "out")]
    return [*made, Axis(f"{name}.bias", 0, units, "out")] if bias else made


def reader(name: str, size: int, *, dim: int = 1, each: int = 1) -> list[Axis]:
    """What reads them."""
    return [Axis(f"{name}.weight", dim, np.repeat(np.arange(size), each), "in")]


def batch_norm(name: str, size: int) -> list[Axis]:
    return [
        axis(f"{name}.{part}", 0, "norm", range(size))
        for part in ("weight", "bias", "running_mean", "running_var")
    ]


def group(name: str, kind: Kind, axes: list[Axis], *, each: int = 1) -> Group:
    size = int(max(one.units.max() for one in axes)) + 1
    return Group(name, kind, size, tuple(axes), np.full(size, each, dtype=np.int64))


def graph(*groups: Group, **frozen: str) -> DependencyGraph:
    return DependencyGraph(groups, frozen)


@dataclass
class Case:
    """A model in eval mode, its graph and an input."""

    module: nn.Module
    graph: DependencyGraph
    inputs: dict[str, Tensor]

    def output(self, module: nn.Module | None = None) -> Tensor:
        answer = (module or self.module)(**self.inputs)
        return answer if isinstance(answer, Tensor) else answer.logits


def mlp() -> Case:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))
    return Case(
        module.eval(),
        graph(group("0", "neurons", layer("0", 8) + reader("2", 8)), **{"2": "makes the output"}),
        {"input": torch.randn(5, 6)},
    )


class BasicBlock(nn.Module):
    """A stem and one residual block, as in a ResNet: the stem's channels are the block's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.first, self.first_norm = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.second_norm = nn.Conv2d(16, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        skip = torch.relu(self.stem_norm(self.stem(pixels)))
        inner = torch.relu(self.first_norm(self.first(skip)))
        return self.head(torch.relu(self.second_norm(self.second(inner)) + skip).mean(dim=(2, 3)))


def shake(module: nn.Module) -> nn.Module:
    """Norms of a trained model: no scale is one, no mean zero."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.eval()


def residual() -> Case:
    torch.manual_seed(0)
    trunk = [
        *layer("stem", 8, bias=False),
        *batch_norm("stem_norm", 8),
        *reader("first", 8),
        *layer("second", 8, bias=False),
        *batch_norm("second_norm", 8),
        *reader("head", 8),
    ]
    inner = [*layer("first", 16, bias=False), *batch_norm("first_norm", 16), *reader("second", 16)]
    return Case(
        shake(BasicBlock()),
        graph(group("stem", "channels", trunk), group("first", "channels", inner), head="makes the output"),
        {"pixels": torch.randn(2, 3, 6, 6)},
    )


class Dense(nn.Module):
    """Two layers whose outputs are concatenated, normalised together and read together, as in a DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(10), nn.Conv2d(10, 2, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        one = self.one(pixels)
        return self.last(torch.relu(self.norm(torch.cat([one, self.two(one)], 1))))


def concatenated() -> Case:
    torch.manual_seed(0)
    places = {"one": [*range(4), *[-1] * 6], "two": [*[-1] * 4, *range(6)]}
    shared = {
        name: [
            *(
                axis(f"norm.{part}", 0, "norm", units)
                for part in ("weight", "bias", "running_mean", "running_var")
            ),
            axis("last.weight", 1, "in", units),
        ]
        for name, units in places.items()
    }
    return Case(
        shake(Dense()),
        graph(
            group("one", "channels", [*layer("one", 4), *reader("two", 4), *shared["one"]]),
            group("two", "channels", [*layer("two", 6), *shared["two"]]),
        ),
        {"pixels": torch.randn(2, 3, 5, 5)},
    )


def llama(*, whole_groups: bool = True) -> Case:
    """8 query heads of 4 channels over 2 key and value heads, one layer; a unit is a whole group, or a query
    head by itself."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=16,
        initializer_range=WIDE,
    )
    at = "model.layers.0.self_attn"
    each = 16 if whole_groups else 4
    size = 32 // each
    axes = layer(f"{at}.q_proj", size, bias=False, each=each) + reader(f"{at}.o_proj", size, each=each)
    if whole_groups:
        axes += layer(f"{at}.k_proj", 2, bias=False, each=4) + layer(f"{at}.v_proj", 2, bias=False, each=4)
    mlp_at = "model.layers.0.mlp"
    neurons = [
        *layer(f"{mlp_at}.gate_proj", 24, bias=False),
        *layer(f"{mlp_at}.up_proj", 24, bias=False),
        *reader(f"{mlp_at}.down_proj", 24),
    ]
    return Case(
        LlamaForCausalLM(config).eval(),
        graph(group(at, "heads", axes, each=each), group(mlp_at, "neurons", neurons)),
        {"input_ids": torch.randint(0, 20, (2, 7))},
    )


def gpt2() -> Case:
    """4 heads of 4 channels, query, key and value fused in one weight [in, out]."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=20,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_inner=24,
        initializer_range=WIDE,
        **NO_DROPOUT,
    )
    groups = []
    for number in range(2):
        at = f"transformer.h.{number}"
        heads = list(np.repeat(np.arange(4), 4)) * 3
        groups += [
            group(
                f"{at}.attn",
                "heads",
                [
                    axis(f"{at}.attn.c_attn.weight", 1, "out", heads),
                    axis(f"{at}.attn.c_attn.bias", 0, "out", heads),
                    *reader(f"{at}.attn.c_proj", 4, dim=0, each=4),
                ],
                each=4,
            ),
            group(
                f"{at}.mlp.c_fc",
                "neurons",
                layer(f"{at}.mlp.c_fc", 24, dim=1) + reader(f"{at}.mlp.c_proj", 24, dim=0),
            ),
        ]
    return Case(GPT2LMHeadModel(config).eval(), graph(*groups), {"input_ids": torch.randint(0, 20, (2, 7))})


def bert() -> Case:
    """2 layers, 4 heads of 4 channels, 24 neurons."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=16,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        classifier_dropout=0.0,
        initializer_range=WIDE,
    )
    groups = []
    for number in range(2):
        at = f"bert.encoder.layer.{number}"
        made = [
            one
            for part in ("query", "key", "value")
            for one in layer(f"{at}.attention.self.{part}", 4, each=4)
        ]
        groups += [
            group(
                f"{at}.attention.self",
                "heads",
                made + reader(f"{at}.attention.output.dense", 4, each=4),
                each=4,
            ),
            group(
                f"{at}.intermediate.dense",
                "neurons",
                layer(f"{at}.intermediate.dense", 24) + reader(f"{at}.output.dense", 24),
            ),
        ]
    return Case(
        BertForSequenceClassification(config).eval(),
        graph(*groups),
        {"input_ids": torch.randint(1, 20, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.int64)},
    )


def encoder() -> Case:
    """A layer of torch's own transformer: packed query, key and value; 4 heads of 4 channels."""
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(16, 4, dim_feedforward=24, batch_first=True, dropout=0.0)
    heads = list(np.repeat(np.arange(4), 4)) * 3
    nn.init.normal_(module.self_attn.in_proj_bias)
    return Case(
        module.eval(),
        graph(
            group(
                "self_attn",
                "heads",
                [
                    axis("self_attn.in_proj_weight", 0, "out", heads),
                    axis("self_attn.in_proj_bias", 0, "out", heads),
                    *reader("self_attn.out_proj", 4, each=4),
                ],
                each=4,
            ),
            group("linear1", "neurons", layer("linear1", 24) + reader("linear2", 24)),
        ),
        {"src": torch.randn(2, 5, 16)},
    )


class Grouped(nn.Module):
    """A 1x1 convolution, one in 2 groups, a depthwise one, and a group norm of 4 groups."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.GroupNorm(4, 8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.last(self.norm(self.depthwise(self.grouped(self.wide(pixels)))))


def grouped() -> Case:
    """In the grouped convolution a unit is one channel of each group; behind it, in the norm, a pair."""
    torch.manual_seed(0)
    inputs = [*range(4), *range(4)]
    pairs = [0, 1, 0, 1, 0, 1, 0, 1]
    return Case(
        Grouped().eval(),
        graph(
            group(
                "wide",
                "channels",
                [
                    axis("wide.weight", 0, "out", inputs),
                    axis("wide.bias", 0, "out", inputs),
                    axis("grouped.weight", 1, "in", range(4)),
                ],
                each=2,
            ),
            group(
                "grouped",
                "channels",
                [
                    axis("grouped.weight", 0, "out", pairs),
                    axis("grouped.bias", 0, "out", pairs),
                    axis("depthwise.weight", 0, "out", pairs),
                    axis("depthwise.bias", 0, "out", pairs),
                    axis("norm.weight", 0, "norm", pairs),
                    axis("norm.bias", 0, "norm", pairs),
                    axis("last.weight", 1, "in", pairs),
                ],
                each=4,
            ),
        ),
        {"pixels": torch.randn(2, 3, 5, 5)},
    )


CASES = {
    "mlp": mlp,
    "residual": residual,
    "concatenated": concatenated,
    "llama": llama,
    "gpt2": gpt2,
    "bert": bert,
    "encoder": encoder,
    "grouped": grouped,
}
