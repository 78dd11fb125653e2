"""Permuted channels: more magnitude kept, and the same function, whatever the model is made of."""

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from workers.pruning.layers import Layer, prunable_layers
from workers.pruning.nm import eligible, nm_keep
from workers.pruning.permutation import Permuted, permute_for, search
from workers.pruning.structured.graph import Axis, DependencyGraph, Group
from workers.pruning.structured.trace import trace


def kept(channels: Tensor, n: int, m: int) -> float:
    """What `n` of `m` keeps of [channels, rows], by the mask maker itself."""
    return float((channels * nm_keep(channels, channels, n, m, kind="Conv1D")).sum())


@given(
    pattern=st.sampled_from([(2, 4), (1, 4), (1, 2), (4, 8)]),
    stripes=st.integers(1, 5),
    rows=st.integers(1, 6),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=30)
def test_the_search_gives_an_order_and_the_truth_about_it(pattern, stripes, rows, seed):
    n, m = pattern
    channels = torch.rand(stripes * m, rows, generator=torch.Generator().manual_seed(seed)) + 0.01

    order, before, after = search(channels, n, m, seed=seed)

    assert sorted(order.tolist()) == list(range(stripes * m))
    assert before == pytest.approx(kept(channels, n, m), rel=1e-5)
    assert after == pytest.approx(kept(channels[torch.from_numpy(order)], n, m), rel=1e-5)
    assert after >= before


def test_finds_the_best_order_of_two_stripes():
    channels = torch.rand(8, 3, generator=torch.Generator().manual_seed(1))

    _, _, after = search(channels, 2, 4, seed=0)

    halves = [{0, *rest} for rest in combinations(range(1, 8), 3)]
    best = max(kept(channels[[*half, *(set(range(8)) - half)]], 2, 4) for half in halves)
    assert after == pytest.approx(best, rel=1e-5)


def test_large_and_small_channels_are_mixed():
    channels = torch.tensor([9.0, 9, 9, 9, 1, 1, 1, 1])[:, None]

    _, before, after = search(channels, 2, 4, seed=0)

    assert (before, after) == (20.0, 36.0)


def test_one_seed_gives_one_order():
    channels = torch.rand(64, 8, generator=torch.Generator().manual_seed(3))

    assert np.array_equal(search(channels, 2, 4, seed=5)[0], search(channels, 2, 4, seed=5)[0])


class Residual(nn.Module):
    """A ResNet's block pair with a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        down = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2), nn.BatchNorm2d(16))
        self.blocks = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 16, 2, down))
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.blocks(self.norm(self.stem(inputs)).relu()).mean((2, 3)))


class Concat(nn.Module):
    """Two branches side by side, one of them depthwise, read by one convolution and flattened into a head."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 12, 3, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.join, self.head = nn.Conv2d(20, 8, 3), nn.Linear(8 * 4 * 4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        both = torch.cat([self.left(inputs).relu(), self.depthwise(self.right(inputs)).relu()], dim=1)
        return self.head(self.join(both).relu().flatten(1))


class GroupNormed(nn.Module):
    """The order of the channels matters to a group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.Conv2d(16, 4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.norm(self.first(inputs)).relu())


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def llama(**options: object) -> nn.Module:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=40,
        **options,
    )
    return LlamaForCausalLM(config)


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=16, bos_token_id=1, eos_token_id=1
        )
    )


IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(0, 40, (2, 7), generator=torch.Generator().manual_seed(0))

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    "mlp": (mlp, lambda module: module(ROWS)),
    "residual": (Residual, lambda module: module(IMAGES)),
    "concat": (Concat, lambda module: module(IMAGES)),
    "llama": (llama, lambda module: module(input_ids=TOKENS).logits),
    "tied llama": (lambda: llama(tie_word_embeddings=True), lambda module: module(input_ids=TOKENS).logits),
    "gpt2": (gpt2, lambda module: module(input_ids=TOKENS).logits),
}


def varied(module: nn.Module) -> nn.Module:
    """Channels of very different sizes, and norms that are not ones and zeros."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(torch.rand(tensor.shape[-1:], generator=generator) + 0.2)
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return module.eval()


def permuted(module: nn.Module, run: Callable[[nn.Module], Tensor]) -> tuple[Permuted, list[Layer]]:
    layers = [layer for layer in prunable_layers(module) if eligible(layer, 2, 4) is None]
    result = permute_for(module, trace(module, run), layers, 2, 4, outputs=lambda: run(module), seed=0)
    return result, layers


