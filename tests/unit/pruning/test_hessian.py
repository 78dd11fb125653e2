"""Hessians of layers and their damped inverses, against dense formulas in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workers.errors import ModelError
from workers.pruning.layers import Layer, prunable_layers
from workers.pruning.second_order import hessian as hessian_module
from workers.pruning.second_order.factor import invert
from workers.pruning.second_order.hessian import HessianSum, as_columns, write_columns


def layer(module: nn.Module) -> Layer:
    return prunable_layers(nn.Sequential(module))[0]


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 4), (3, 5, 6)),
    "transformers": (Conv1D(4, 6), (3, 5, 6)),
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 9)),
    "conv2d": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 3, 7, 8)),
    "same": (nn.Conv2d(2, 4, 4, padding="same"), (2, 2, 5, 5)),
    "reflect": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 5)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, padding=1, groups=4), (2, 4, 5, 5)),
    "conv3d": (nn.Conv3d(2, 4, 2), (2, 2, 3, 4, 3)),
    "one image": (nn.Conv2d(3, 4, 3), (3, 7, 7)),
}


def outputs_by_columns(module: nn.Module, inputs: Tensor) -> Tensor:
    """The layer's outputs [outputs, rows] without bias, as columns times unfolded inputs."""
    part = layer(module)
    if part.kind in hessian_module.CONVOLUTIONS:
        rows = torch.cat(list(hessian_module.unfolded(module, inputs)), dim=1)
    else:
        rows = inputs.reshape(1, -1, inputs.shape[-1])
    return (rows @ as_columns(part)).mT.reshape(-1, rows.shape[1])


@pytest.mark.parametrize("name", LAYERS)
def test_columns_times_rows_are_the_layers_outputs(name: str):
    module, shape = LAYERS[name]
    torch.manual_seed(1)
    inputs = torch.randn(shape)

    with torch.no_grad():
        outputs = module(inputs) - module(torch.zeros_like(inputs))
    is_convolution = layer(module).kind in hessian_module.CONVOLUTIONS
    channel = (0 if name == "one image" else 1) if is_convolution else -1
    expected = outputs.movedim(channel, 0).flatten(1)

    assert torch.allclose(outputs_by_columns(module, inputs), expected, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_hessian_weighs_a_change_by_its_output_error(name: str, monkeypatch: pytest.MonkeyPatch):
    module, shape = LAYERS[name]
    monkeypatch.setattr(hessian_module, "_PANEL", 4)
    monkeypatch.setattr(hessian_module, "_PIECE", 50)
    torch.manual_seed(2)
    inputs = torch.randn(shape)
    total = HessianSum(layer(module))

    total.add(inputs)
    total.add(2 * inputs)

    columns = as_columns(layer(module))
    assert total.total is not None
    full = total.total.triu() + total.total.triu(1).mT
    squared_error = 5 * outputs_by_columns(module, inputs).square().sum()
    assert torch.allclose((columns * (full @ columns)).sum(), squared_error, rtol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_columns_written_back_give_the_same_weight(name: str):
    part = layer(LAYERS[name][0])
    before = part.weight.detach().clone()
    columns = as_columns(part)

    write_columns(part, columns * 2)

    assert torch.equal(part.weight, before * 2)
    with torch.no_grad():
        part.weight.copy_(before)


def test_channels_at_one_kernel_position_are_neighbouring_columns():
    module = nn.Conv2d(4, 1, 2)
    with torch.no_grad():
        module.weight.copy_(torch.arange(16.0).view(1, 4, 2, 2))

    assert as_columns(layer(module))[0, :4, 0].tolist() == [0, 4, 8, 12]


def test_padding_tokens_do_not_count():
    module = nn.Linear(3, 2)
    inputs = torch.randn(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    masked, by_hand = HessianSum(layer(module)), HessianSum(layer(module))

    masked.add(inputs, mask)
    by_hand.add(torch.cat([inputs[0, :2], inputs[1, :3]])[None])

    assert masked.rows == 5
    assert torch.equal(masked.total, by_hand.total)


@given(columns=st.integers(1, 300), groups=st.integers(1, 2), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_the_factor_squared_is_the_damped_inverse(columns: int, groups: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(groups, columns + 5, columns, generator=generator)
    hessian = rows.mT @ rows
    mean = hessian.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    damped = hessian.double() + 0.01 * mean.view(-1, 1, 1) * torch.eye(columns)

    inverse, notes = invert(hessian.triu(), 0.01, name="a")

    product = inverse.factor.mT.double() @ inverse.factor.double()
    assert torch.allclose(product @ damped, torch.eye(columns, dtype=torch.float64), atol=2e-3)
    assert torch.equal(inverse.factor, inverse.factor.triu())
    assert torch.allclose(inverse.scale, inverse.factor.diagonal(dim1=-2, dim2=-1).square())
    assert notes == []


def test_columns_without_input_count_nothing():
    hessian = torch.diag(torch.tensor([2.0, 0.0, 4.0]))[None]

    inverse, _ = invert(hessian, 0.01, name="a")

    assert inverse.scale.isinf().tolist() == [[False, True, False]]
    assert inverse.factor.isfinite().all()


def test_a_layer_whose_inputs_are_all_zero_has_an_inverse():
    inverse, _ = invert(torch.zeros(1, 4, 4), 0.01, name="a")

    assert inverse.factor.isfinite().all()


def test_a_singular_hessian_is_damped_more_and_says_so():
    hessian = torch.ones(1, 3, 3) * 4.0
    hessian[0, 0, 2] = hessian[0, 2, 0] = 4.01  # not even positive semi-definite

    inverse, notes = invert(hessian, 1e-6, name="encoder.fc1")

    assert inverse.factor.isfinite().all()
    assert notes == ["encoder.fc1: the Hessian is singular; damp was raised from 1e-06 to 0.01"]


def test_a_hessian_that_no_damping_mends_is_refused():
    hessian = torch.tensor([[[1.0, 9.0], [9.0, 1.0]]])

    with pytest.raises(ModelError, match=r"'fc1' is singular even when damped"):
        invert(hessian, 0.01, name="fc1")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused(bad: float):
    total = HessianSum(layer(nn.Linear(3, 2)))
    total.add(torch.tensor([[1.0, bad, 2.0]]))
    assert total.total is not None

    with pytest.raises(ModelError, match="NaN or infinity"):
        invert(total.total, 0.01, name="fc1")
