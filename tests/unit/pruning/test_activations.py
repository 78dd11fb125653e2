"""Norms of inputs, for every kind of layer, against autograd."""

from dataclasses import replace

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn
from transformers.pytorch_utils import Conv1D

from tests.unit.pruning.cuts import calibrated, layer_of
from tests.unit.pruning.small import small_bundle, small_module
from workers.errors import PreflightError
from workers.pruning.activations import input_norms, squared_inputs
from workers.pruning.layers import prunable_layers
from workers.pruning.rows import by_rows

LAYERS = {
    "padded by a subclass": (Conv2dSame(3, 4, 3, stride=2), (2, 3, 6, 7)),
    "dilated and padded by a subclass": (Conv2dSame(3, 4, 4, dilation=2), (2, 3, 6, 7)),
    "linear": (nn.Linear(5, 3), (2, 4, 5)),
    "conv1d of transformers": (Conv1D(3, 5), (2, 4, 5)),
    "conv": (nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    "padded": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 5)),
    "same": (nn.Conv2d(3, 4, (2, 3), padding="same"), (2, 3, 5, 5)),
    "strided": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (2, 3, 6, 7)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=2, padding=2), (2, 3, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1), (2, 4, 5, 5)),
    "circular": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 5, 5)),
    "reflect": (nn.Conv2d(2, 3, 3, padding=2, padding_mode="reflect"), (2, 2, 5, 5)),
    "one sample": (nn.Conv2d(3, 4, 3), (3, 6, 6)),
    "patches": (nn.Conv2d(3, 4, 4, stride=4), (2, 3, 8, 8)),
    "conv 1d": (nn.Conv1d(3, 4, 3, stride=2), (2, 3, 9)),
    "conv 3d": (nn.Conv3d(2, 3, 2, padding=1), (2, 2, 4, 3, 3)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5)),
    "transposed and cropped": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
        (2, 4, 5, 4),
    ),
    "transposed and cropped to a point": (nn.ConvTranspose1d(2, 3, 5, padding=2), (2, 2, 1)),
    "transposed 3d": (nn.ConvTranspose3d(2, 2, 2, stride=2), (1, 2, 2, 3, 2)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_squares_are_summed_over_what_each_weight_multiplies(name: str):
    """The sum of a layer's outputs for squared inputs has Σ x² as its derivative by each weight."""
    module, shape = LAYERS[name]
    layer, inputs = layer_of(module), torch.randn(shape)
    (derivative,) = torch.autograd.grad(module(inputs.square()).sum(), [module.weight])

    found = squared_inputs(layer, inputs, module(inputs))

    rows = by_rows(layer, derivative)
    assert torch.allclose(found.unsqueeze(1).expand(rows.shape), rows, rtol=1e-4, atol=1e-5)


def test_norms_go_over_all_batches():
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    bundle = small_bundle(train=40)
    images = bundle.train.inputs["pixel_values"].flatten(1)

    norms = input_norms(prunable_layers(module), calibrated(module, bundle=bundle), 40)

    assert torch.allclose(norms["1"], images.norm(dim=0).unsqueeze(0), rtol=1e-5)


def test_the_norms_of_a_convolution_inside_a_model_are_those_of_its_own_inputs():
    module = small_module().eval()
    bundle = small_bundle(train=16)
    images = bundle.train.inputs["pixel_values"]
    inputs = module[:3](images).detach()
    expected = squared_inputs(prunable_layers(module)[1], inputs, module[3](inputs)).sqrt()

    norms = input_norms(prunable_layers(module), calibrated(module, bundle=bundle), 16)

    assert torch.allclose(norms["3"], expected, rtol=1e-4)


def test_tokens_behind_the_attention_mask_do_not_count():
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x).mean(dim=1)

    module, bundle = Text(), small_bundle(train=1)
    tokens = torch.tensor([[[3.0, 1.0], [4.0, 1.0], [99.0, 99.0]]])
    mask = torch.tensor([[1, 1, 0]])
    inputs = {"pixel_values": tokens, "attention_mask": mask}
    bundle = replace(bundle, train=replace(bundle.train, inputs=inputs))

    norms = input_norms(prunable_layers(module), calibrated(module, bundle=bundle), 1)

    assert torch.allclose(norms["head"], torch.tensor([[5.0, 2**0.5]]))


def test_a_layer_that_never_runs_compares_by_magnitude():
    module = nn.ModuleDict({"used": nn.Linear(36, 3), "spare": nn.Conv2d(4, 6, 3, groups=2)})
    calibration = calibrated(module)
    model = replace(
        calibration.model, call=lambda part, batch: part["used"](batch["pixel_values"].flatten(1))
    )

    norms = input_norms(prunable_layers(module), replace(calibration, model=model), 8)

    assert norms["spare"].shape == (2, 2, 3, 3)
    assert (norms["spare"] == 1).all()


def test_an_input_that_is_nan_is_refused_with_the_layer():
    module, bundle = small_module(), small_bundle(train=4)
    bundle.train.inputs["pixel_values"][0, 0, 0, 0] = float("nan")

    with pytest.raises(PreflightError, match="input of layer '0' is NaN"):
        input_norms(prunable_layers(module), calibrated(module, bundle=bundle), 4)


def test_no_hooks_stay_behind():
    module = small_module()

    input_norms(prunable_layers(module), calibrated(module), 8)

    assert not any(part._forward_hooks for part in module.modules())
