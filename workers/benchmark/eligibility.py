"""Which layers of an ONNX file can run on sparse tensor cores, which hold the pattern, and what would help.

The pattern is two zeros in each four neighbours along the axis that the product sums over: input channels of
a convolution [K, C, R, S], K of a matrix product (Mishra et al. 2021, section 3). The size rule is that of
NVIDIA's ASP and Model Optimizer: outputs a multiple of 8, inputs of 16. None of this is a measurement.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from schemas.inspection import InspectedLayer
from workers.onnx_weights import input_axis, zero_points

OUTPUTS_OF, INPUTS_OF = 8, 16
"""Multiples that sparse kernels take: apex/contrib/sparsity/asp.py and modelopt's magnitude.py."""

WIDE = 256
"""Channels below which sparse kernels are rarely faster (NVIDIA/TensorRT issues 3849 and 4065)."""

N, M = 2, 4
_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
_SAME_NUMBERS = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"})


def weight_layers(path: Path) -> list[InspectedLayer]:
    """The layers of the file, in its order; weights in a file beside it are read too.

    Raises OSError, and ValueError where the file is no ONNX model.
    """
    try:
        model = onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # protobuf's DecodeError, and what onnx.external_data_helper raises
        raise ValueError(f"{path.name} is not an ONNX file that can be read: {error}") from error
    return list(_layers_of(model))


def _layers_of(model: onnx.ModelProto) -> Iterator[InspectedLayer]:
    constants = {one.name: one for one in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    makers = {name: node for node in model.graph.node for name in node.output}
    points = zero_points(model)
    for node in model.graph.node:
        if node.op_type not in _LAYERS or len(node.input) < 2:
            continue
        found = _weight_of(node.input[1], constants, makers, points)
        if found is not None and found.ndim >= 2:
            yield _layer(node, found)


def _weight_of(
    name: str,
    constants: dict[str, onnx.TensorProto],
    makers: dict[str, onnx.NodeProto],
    points: dict[str, NDArray[np.generic]],
) -> NDArray[np.generic] | None:
    """The constant behind `name`, through casts, quantization and transpositions, as the node sees it."""
    turns: list[tuple[int, ...] | None] = []
    while name not in constants:
        node = makers.get(name)
        if node is None or not node.input:
            return None
        if node.op_type == "Transpose":
            stated = next((tuple(one.ints) for one in node.attribute if one.name == "perm"), None)
            turns.append(stated)
        elif node.op_type not in _SAME_NUMBERS:
            return None
        name = node.input[0]
    value = numpy_helper.to_array(constants[name])
    value = np.where(value == points.get(name, 0), 0, value).astype(value.dtype)
    for turn in reversed(turns):
        value = np.transpose(value, turn)
    return value


def _layer(node: onnx.NodeProto, value: NDArray[np.generic]) -> InspectedLayer:
    groups = next((int(one.i) for one in node.attribute if one.name == "group"), 1)
    return layer_of(
        node.name or node.output[0],
        node.op_type,
        value,
        axis=input_axis(node),
        outputs=_outputs(node, value),
        groups=groups,
    )


def layer_of(
    name: str,
    operator: str,
    value: NDArray[np.generic],
    *,
    axis: int,
    outputs: int,
    groups: int = 1,
    dtype: str | None = None,
) -> InspectedLayer:
    """What is to be said of one weight that sums over `axis`; `dtype` where numpy has none like it."""
    stored = dtype or str(value.dtype)
    turned = np.moveaxis(value != 0, axis, -1)
    inputs = turned.shape[-1]
    return InspectedLayer(
        name=name,
        operator=operator,
        inputs=inputs,
        outputs=outputs,
        dtype=stored,
        parameters=value.size,
        holds=inputs % M == 0 and bool((turned.reshape(-1, M).sum(axis=1) <= N).all()),
        zeros=float((value == 0).mean()),
        obstacles=list(_obstacles(inputs, outputs, groups)),
        doubts=list(_doubts(value, stored, inputs, outputs)),
    )


def _obstacles(inputs: int, outputs: int, groups: int) -> Iterator[str]:
    if inputs == 1 and groups > 1:
        yield "depthwise: each output sums over one channel, and nothing can be left out of it"
        return
    within = f" in each of its {groups} groups" if groups > 1 else ""
    if inputs % INPUTS_OF:
        wanted = -(-inputs // INPUTS_OF) * INPUTS_OF
        yield f"{inputs} inputs{within}: sparse kernels take multiples of {INPUTS_OF}, {wanted} would do"
    if outputs % OUTPUTS_OF:
        wanted = -(-outputs // OUTPUTS_OF) * OUTPUTS_OF
        yield f"{outputs} outputs: sparse kernels take multiples of {OUTPUTS_OF}, {wanted} would do"


def _doubts(value: NDArray[np.generic], dtype: str, inputs: int, outputs: int) -> Iterator[str]:
    if dtype == "float32":
        yield "float32: sparse kernels are for FP16, BF16 and INT8; export in half precision"
    work = inputs * int(np.prod(value.shape[2:])) if value.ndim > 2 else inputs
    if min(work, outputs) < WIDE:
        yield f"{min(work, outputs)} wide: below {WIDE} sparse kernels are seldom faster"


def _outputs(node: onnx.NodeProto, value: NDArray[np.generic]) -> int:
    if node.op_type == "Conv":
        return int(value.shape[0])
    return int(value.shape[-2] if input_axis(node) in (1, -1) else value.shape[-1])