def kept_share(layers: list[Layer]) -> float:
    """Of the magnitude of all layers, what 2:4 keeps."""
    masks = [nm_keep(layer.weight, layer.weight.abs(), 2, 4, kind=layer.kind) for layer in layers]
    kept_sum = sum(
        float((layer.weight.detach().abs() * mask).sum()) for layer, mask in zip(layers, masks, strict=True)
    )
    return kept_sum / sum(float(layer.weight.detach().abs().sum()) for layer in layers)


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays_and_more_is_kept(name: str):
    build, run = MODELS[name]
    torch.manual_seed(1)
    module = varied(build())
    with torch.no_grad():
        before = run(module)
    share = kept_share([layer for layer in prunable_layers(module) if eligible(layer, 2, 4) is None])

    result, layers = permuted(module, run)

    with torch.no_grad():
        assert (run(module) - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    assert kept_share(layers) > share
    assert result.after > result.before
    assert len(result.notes) == 1  # nothing had to be put back


@given(
    widths=st.lists(st.integers(1, 5).map(lambda stripes: 4 * stripes), min_size=2, max_size=4),
    normed=st.booleans(),
    images=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=25)
def test_the_function_of_a_chain_of_any_widths_stays(widths, normed, images, seed):
    torch.manual_seed(seed)
    module = varied(chain(widths, normed=normed, images=images))
    example = torch.randn(3, widths[0], 5, 5) if images else torch.randn(5, widths[0])
    with torch.no_grad():
        before = module(example)

    permuted(module, lambda one: one(example))

    with torch.no_grad():
        assert (module(example) - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))


def chain(widths: list[int], *, normed: bool, images: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for read, made in pairwise(widths):
        layers.append(nn.Conv2d(read, made, 3, padding=1) if images else nn.Linear(read, made))
        if normed:
            layers.append(nn.BatchNorm2d(made) if images else nn.LayerNorm(made))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 3, 1) if images else nn.Linear(widths[-1], 3))


def test_heads_keep_their_order():
    torch.manual_seed(1)
    module = varied(llama())
    rows = module.model.layers[0].self_attn.k_proj.weight.detach().abs().sum(dim=1).clone()
    columns = module.model.layers[0].self_attn.o_proj.weight.detach().abs().sum(dim=0).clone()

    permuted(module, MODELS["llama"][1])

    attention = module.model.layers[0].self_attn
    assert torch.allclose(attention.k_proj.weight.abs().sum(dim=1), rows)
    assert torch.allclose(attention.o_proj.weight.abs().sum(dim=0), columns)


def test_an_order_that_the_outputs_depend_on_is_put_back_and_named():
    torch.manual_seed(1)
    module = varied(GroupNormed())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    places = (("first.weight", 0, "out"), ("first.bias", 0, "out"), ("norm.weight", 0, "norm"))
    places += (("norm.bias", 0, "norm"), ("last.weight", 1, "in"))
    units = np.arange(16)
    axes = tuple(Axis(tensor, dim, units, role) for tensor, dim, role in places)
    graph = DependencyGraph((Group("first", "channels", 16, axes, np.ones(16, dtype=np.int64)),), {})

    result = permute_for(
        module, graph, prunable_layers(module)[1:], 2, 4, outputs=lambda: module(IMAGES), seed=0
    )

    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert result.after == result.before
    assert "outputs depend on the order: first" in result.notes[1]


def test_a_traced_group_norm_keeps_its_function():
    torch.manual_seed(1)
    module = varied(GroupNormed())
    with torch.no_grad():
        before = module(IMAGES)

    permuted(module, lambda part: part(IMAGES))

    with torch.no_grad():
        assert (module(IMAGES) - before).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))


def test_the_note_states_both_shares():
    module = varied(mlp())

    result, _ = permuted(module, MODELS["mlp"][1])

    assert f"2:4 keeps {result.after:.2%}, not {result.before:.2%}" in result.notes[0]


def test_a_model_without_such_channels_says_so():
    module = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 4)).eval()

    result, _ = permuted(module, MODELS["mlp"][1])

    assert (result.before, result.after) == (1.0, 1.0)
    assert "No channels were permuted" in result.notes[0]


def test_two_runs_give_the_same_weights():
    def run_once() -> dict[str, Tensor]:
        torch.manual_seed(1)
        module = varied(mlp())
        permuted(module, MODELS["mlp"][1])
        return module.state_dict()

    one, other = run_once(), run_once()

    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
