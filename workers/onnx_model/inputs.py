"""What an ONNX file takes and gives, read from its graph; and batches by its own names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from onnx import GraphProto, TensorProto, ValueInfoProto
from torch import Tensor

from schemas.task import Task
from workers.data.bundle import Bundle, Transform
from workers.errors import ModelError
from workers.models.folder import listed
from workers.onnx_model.tensors import FLOATS, shown

TASKS = (Task.image_classification, Task.text_classification)
_CHANNELS = (1, 3, 4)
_INTEGERS = {TensorProto.INT64: torch.int64, TensorProto.INT32: torch.int32}
_TEXT = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Input:
    """One input. `shape` has None for a free axis."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Inputs:
    """The inputs of a file by what they mean: `pixel_values`, or `input_ids` and what belongs to them."""

    of: Mapping[str, Input]

    def named(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of a data set under the file's names and in its types; token types that it lacks are 0."""
        found = {}
        for meaning, given in self.of.items():
            value = batch[meaning] if meaning in batch else torch.zeros_like(batch["input_ids"])
            found[given.name] = value.to(given.dtype)
        return found

    def example(self, samples: int, *, sides: tuple[int, int], tokens: int) -> dict[str, Tensor]:
        """Zeros (masks: ones) that the file must be able to take."""
        batch = {}
        for meaning, given in self.of.items():
            free = [1, *sides] if meaning == "pixel_values" else [tokens]
            shape = [size or other for size, other in zip(given.shape[1:], free, strict=True)]
            filled = torch.ones if meaning == "attention_mask" else torch.zeros
            batch[given.name] = filled([samples, *shape], dtype=given.dtype)
        return batch


@dataclass(frozen=True)
class Named:
    """A data set's transform, and then the names of the file."""

    transform: Transform
    inputs: Inputs

    def __call__(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.inputs.named(self.transform(stored))


def with_names(bundle: Bundle, inputs: Inputs) -> Bundle:
    """The bundle with batches that the file takes."""
    return replace(bundle, transform=Named(bundle.transform, inputs))


def inputs_of(graph: GraphProto, task: Task) -> Inputs:
    """What the file takes. Raises ModelError where that is not one image or one text a sample."""
    if task not in TASKS:
        raise ModelError(
            f"ONNX files are taken for the tasks {' and '.join(TASKS)}, not for '{task}': give the model as "
            "config.json and *.safetensors"
        )
    inputs = [_input(one) for one in graph.input]
    found = _image(inputs) if task is Task.image_classification else _text(inputs)
    for one in found.of.values():
        if one.shape[0] is not None:
            raise ModelError(
                f"the ONNX file: input '{shown(one.name)}' is made for batches of {one.shape[0]}, and "
                "evaluation and benchmark need others: export it with a free first axis (torch.onnx.export: "
                f"dynamic_axes={{'{shown(one.name)}': {{0: 'batch'}}}})"
            )
    return found


def _input(value: ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    dtype = {**FLOATS, **_INTEGERS}.get(tensor.elem_type)
    if dtype is None or not tensor.HasField("shape"):
        raise ModelError(
            f"the ONNX file: input '{shown(value.name)}' is no tensor of floats or integers with a shape: "
            "export it with the shapes of its inputs"
        )
    sizes = (one.dim_value if one.HasField("dim_value") else 0 for one in tensor.shape.dim)
    return Input(value.name, dtype, tuple(size if size > 0 else None for size in sizes))


def _image(inputs: list[Input]) -> Inputs:
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not inputs[0].dtype.is_floating_point:
        raise ModelError(
            f"the ONNX file takes {_told(inputs)}; an image classifier has one input of floats [N, C, H, W]"
        )
    (one,) = inputs
    if one.shape[1] not in _CHANNELS:
        raise ModelError(
            f"the ONNX file takes {_told(inputs)}, so that its second axis is not 1, 3 or 4 channels: export "
            "it with images as [N, C, H, W] and a stated number of channels"
        )
    return Inputs({"pixel_values": one})


def _text(inputs: list[Input]) -> Inputs:
    names = {one.name for one in inputs}
    fits = all(len(one.shape) == 2 and not one.dtype.is_floating_point for one in inputs)
    if not fits or "input_ids" not in names or not names.issubset(_TEXT):
        raise ModelError(
            f"the ONNX file takes {_told(inputs)}; a text classifier has the inputs input_ids and, optional, "
            "attention_mask and token_type_ids, all of integers [N, T]"
        )
    if any(one.shape[1] is not None for one in inputs):
        raise ModelError(
            f"the ONNX file takes {_told(inputs)}, texts of one length: export it with a free second axis"
        )
    return Inputs({name: one for name in _TEXT for one in inputs if one.name == name})


def _told(inputs: list[Input]) -> str:
    shapes = (
        f"'{shown(one.name)}' {str(one.dtype).removeprefix('torch.')} "
        f"[{', '.join('?' if size is None else str(size) for size in one.shape)}]"
        for one in inputs
    )
    return listed(shapes) or "nothing"
