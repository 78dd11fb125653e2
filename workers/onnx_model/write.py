"""The pruned model as files: the ONNX file that it was with zeros in place, and its tensors alone."""

from pathlib import Path

from onnx import ModelProto, TensorProto
from safetensors.torch import save_file
from torch import Tensor

from workers.onnx_model.module import OnnxModule
from workers.onnx_model.tensors import put_in, write_bytes


def write_onnx(module: OnnxModule, path: Path, *, largest: int) -> tuple[Path, ...]:
    """The file with the weights as they are now; past `largest` bytes they go to `<name>.data` beside it.

    Gives the files, the ONNX file first. Inputs, outputs and operators are those of the file it came from.
    """
    model = ModelProto.FromString(module.plan.graph.SerializeToString())
    values = {name: value for name, value in module.initializers() if module.plan.held[name].given}
    beside = sum(value.nbytes for value in values.values()) > largest
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    for tensor in model.graph.initializer:
        if tensor.name not in values:
            continue
        if beside:
            _point(tensor, data, values[tensor.name])
        else:
            put_in(tensor, values[tensor.name])
    path.write_bytes(model.SerializeToString())
    return (path, data) if beside else (path,)


def _point(tensor: TensorProto, data: Path, value: Tensor) -> None:
    offset, length = write_bytes(value, data)
    tensor.ClearField("external_data")
    for key, said in (("location", data.name), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=said)


def write_tensors(module: OnnxModule, path: Path) -> None:
    """All float tensors of the file by their names in it, in its layout and types."""
    values = {name: value.detach().cpu().contiguous() for name, value in module.initializers()}
    save_file(values, path, metadata={"format": "onnx"})
