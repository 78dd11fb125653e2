"""What an ONNX file must not be: checked on the parsed graph, before ONNX Runtime sees it."""

from collections.abc import Iterator, Sequence

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from workers.errors import ModelError
from workers.onnx_model.tensors import is_external, shown

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Whose operators ONNX Runtime has built in. Another domain's need a library, which would be code."""

OLDEST_OPSET = 7
"""The oldest that ONNX Runtime supports. https://onnxruntime.ai/docs/reference/compatibility.html"""

MAX_NODES = 200_000
"""In all graphs of the file; a model of 70 billion weights has about 10,000."""

MAX_TENSORS = 100_000
_DEPTH = 16
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "Integer", "QLinear", "QAttention", "QGemm", "NBits")


def refuse_unusable(model: ModelProto) -> None:
    """Raises ModelError: operators of other domains or versions, quantized weights, too many parts."""
    _refuse_names(model)
    _refuse_versions(model)
    _refuse_parts(model)
    for node in all_nodes(model.graph):
        if node.domain not in DOMAINS:
            raise ModelError(
                f"the ONNX file: node '{shown(node.name)}' is {shown(node.domain)}::{shown(node.op_type)}, "
                "an operator that needs a library of its own, which would be code: export the model with "
                "operators of ai.onnx, ai.onnx.ml or com.microsoft only"
            )
        if any(part in node.op_type for part in _QUANTIZED):
            raise ModelError(
                f"the ONNX file: node '{shown(node.name)}' is {shown(node.op_type)}, so the weights are "
                "quantized already: give the model before quantization, in float32, float16 or bfloat16"
            )


def _refuse_names(model: ModelProto) -> None:
    """Protobuf gives bytes for what is no UTF-8."""
    for graph in all_graphs(model.graph):
        names: list[object] = [one.name for one in (*graph.initializer, *graph.input, *graph.output)]
        for node in graph.node:
            names += [node.name, node.domain, node.op_type, *node.input, *node.output]
        if not all(isinstance(name, str) for name in names):
            raise ModelError("the ONNX file has names that are not UTF-8: export the model again")


def _refuse_versions(model: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= newest:
        raise ModelError(
            f"the ONNX file has opset {opset}; {OLDEST_OPSET} to {newest} are read: export it again, or "
            "convert it with onnx.version_converter.convert_version"
        )
    if len(model.functions) > 0:
        raise ModelError(
            "the ONNX file has functions of its own: write it without, with "
            "onnx.inliner.inline_local_functions"
        )


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators; 0 where the file states none."""
    versions = {one.domain: one.version for one in model.opset_import}
    return int(versions.get("", versions.get("ai.onnx", 0)))


def _refuse_parts(model: ModelProto) -> None:
    nodes = tensors = 0
    for number, graph in enumerate(all_graphs(model.graph)):
        nodes += len(graph.node)
        tensors += len(graph.initializer)
        if len(graph.sparse_initializer) > 0:
            raise ModelError(
                "the ONNX file has sparse initializers: write them as dense ones, since a zero is the mask"
            )
        if number > 0 and any(is_external(one) for one in graph.initializer):
            raise ModelError(
                "the ONNX file keeps weights of a subgraph in a second file: save it as one file"
            )
    if nodes > MAX_NODES or tensors > MAX_TENSORS:
        raise ModelError(
            f"the ONNX file has {nodes:,} nodes and {tensors:,} tensors; at most {MAX_NODES:,} and "
            f"{MAX_TENSORS:,} are read"
        )
    for tensor in _in_attributes(model.graph):
        if is_external(tensor):
            raise ModelError("the ONNX file keeps a constant in a second file: save it with constants inside")


def all_graphs(graph: GraphProto, depth: int = 0) -> Iterator[GraphProto]:
    """The graph and the bodies of its loops and branches. Raises ModelError past 16 levels."""
    if depth > _DEPTH:
        raise ModelError(f"the ONNX file has loops or branches {_DEPTH} levels deep; fewer are read")
    yield graph
    for inner in subgraphs(graph.node):
        yield from all_graphs(inner, depth + 1)


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of all graphs of the file."""
    for one in all_graphs(graph):
        yield from one.node


def subgraphs(nodes: Sequence[NodeProto]) -> Iterator[GraphProto]:
    """Bodies of loops and branches, one level down."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g
            yield from attribute.graphs


def _in_attributes(graph: GraphProto) -> Iterator[TensorProto]:
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
