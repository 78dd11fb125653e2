"""Figures of a model, against counts by hand."""

import gzip
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from schemas.method import Unstructured
from tests.unit.pruning.small import loaded, small_module
from workers.figures import gzip_bytes, layer_figures, macs_of, model_figures
from workers.pruning.cut import cut
from workers.pruning.layers import choose, prunable_layers

SAMPLE = {"pixel_values": torch.randn(1, 1, 6, 6)}
MACS = 36 * 8 * 9 + 36 * 24 * 8 * 9 + 24 * 3


def test_counts_multiply_accumulates_of_convolutions_and_linear_layers():
    model = loaded(small_module())

    assert macs_of(model, tuple(prunable_layers(model.module)), SAMPLE) == (MACS, MACS)


def test_effective_macs_follow_the_density_of_each_layer():
    model = loaded(small_module())
    with torch.no_grad():
        model.module[3].weight[:12] = 0
        model.module[8].weight[0] = 0

    _, effective = macs_of(model, tuple(prunable_layers(model.module)), SAMPLE)

    assert effective == 36 * 8 * 9 + 36 * 24 * 8 * 9 // 2 + 24 * 2


def test_counts_groups_and_transposed_convolutions():
    module = nn.Sequential(nn.ConvTranspose2d(1, 8, 3, stride=2), nn.Conv2d(8, 8, 3, groups=4))
    model = loaded(module)

    total, _ = macs_of(model, tuple(prunable_layers(module)), SAMPLE)

    assert total == 36 * 8 * 9 + 8 * 11 * 11 * 2 * 9


@pytest.mark.parametrize("is_trainable", [True, False])
def test_counts_the_products_inside_attention(is_trainable: bool):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).requires_grad_(is_trainable)
    model = loaded(layer)

    total, _ = macs_of(model, (), {"pixel_values": torch.randn(1, 5, 8)})

    assert total == 5 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 5 * 5 * 8


def test_a_model_that_is_one_layer_counts_too():
    module = nn.Linear(6, 4)
    with torch.no_grad():
        module.weight[0] = 0

    assert macs_of(loaded(module), tuple(prunable_layers(module)), {"pixel_values": torch.randn(1, 6)}) == (
        24,
        18,
    )


def test_says_nothing_where_nothing_can_be_counted():
    module = nn.BatchNorm2d(1)

    assert macs_of(loaded(module), (), SAMPLE) == (None, None)


def test_compressed_size_is_that_of_gzip_at_level_6(tmp_path: Path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(range(256)) * 9000 + bytes(3_000_000))

    size = gzip_bytes(file)

    assert abs(size - len(gzip.compress(file.read_bytes(), 6))) <= 16


def test_model_figures_shrink_with_the_cut_only_where_they_should(tmp_path: Path):
    model = loaded(small_module())
    choice = choose(prunable_layers(model.module), Unstructured())
    figures = []
    for sparsity in (0.0001, 0.8):
        cut(
            choice,
            Unstructured(),
            sparsity,
            calibration=None,
            evaluate=None,
            movement=None,
            seed=0,
            number=1,
        )
        save_file(model.module.state_dict(), tmp_path / "model.safetensors")
        figures.append(
            model_figures(model, choice, sample=SAMPLE, file=tmp_path / "model.safetensors", metric=0.5)
        )

    dense, pruned = figures
    assert dense.parameters == pruned.parameters == 72 + 8 + 8 + 8 + 1728 + 24 + 72 + 3
    assert dense.nonzeros - pruned.nonzeros == round(0.8 * 1872)
    assert dense.bytes == pruned.bytes == (tmp_path / "model.safetensors").stat().st_size
    assert pruned.compressed_bytes < 0.6 * dense.compressed_bytes
    assert dense.macs == pruned.macs == MACS
    assert pruned.effective_macs < dense.effective_macs


def test_layer_figures_say_what_was_left_dense_and_why():
    module = small_module()
    choice = choose(prunable_layers(module), Unstructured(exclude=("8",)))
    with torch.no_grad():
        module[3].weight[:6] = 0

    first, second, last = layer_figures(choice)

    assert (first.name, first.kind, first.shape, first.pruned) == ("0", "Conv2d", [8, 1, 3, 3], True)
    assert (second.weights, second.zeros, second.sparsity) == (1728, 432, 0.25)
    assert (last.pruned, last.reason) == (False, "excluded by '8'")
