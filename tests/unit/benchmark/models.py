"""Tiny ONNX files, built node by node."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_matmuls(path: Path, *, depth: int, width: int = 64) -> Path:
    """`depth` products with a [width, width] matrix, with a free batch axis."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.standard_normal((width, width)).astype(np.float32), f"w{layer}")
        for layer in range(depth)
    ]
    names = ["x", *(f"h{layer}" for layer in range(1, depth)), "logits"]
    nodes = [
        helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(depth)
    ]
    graph = helper.make_graph(
        nodes,
        "matmuls",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def feeds_of(batch_size: int) -> dict[str, np.ndarray]:
    return {"x": np.ones((batch_size, 64), dtype=np.float32)}
