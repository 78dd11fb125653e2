"""Whether the zeros of a float ONNX file are zeros in its INT8 one, and its pattern of N:M a pattern."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from workers.onnx_weights import initializers, input_axis, zero_points

_SUFFIX = "_quantized"
_TURNED = "_Transposed"
"""The quantizer turns a Gemm's weight [O, I] round for a MatMul, under a name of this end."""

_PLACES = {"Gather": "embeddings", "Conv": "convolutions", "ConvTranspose": "convolutions"}

Dead = NDArray[np.bool_]
"""Where a weight is zero, in the weight's shape."""


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
    float_places: tuple[tuple[str, int], ...] = ()
    """What these are, and how many of each."""

    def sentence(self) -> str:
        """For the report."""
        told = (
            f"INT8: {self.layers} weight tensors; of {self.weights:,} weights {self.zeros:,} were zero, "
            f"{self.zeros_after:,} are zero now, and {self.lost:,} zeros were lost."
        )
        if self.float_layers:
            places = ", ".join(f"{place} {count}" for place, count in self.float_places)
            told += f" In float stay: {places}; the first is {self.float_layers[0]}."
        return told


def check_zeros(source: onnx.ModelProto, quantized: onnx.ModelProto) -> ZeroCheck:
    """Compare the weights of both files; `source` is the one that was quantized, with the same names.

    A weight is zero where its integer is the zero point.
    """
    integers = _dead(quantized)
    places = {name: node.op_type for node in reversed(source.graph.node) for name in node.input}
    weights = zeros = lost = after = layers = 0
    left = []
    for one in source.graph.initializer:
        was, now = _zeros_of(one), integers.get(one.name)
        if was is None or one.name not in places:
            continue
        if now is None or now.shape != was.shape:
            left.append(one.name)
            continue
        weights, layers = weights + was.size, layers + 1
        zeros, after = zeros + int(was.sum()), after + int(now.sum())
        lost += int((was & ~now).sum())
    kinds = Counter(_PLACES.get(places[name], "others") for name in left)
    return ZeroCheck(weights, zeros, lost, after, layers, tuple(left), tuple(sorted(kinds.items())))


def broken_patterns(source: onnx.ModelProto, quantized: onnx.ModelProto, n: int, m: int) -> list[str]:
    """Weights that hold N:M in `source` and do not in `quantized`; both in the names of `source`."""
    after = {_float_name(name) for name in tensors_with_pattern(quantized, n, m)}
    return [name for name in tensors_with_pattern(source, n, m) if name not in after]


def tensors_with_pattern(model: onnx.ModelProto, n: int, m: int) -> list[str]:
    """Names of the weights, float or INT8, in which at most `n` of each `m` inputs are not zero.

    The inputs are axis 1 of a convolution's weight [O, I, k, k] and of a Gemm's with transB [O, I], and the
    first of a MatMul's two [I, O].
    """
    return sorted(
        {name for name, dead, axis in _matrices(model) if _holds(np.moveaxis(dead, axis, -1), n, m)}
    )


def _holds(dead: Dead, n: int, m: int) -> bool:
    if dead.shape[-1] % m:
        return False
    return bool(((~dead.reshape(-1, m)).sum(axis=1) <= n).all())


def _matrices(model: onnx.ModelProto) -> Iterator[tuple[str, Dead, int]]:
    """(name, where it is zero, input axis) of each weight that a layer multiplies by."""
    values, points = initializers(model), zero_points(model)
    sources = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type in ("DequantizeLinear", "Transpose") and node.input[0] in values
    }
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul", "MatMulInteger"):
            continue
        for place in node.input[1:2]:
            name = sources.get(place, place)
            if name in values and values[name].ndim >= 2:
                yield name, values[name] == points.get(name, 0), input_axis(node)


def _dead(model: onnx.ModelProto) -> dict[str, Dead]:
    """Where each INT8 weight is zero, by the name and in the shape of the float weight."""
    points, found = zero_points(model), dict[str, Dead]()
    for name, value in initializers(model).items():
        if not name.endswith(_SUFFIX):
            continue
        dead: Dead = value == points.get(name, 0)
        bare = name.removesuffix(_SUFFIX)
        found[_float_name(name)] = dead.T if bare != _float_name(name) else dead
    return found


def _float_name(name: str) -> str:
    return name.removesuffix(_SUFFIX).removesuffix(_TURNED)


def _zeros_of(tensor: onnx.TensorProto) -> Dead | None:
    """None where it is no float of two axes or more."""
    value = numpy_helper.to_array(tensor)
    if value.ndim < 2 or not np.issubdtype(value.dtype, np.floating):
        return None
    dead: Dead = value == 0
    return dead
