"""PyTorch's layers for the nodes of an ONNX graph, and what each is called with."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from workers.onnx_model.nodes import Reader, attributes

_CONVOLUTIONS: dict[tuple[str, int], type[nn.Module]] = {
    ("Conv", 3): nn.Conv1d,
    ("Conv", 4): nn.Conv2d,
    ("Conv", 5): nn.Conv3d,
    ("ConvTranspose", 3): nn.ConvTranspose1d,
    ("ConvTranspose", 4): nn.ConvTranspose2d,
    ("ConvTranspose", 5): nn.ConvTranspose3d,
}


def layer_of(reader: Reader, weight: nn.Parameter) -> nn.Module:
    """A linear layer or a convolution with `weight`, in PyTorch's layout, and without a bias."""
    if reader.kind in ("Gemm", "MatMul"):
        outputs, inputs = weight.shape
        layer: nn.Module = nn.Linear(inputs, outputs, bias=False, device="meta")
    else:
        layer = _convolution(reader, weight)
    layer.weight = weight
    return layer.eval()


def _convolution(reader: Reader, weight: nn.Parameter) -> nn.Module:
    said, axes = attributes(reader.node), weight.dim() - 2
    groups = int(said.get("group", 1))
    transposed = reader.kind == "ConvTranspose"
    first, second = weight.shape[0], weight.shape[1] * groups
    options: dict[str, Any] = {
        "kernel_size": tuple(weight.shape[2:]),
        "stride": tuple(said.get("strides", [1] * axes)),
        "dilation": tuple(said.get("dilations", [1] * axes)),
        "groups": groups,
        "padding": tuple(said.get("pads", [0] * axes)[:axes]) if transposed else 0,
    }
    if transposed:
        options["output_padding"] = tuple(said.get("output_padding", [0] * axes))
    inputs, outputs = (first, second) if transposed else (second, first)
    kind = _CONVOLUTIONS[reader.kind, weight.dim()]
    return kind(inputs, outputs, bias=False, device="meta", **options)


def as_called(reader: Reader, value: Tensor, weight: Tensor) -> Tensor:
    """What the layer gets for the node's input: features last, or padded as the node pads."""
    if reader.kind in ("Gemm", "MatMul"):
        return value.transpose(-1, -2) if reader.turned and value.dim() > 1 else value
    return F.pad(value, _padding(reader, value, weight.shape[2:])) if reader.kind == "Conv" else value


def _padding(reader: Reader, value: Tensor, kernel: Sequence[int]) -> list[int]:
    """For F.pad: (before, after) of each axis, the last axis first."""
    said, sizes = attributes(reader.node), value.shape[2:]
    pads = list(said.get("pads", [0] * (2 * len(sizes))))
    if (mode := said.get("auto_pad", b"NOTSET")) in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _same(said, sizes, kernel, upper=mode == b"SAME_UPPER")
    return [
        amount for axis in reversed(range(len(sizes))) for amount in (pads[axis], pads[axis + len(sizes)])
    ]


def _same(said: dict[str, Any], sizes: Sequence[int], kernel: Sequence[int], *, upper: bool) -> list[int]:
    """ONNX's SAME: as many outputs as inputs over the stride; the odd one is at the end (UPPER) or before."""
    before, after = [], []
    strides, dilations = said.get("strides", [1] * len(sizes)), said.get("dilations", [1] * len(sizes))
    for size, kernel_size, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        covered = (-(-size // stride) - 1) * stride + dilation * (kernel_size - 1) + 1
        less, more = max(covered - size, 0) // 2, -(-max(covered - size, 0) // 2)
        before.append(less if upper else more)
        after.append(more if upper else less)
    return before + after
