"""Tensors of an ONNX file as PyTorch's and back; the sizes that a file states are checked before."""

from math import prod
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from workers.errors import ModelError

FLOATS = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.DOUBLE: torch.float64,
}
_REPEATED = {
    TensorProto.FLOAT: "float_data",
    TensorProto.FLOAT16: "int32_data",
    TensorProto.BFLOAT16: "int32_data",
    TensorProto.DOUBLE: "double_data",
}
"""The field with the numbers of a tensor that has no `raw_data`."""


def is_external(tensor: TensorProto) -> bool:
    """Its bytes lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def read_float(tensor: TensorProto, folder: Path) -> Tensor:
    """A tensor of one of `FLOATS`, in its own type. Raises ModelError where the bytes are not there."""
    dtype = FLOATS[tensor.data_type]
    if is_external(tensor):
        stored = _read_external(tensor, folder, dtype.itemsize)
    elif tensor.HasField("raw_data"):
        stored = np.frombuffer(tensor.raw_data, np.uint8)
    else:
        return _read_repeated(tensor, dtype)
    _check_bytes(tensor, dtype, len(stored))
    return torch.from_numpy(stored.copy()).view(dtype).reshape(tuple(tensor.dims))


def take_out(tensor: TensorProto) -> None:
    """Leave name, type and shape of a tensor, and no bytes: they are given to ONNX Runtime by name."""
    kept = TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=TensorProto.EXTERNAL,
    )
    length = prod(tensor.dims) * FLOATS[tensor.data_type].itemsize
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(length))):
        kept.external_data.add(key=key, value=value)
    tensor.CopyFrom(kept)


def put_in(tensor: TensorProto, value: Tensor) -> None:
    """The numbers of `value`, of the tensor's type and shape, into the graph itself."""
    _put_bytes(tensor, _bytes_of(value).tobytes())


def inline(tensor: TensorProto, folder: Path) -> None:
    """Bring a tensor of any type into the graph. Raises ModelError where its bytes are not there."""
    if is_external(tensor):
        try:
            size = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the ONNX file: tensor '{shown(tensor.name)}' has the unknown type {tensor.data_type}"
            ) from error
        _put_bytes(tensor, _read_external(tensor, folder, size).tobytes())


def _put_bytes(tensor: TensorProto, data: bytes) -> None:
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = data


def as_ort(value: Tensor) -> onnxruntime.OrtValue:
    """The same numbers for ONNX Runtime, without a copy where they lie on the CPU in one piece."""
    plain = value.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            plain.view(torch.uint16).numpy(), TensorProto.BFLOAT16
        )
    return onnxruntime.OrtValue.ortvalue_from_numpy(plain.numpy())


def write_bytes(value: Tensor, path: Path) -> tuple[int, int]:
    """Append the numbers to a file of weights; gives offset and length in bytes."""
    data = _bytes_of(value)
    with path.open("ab") as file:
        offset = file.tell()
        data.tofile(file)
    return offset, data.nbytes


def _bytes_of(value: Tensor) -> np.ndarray:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _check_bytes(tensor: TensorProto, dtype: torch.dtype, found: int) -> None:
    wanted = prod(tensor.dims) * dtype.itemsize
    if min(tensor.dims, default=1) < 0 or found != wanted:
        raise ModelError(
            f"the ONNX file: tensor '{shown(tensor.name)}' of shape {list(tensor.dims)} has {found:,} bytes "
            f"where {wanted:,} should be: export the model again"
        )


def _read_repeated(tensor: TensorProto, dtype: torch.dtype) -> Tensor:
    _check_bytes(tensor, dtype, len(getattr(tensor, _REPEATED[tensor.data_type])) * dtype.itemsize)
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"the ONNX file: tensor '{shown(tensor.name)}' cannot be read ({error}): export the model again"
        ) from error
    if dtype == torch.bfloat16:
        return torch.from_numpy(values.view(np.uint16).copy()).view(dtype).reshape(tuple(tensor.dims))
    return torch.from_numpy(values.copy()).reshape(tuple(tensor.dims))


def _read_external(tensor: TensorProto, folder: Path, item_bytes: int) -> np.ndarray:
    """The bytes in the file beside the model: only a plain file of the same folder, and only inside it."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    path = external_path(tensor, folder)
    wanted = prod(tensor.dims) * item_bytes
    try:
        offset, length = int(said.get("offset", 0)), int(said.get("length", wanted))
    except ValueError:
        offset = length = -1
    if offset < 0 or length != wanted or offset + length > path.stat().st_size:
        raise ModelError(
            f"the ONNX file: tensor '{shown(tensor.name)}' should be {wanted:,} bytes of {path.name} from "
            f"byte {offset} on, and the file has {path.stat().st_size:,}: upload both files again"
        )
    return np.fromfile(path, np.uint8, count=length, offset=offset)


def external_path(tensor: TensorProto, folder: Path) -> Path:
    """The file that holds the tensor. Raises ModelError where it is not a plain file of `folder`."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    path = folder / Path(location).name
    if not location or location != Path(location).name or location in (".", "..") or "\0" in location:
        raise ModelError(
            f"the ONNX file keeps '{shown(tensor.name)}' in '{shown(location)}', which is not a file of its "
            "folder: save it with onnx.save_model(..., save_as_external_data=True, "
            "location='model.onnx.data')"
        )
    if path.is_symlink() or not path.is_file():
        raise ModelError(f"the ONNX file keeps weights in '{shown(location)}', which is not there: upload it")
    return path


def shown(text: str) -> str:
    """A name from a file, for a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:120])
