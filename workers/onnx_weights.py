"""Constant weights of an ONNX graph: what a node multiplies by, along which axis it sums, what means zero."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def input_axis(node: onnx.NodeProto) -> int:
    """The axis of the weight of a Conv, Gemm or MatMul that the product sums over."""
    if node.op_type == "Gemm":
        return 1 if any(one.name == "transB" and one.i for one in node.attribute) else 0
    return 1 if node.op_type == "Conv" else -2


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Every stored tensor by its name."""
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def zero_points(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Of each INT8 weight, in a shape that spreads over the weight's."""
    values, found = initializers(model), dict[str, NDArray[np.generic]]()
    for node in model.graph.node:
        match node.op_type, list(node.input):
            case "DequantizeLinear", [weight, _, point] if weight in values and point in values:
                found[weight] = _spread(values[point], values[weight].ndim, _axis(node))
            case "MatMulInteger", [_, weight, _, point] if weight in values and point in values:
                found[weight] = _spread(values[point], values[weight].ndim, -1)
    return found


def _spread(point: NDArray[np.generic], axes: int, axis: int) -> NDArray[np.generic]:
    if point.size == 1:
        return point.reshape(())
    shape = [1] * axes
    shape[axis] = point.size
    return point.reshape(shape)


def _axis(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 1)
