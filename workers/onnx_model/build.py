"""From a parsed ONNX file to a module with its weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from torch import Tensor, nn

from workers.errors import ModelError
from workers.onnx_model.check import opset_of
from workers.onnx_model.inputs import Inputs
from workers.onnx_model.layers import layer_of
from workers.onnx_model.module import OnnxModule
from workers.onnx_model.names import attach, layer_name, plain
from workers.onnx_model.nodes import Found, Weights, weights_of_subgraphs
from workers.onnx_model.plan import Held, Plan
from workers.onnx_model.tensors import FLOATS, inline, read_float, shown, take_out

SMALL = 1024
"""Elements up to which a tensor that is no layer's weight stays in the graph: ONNX Runtime learns shapes from
some of them."""

_STATISTICS = (3, 4)
"""Inputs of BatchNormalization that are buffers in PyTorch."""


def build(model: ModelProto, folder: Path, inputs: Inputs) -> OnnxModule:
    """The module of a file in `read_onnx`'s normal form; `folder` has the files beside it.

    The parsed file loses its large tensors to the module. Raises ModelError where their bytes are not there.
    """
    found = Weights(model.graph).find()
    swapped = {reader.weight for reader in found.readers if reader.swapped}
    values: dict[str, Tensor] = {}
    statistics = set(_statistics(model.graph))
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS and tensor.dims:
            value = read_float(tensor, folder)
            value = value.t().contiguous() if tensor.name in swapped else value
            values[tensor.name] = value if tensor.name in statistics else nn.Parameter(value)
    root = nn.Module()
    layers = _attached(root, found, values)
    names = {id(value): name for name, value in root.state_dict(keep_vars=True).items()}
    modules = {id(part): name for name, part in root.named_modules()}
    held = {
        name: Held(names[id(value)], name in swapped, name in layers or value.numel() > SMALL)
        for name, value in values.items()
    }
    for tensor in model.graph.initializer:
        if tensor.name in held and held[tensor.name].given:
            take_out(tensor)
        else:
            inline(tensor, folder)
    plan = Plan(
        graph=model,
        held=held,
        calls=tuple((modules[id(layers[reader.weight])], reader) for reader in found.readers),
        products=tuple(_products(model.graph, found, set(held))),
        inputs=inputs,
        opset=opset_of(model),
        output=model.graph.output[0].name,
        tokens=_token_table(found, inputs, held),
        notes=tuple(_notes(model.graph, found, values)),
    )
    return OnnxModule(plan, root)


def _attached(root: nn.Module, found: Found, values: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Put layers (in the order of the graph), tables and all the rest into `root`; gives the layers."""
    layers: dict[str, nn.Module] = {}
    for reader in found.readers:
        weight = values[reader.weight]
        if reader.weight not in layers and isinstance(weight, nn.Parameter):
            layers[reader.weight] = layer_of(reader, weight)
            attach(root, layer_name(reader.weight, reader.node), layers[reader.weight])
    for name, value in values.items():
        if name in found.tables and value.dim() == 2 and isinstance(value, nn.Parameter):
            rows, width = value.shape
            table = nn.Embedding(rows, width, device="meta")
            table.weight = value
            attach(root, plain(name.removesuffix(".weight")), table)
        elif name not in layers:
            attach(root, plain(name), value)
    return layers


def _token_table(found: Found, inputs: Inputs, held: Mapping[str, Held]) -> str | None:
    ids = inputs.of.get("input_ids")
    if ids is None:
        return None
    table = next((name for name, by in found.tables.items() if by == ids.name), None)
    if table is None:
        raise ModelError(
            "the ONNX file looks no row of a table up by input_ids: export the float model again"
        )
    return held[table].name


def _statistics(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            yield from (node.input[place] for place in _STATISTICS if place < len(node.input))


def _products(graph: GraphProto, found: Found, held: set[str]) -> Iterator[NodeProto]:
    """Matrix products that no layer stands for."""
    done = {id(reader.node) for reader in found.readers}
    known = held | {one.name for one in graph.input} | {name for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "MatMul" and id(node) not in done and known.issuperset(node.input[:2]):
            yield node


def _notes(graph: GraphProto, found: Found, values: dict[str, Tensor]) -> Iterator[str]:
    if found.dense:
        name, reason = next(iter(found.dense.items()))
        total = sum(values[one].numel() for one in found.dense)
        yield (
            f"{total:,} numbers of the ONNX file are the weight of no linear layer and no convolution and "
            f"stay as they are: the first of {len(found.dense)} tensors is {shown(name)} ({reason})."
        )
    inside: list[TensorProto] = list(weights_of_subgraphs(graph))
    if inside:
        yield (
            f"Weights in the bodies of loops and branches stay dense: the first of {len(inside)} tensors is "
            f"{shown(inside[0].name)}."
        )
