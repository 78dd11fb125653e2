"""From a folder to a parsed ONNX file in one normal form: every constant an initializer, none an input."""

from collections import Counter
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from workers.errors import ModelError
from workers.models.folder import listed
from workers.onnx_model.check import refuse_unusable
from workers.onnx_model.tensors import FLOATS, shown

MAX_FILE_BYTES = 2**31 - 1
"""A protobuf message ends there; larger models keep their weights in a second file."""

_FIRST_IR_WITH_CONSTANTS = 4
"""Before it, every initializer had to be an input that a caller may replace."""


def find_onnx(folder: Path) -> Path | None:
    """The model's only `*.onnx`; None where there is none. Raises ModelError for several."""
    files = sorted(path for path in folder.glob("*.onnx") if path.is_file() and not path.is_symlink())
    if len(files) > 1:
        raise ModelError(
            f"the model folder has {len(files)} ONNX files ({listed(file.name for file in files)}): give the "
            "uri of one of them, or a folder with one"
        )
    return files[0] if files else None


def read_onnx(path: Path) -> ModelProto:
    """The file, checked and in normal form; its weights in second files are not read yet.

    Raises ModelError where it is broken, is quantized, or needs code that ONNX Runtime has not built in.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ModelError(
            f"{path.name} has {size:,} bytes, and a protobuf message ends at {MAX_FILE_BYTES:,}: save it "
            "with onnx.save_model(..., save_as_external_data=True)"
        )
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{path.name} is not a valid ONNX file ({error}): upload it again") from error
    if not model.graph.node:
        raise ModelError(f"{path.name} is not a valid ONNX file: its graph has no nodes: upload it again")
    refuse_unusable(model)
    _constants_to_initializers(model)
    _initializers_are_no_inputs(model)
    return model


def _constants_to_initializers(model: ModelProto) -> None:
    graph = model.graph
    kept: list[NodeProto] = []
    for node in graph.node:
        tensor = _constant(node)
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
            graph.initializer[-1].name = node.output[0]
    if len(kept) < len(graph.node):
        copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)


def _constant(node: NodeProto) -> TensorProto | None:
    """The float tensor with axes that a Constant node gives."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.type == AttributeProto.TENSOR:
            tensor: TensorProto = attribute.t
            return tensor if tensor.data_type in FLOATS and len(tensor.dims) > 0 else None
    return None


def _initializers_are_no_inputs(model: ModelProto) -> None:
    """From IR version 4 on, an initializer that is no input is a constant: no caller can replace it."""
    names = Counter(one.name for one in model.graph.initializer)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ModelError(f"the ONNX file has two tensors named '{shown(twice[0])}': export the model again")
    model.ir_version = max(model.ir_version, _FIRST_IR_WITH_CONSTANTS)
    real = [one for one in model.graph.input if one.name not in names]
    if len(real) < len(model.graph.input):
        copies = [type(one).FromString(one.SerializeToString()) for one in real]
        del model.graph.input[:]
        model.graph.input.extend(copies)
