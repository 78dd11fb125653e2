"""SparseGPT on whole models: order, inputs that are pruned by then, blocks that are entered in the middle."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from schemas.task import Task
from tests.unit.pruning.small import small_module
from workers.data.bundle import Bundle, Split
from workers.errors import PreflightError
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.calibration import Calibration
from workers.pruning.layers import prunable_layers
from workers.pruning.nm import holds
from workers.pruning.second_order import walk as walk_module
from workers.pruning.second_order.sparsegpt import sparsegpt
from workers.pruning.second_order.walk import Walk

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 50,
}


def calibration_of(
    module: nn.Module, inputs: dict[str, Tensor], call: Callable[[nn.Module, Batch], Tensor]
) -> Calibration:
    labels = torch.zeros(len(next(iter(inputs.values()))), dtype=torch.int64)
    bundle = Bundle(Split(inputs, labels), Split(inputs, labels), dict)
    model = LoadedModel(
        module.eval(),
        "test/Any",
        Task.image_classification,
        3,
        Path(),
        None,
        1,
        lambda part, batch: call(part, batch),
    )
    return Calibration(model, bundle, 0, 4, lambda: None)


def on_images(module: nn.Module, *, channels: int = 1) -> Calibration:
    images = torch.randn(12, channels, 6, 6, generator=torch.Generator().manual_seed(3))
    return calibration_of(module, {"pixel_values": images}, lambda part, batch: part(batch["pixel_values"]))


def on_tokens(module: nn.Module, call: Callable[[nn.Module, Batch], Tensor] | None = None) -> Calibration:
    tokens = torch.randint(0, 50, (10, 7), generator=torch.Generator().manual_seed(3))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return calibration_of(module, inputs, call or (lambda part, batch: part(**batch).logits))


def llama() -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **SMALL))


def bert() -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SMALL))


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_layer=4, n_head=4, vocab_size=50, bos_token_id=1, eos_token_id=1)
    )


def half(calibration: Calibration, nm: tuple[int, int] | None = None, block: int = 8) -> list[str]:
    layers = prunable_layers(calibration.model.module)
    shares = {layer.name: 0.5 for layer in layers}
    if nm:
        layers = [layer for layer in layers if layer.name not in ("0", "8")]
    return sparsegpt(layers, calibration, samples=12, block=block, damp=0.01, shares=shares, nm=nm)


def test_every_layer_loses_exactly_its_share():
    calibration = on_images(small_module())
    layers = prunable_layers(calibration.model.module)
    shares = {layer.name: share for layer, share in zip(layers, (0.3, 0.75, 0.5), strict=True)}

    sparsegpt(layers, calibration, samples=12, block=16, damp=0.01, shares=shares, nm=None)

    for layer in layers:
        assert int((layer.weight == 0).sum()) == round(shares[layer.name] * layer.weight.numel())


def test_the_pattern_holds_in_convolutions_and_linear_layers():
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(32, 3)
    )
    calibration = on_images(module, channels=4)

    sparsegpt(prunable_layers(module), calibration, samples=12, block=16, damp=0.01, shares={}, nm=(2, 4))

    for layer in prunable_layers(module):
        assert holds(layer.weight, 2, 4, kind=layer.kind)
        assert int((layer.weight != 0).sum()) == layer.weight.numel() // 2


def test_a_convolution_over_the_whole_image_is_solved_as_the_linear_layer_it_is():
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 5, 6)
    linear = nn.Linear(36, 5)
    with torch.no_grad():
        linear.weight.copy_(conv.weight.flatten(1))

    half(on_images(nn.Sequential(conv, nn.Flatten())))
    half(on_images(nn.Sequential(nn.Flatten(), linear)))

    assert torch.allclose(conv.weight.flatten(1), linear.weight, atol=1e-6)


def test_zeros_stay_and_a_second_round_adds_to_them():
    calibration = on_tokens(llama())
    half(calibration)
    before = {layer.name: layer.weight == 0 for layer in prunable_layers(calibration.model.module)}
    layers = prunable_layers(calibration.model.module)
    shares = {layer.name: 0.7 for layer in layers}

    sparsegpt(layers, calibration, samples=12, block=8, damp=0.01, shares=shares, nm=None)

    for layer in layers:
        assert (layer.weight[before[layer.name]] == 0).all()
        assert int((layer.weight == 0).sum()) == round(0.7 * layer.weight.numel())


@pytest.mark.parametrize("build", [llama, bert, gpt2])
def test_entering_blocks_in_the_middle_gives_the_same_weights(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
):
    entered, plain = build(), build()

    half(on_tokens(entered))
    monkeypatch.setattr(walk_module, "blocks_of", lambda *_: [])
    half(on_tokens(plain))

    for one, other in zip(entered.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_blocks_too_large_to_keep_are_reached_from_the_start(monkeypatch: pytest.MonkeyPatch):
    entered, plain = llama(), llama()

    half(on_tokens(entered))
    monkeypatch.setattr(walk_module, "CACHE_BYTES", 100)
    half(on_tokens(plain))

    for one, other in zip(entered.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def runs_of_first_block(walk: Walk, block: nn.Module) -> Iterator[int]:
    """How often the block's first layer runs for each stage of the model."""
    for stage in walk.stages:
        runs: list[int] = []
        with block.q_proj.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1)):
            list(walk.inputs(stage))
        yield len(runs)


