"""Norms of what each weight of a row is multiplied with, streamed: one vector for each layer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from workers.errors import PreflightError
from workers.pruning.calibration import Calibration, measuring
from workers.pruning.layers import Layer


@torch.no_grad()
def input_norms(layers: Sequence[Layer], calibration: Calibration, samples: int) -> dict[str, Tensor]:
    """‖x‖₂ over all samples and positions, by layer name: [groups, inputs, kernel…] float32.

    Of a convolution at each kernel position, padding included; of a transposed one without the products that
    fall outside its output. Tokens that an attention mask hides do not count. All norms are those of
    the model as it is, where the paper's code goes on with layers that are cut already. A layer that the pass
    does not run (its owner multiplies with its weight itself) gets ones, so its weights compare by magnitude.
    Raises PreflightError where an input is NaN or infinite.
    """
    sums = _Sums()
    with ExitStack() as stack:
        stack.enter_context(measuring(calibration.model.module))
        for layer in layers:
            handle = layer.module.register_forward_hook(sums.adder(layer), with_kwargs=True)
            stack.callback(handle.remove)
        for inputs, _ in calibration.batches(samples):
            sums.mask = inputs.get("attention_mask")
            calibration.model.logits(inputs)
    for name, total in sums.totals.items():
        if not bool(total.isfinite().all()):
            raise PreflightError(
                f"the input of layer '{name}' is NaN or infinite on the calibration samples: check the "
                "data, or use method.criterion 'magnitude'"
            )
    return {
        layer.name: sums.totals[layer.name].sqrt().float() if layer.name in sums.totals else _ones(layer)
        for layer in layers
    }


class _Sums:
    """Σ x² by layer, in double precision, as many numbers as a row has weights."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.mask: Tensor | None = None

    def adder(self, layer: Layer) -> Callable[..., None]:
        def add(_: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], output: Tensor) -> None:
            inputs = given[0] if given else next(iter(named.values()))
            if self.mask is not None and inputs.dim() == 3 and inputs.shape[:2] == self.mask.shape:
                inputs = inputs[self.mask.bool()]
            squares = squared_inputs(layer, inputs, output).double()
            self.totals[layer.name] = self.totals.get(layer.name, 0) + squares

        return add


def squared_inputs(layer: Layer, inputs: Tensor, output: Tensor) -> Tensor:
    """Σ x² [groups, inputs, kernel…] over samples and positions of one call of the layer.

    Samples are summed first, so no more is held than the squares of the inputs.
    """
    if not isinstance(layer.module, nn.modules.conv._ConvNd):  # features come last
        return inputs.float().square().flatten(0, -2).sum(dim=0).unsqueeze(0)
    squares = inputs.float().square()
    if inputs.dim() == layer.weight.dim():
        squares = squares.sum(dim=0)
    taps = _transposed_taps if layer.module.transposed else _taps
    return taps(layer.module, squares, output.shape[2 - layer.weight.dim() :])


def _taps(module: nn.modules.conv._ConvNd, squares: Tensor, output: Sequence[int]) -> Tensor:
    """[groups, channels / groups, kernel…]: each position of the kernel sees a strided part of the squares
    [channels, spatial…]."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(squares.unsqueeze(0), module._reversed_padding_repeated_twice, mode=mode).squeeze(0)
    padded = _as_tensorflow_pads(module, padded, output)
    seen = padded.new_empty((len(padded), *module.kernel_size))
    steps = list(zip(module.stride, module.dilation, output, strict=True))
    for place in product(*map(range, module.kernel_size)):
        window = [
            slice(at * dilation, at * dilation + stride * (size - 1) + 1, stride)
            for at, (stride, dilation, size) in zip(place, steps, strict=True)
        ]
        _put(seen, place, padded, window)
    return seen.view(module.groups, -1, *module.kernel_size)


def _put(seen: Tensor, place: Sequence[int], squares: Tensor, window: Sequence[slice]) -> None:
    """Sum the window of `squares` [channels, spatial…] into `place` of `seen` [channels, kernel…]."""
    into: tuple[slice | int, ...] = (slice(None), *place)
    seen[into] = squares[(slice(None), *window)].flatten(1).sum(dim=1)


def _as_tensorflow_pads(module: nn.modules.conv._ConvNd, squares: Tensor, output: Sequence[int]) -> Tensor:
    """What a subclass pads in its own forward, as timm's Conv2dSame does: the odd one at the end."""
    pads: list[int] = []
    for axis, size in enumerate(output):
        needed = module.stride[axis] * (size - 1) + module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        missing = max(needed - squares.shape[axis + 1], 0)
        pads = [missing // 2, missing - missing // 2, *pads]
    return F.pad(squares, pads)


def _transposed_taps(module: nn.modules.conv._ConvNd, squares: Tensor, output: Sequence[int]) -> Tensor:
    """The same for a transposed convolution: input i meets position k where i · stride + k · dilation −
    padding lies in the output."""
    seen = squares.new_empty((len(squares), *module.kernel_size))
    sizes = squares.shape[1:]
    for place in product(*map(range, module.kernel_size)):
        window: list[slice] = []
        for axis, at in enumerate(place):
            stride, padding = module.stride[axis], module.padding[axis]
            assert isinstance(padding, int)
            shift = at * module.dilation[axis] - padding
            first = max(-(shift // stride), 0)
            last = min((output[axis] - 1 - shift) // stride, sizes[axis] - 1)
            window.append(slice(first, max(last + 1, first)))
        _put(seen, place, squares, window)
    return seen.view(module.groups, -1, *module.kernel_size)


def _ones(layer: Layer) -> Tensor:
    groups = int(getattr(layer.module, "groups", 1))
    shape = layer.weight.shape
    inputs = (
        shape[0] // groups if layer.kind.startswith("ConvTranspose") or layer.kind == "Conv1D" else shape[1]
    )
    return torch.ones((groups, inputs, *shape[2:]), device=layer.weight.device)
