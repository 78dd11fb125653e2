"""Whether the zeros of a float ONNX file are zeros in its INT8 one, and its pattern of N:M a pattern."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_SUFFIX = "_quantized"


@dataclass(frozen=True)
class ZeroCheck:
    """Weights of the layers that became INT8."""

    weights: int
    zeros: int
    """Of the float weights."""
    lost: int
    """Zeros that are another number now."""
    zeros_after: int
    """Small weights become zero too."""
    layers: int
    float_layers: tuple[str, ...]
    """Weights of two axes or more that stayed in float."""

    def sentence(self) -> str:
        """For the report."""
        told = (
            f"INT8: {self.layers} weight tensors; of {self.weights:,} weights {self.zeros:,} were zero, "
            f"{self.zeros_after:,} are zero now, and {self.lost:,} zeros were lost."
        )
        if self.float_layers:
            told += f" {len(self.float_layers)} tensors stay in float, the first is {self.float_layers[0]}."
        return told


def check_zeros(source: onnx.ModelProto, quantized: onnx.ModelProto) -> ZeroCheck:
    """Compare the weights of both files; `source` is the one that was quantized, with the same names."""
    floats, integers = _initializers(source), _initializers(quantized)
    weights = zeros = lost = after = layers = 0
    left = []
    for name, value in floats.items():
        if value.ndim < 2 or not np.issubdtype(value.dtype, np.floating):
            continue
        whole = integers.get(name + _SUFFIX)
        if whole is None or whole.shape != value.shape:
            left.append(name)
            continue
        was, now = value == 0, whole == 0
        weights, layers = weights + value.size, layers + 1
        zeros, after = zeros + int(was.sum()), after + int(now.sum())
        lost += int((was & ~now).sum())
    return ZeroCheck(weights, zeros, lost, after, layers, tuple(left))


def tensors_with_pattern(model: onnx.ModelProto, n: int, m: int) -> list[str]:
    """Names of the weights, float or INT8, in which at most `n` of each `m` inputs are not zero.

    The inputs are axis 1 of a convolution's weight [O, I, k, k] and of a Gemm's with transB [O, I], and the
    first of a MatMul's two [I, O].
    """
    return sorted(
        name for name, value, axis in _matrices(model) if _holds(np.moveaxis(value, axis, -1), n, m)
    )


def _holds(value: NDArray[np.generic], n: int, m: int) -> bool:
    if value.shape[-1] % m:
        return False
    return bool(((value.reshape(-1, m) != 0).sum(axis=1) <= n).all())


def _matrices(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[np.generic], int]]:
    """(name, value, input axis) of each weight that a layer multiplies by."""
    values = _initializers(model)
    sources = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type in ("DequantizeLinear", "Transpose") and node.input[0] in values
    }
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "ConvInteger"):
            continue
        for place in node.input[1:2]:
            name = sources.get(place, place)
            if name in values and values[name].ndim >= 2:
                yield name, values[name], _input_axis(node)


def _input_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Gemm":
        return 1 if any(one.name == "transB" and one.i for one in node.attribute) else 0
    return 1 if node.op_type.startswith("Conv") else 0


def _initializers(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