def test_the_first_block_runs_no_more_once_its_outputs_are_kept():
    module = llama()
    walk = Walk(prunable_layers(module), on_tokens(module), 12)

    runs = list(runs_of_first_block(walk, module.model.layers[0].self_attn))

    assert runs[:5] == [0, 3, 3, 3, 3]  # three batches: for its later stages, then to learn what it gives out
    assert set(runs[5:-1]) == {0}


def test_layers_that_read_the_same_tensor_share_a_stage():
    module = llama()

    walk = Walk(prunable_layers(module), on_tokens(module), 12)

    names = [[layer.name.rsplit(".", 1)[-1] for layer in stage.layers] for stage in walk.stages]
    assert names == [
        ["q_proj", "k_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ] * 4 + [["lm_head"]]


def test_blocks_that_need_more_than_the_block_before_are_not_entered():
    torch.manual_seed(0)
    module = T5ForConditionalGeneration(
        T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=3, num_heads=4, vocab_size=50)
    )
    calibration = on_tokens(
        module, lambda part, batch: part(**batch, decoder_input_ids=batch["input_ids"]).logits
    )

    walk = Walk(prunable_layers(module), calibration, 12)

    assert {len(stage.chain) for stage in walk.stages} == {0}


class Skipping(nn.Module):
    """Its last block is scaled by what the first gives out, behind the back of those between."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Scaled() for _ in range(4)])

    def forward(self, images: Tensor) -> Tensor:
        hidden = first = self.blocks[0](images.flatten(1), torch.ones(1))
        for block in self.blocks[1:]:
            hidden = block(hidden, first.mean())
        return hidden


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 36)

    def forward(self, hidden: Tensor, scale: Tensor) -> Tensor:
        return torch.tanh(self.fc(hidden) * scale)


def test_a_skip_around_blocks_is_noticed():
    module = Skipping()

    walk = Walk(prunable_layers(module), on_images(module), 12)

    assert {len(stage.chain) for stage in walk.stages} == {0}


class InPlace(nn.Module):
    """A chain whose blocks write into their own input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.Sequential(
            *[nn.Sequential(nn.ReLU(inplace=True), nn.Linear(36, 36), nn.Linear(36, 36)) for _ in range(3)]
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images.flatten(1) + 0)


def test_blocks_that_work_in_place_do_not_spoil_what_is_kept(monkeypatch: pytest.MonkeyPatch):
    entered, plain = InPlace(), InPlace()

    half(on_images(entered))
    monkeypatch.setattr(walk_module, "blocks_of", lambda *_: [])
    half(on_images(plain))

    for one, other in zip(entered.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.unused = nn.Linear(36, 36), nn.Linear(36, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = images.flatten(1)
        for _ in range(3):
            hidden = torch.tanh(self.cell(hidden))
        return hidden


def test_a_layer_that_runs_three_times_is_weighed_by_all_its_inputs():
    module = Recurrent()
    walk = Walk(prunable_layers(module), on_images(module), 12)

    inputs = [tensor for tensor, _ in walk.inputs(walk.stages[0])]

    assert [len(tensor) for tensor in inputs] == [4] * 9
    assert torch.equal(inputs[1], torch.tanh(module.cell(inputs[0])))


def test_a_layer_that_no_sample_reaches_is_cut_by_magnitude_and_named():
    module = Recurrent()
    before = module.unused.weight.detach().abs().clone()

    notes = half(on_images(module))

    gone = module.unused.weight == 0
    assert gone.sum() == 72
    assert before[gone].max() <= before[~gone].min()
    assert any("cut by magnitude: unused" in note for note in notes)


def test_layers_with_fewer_rows_than_inputs_are_named():
    notes = half(on_images(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))))

    assert any("singular but for the damping: 1" in note for note in notes)


def test_transposed_convolutions_are_refused_by_name():
    module = nn.Sequential(nn.ConvTranspose2d(1, 4, 3), nn.Flatten(), nn.Linear(256, 2))

    with pytest.raises(PreflightError, match=r"cannot solve ConvTranspose2d layers \(0\).*method.exclude"):
        half(on_images(module))


def test_a_layer_that_cannot_take_the_pattern_is_a_callers_mistake():
    module = small_module()

    with pytest.raises(ValueError, match="multiple of 4 inputs"):
        sparsegpt(
            prunable_layers(module), on_images(module), samples=4, block=8, damp=0.01, shares={}, nm=(2, 4)
        )


def test_two_runs_give_the_same_weights():
    one, other = llama(), llama()

    half(on_tokens(one))
    half(on_tokens(other))

    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)
