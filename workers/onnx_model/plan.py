"""What an ONNX file is to a job: the graph without its weights, and which layer reads what in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from onnx import ModelProto, NodeProto

from workers.onnx_model.inputs import Inputs
from workers.onnx_model.nodes import Reader


@dataclass(frozen=True)
class Held:
    """An initializer of the file that is a parameter or a buffer of the module."""

    name: str
    """Its name in the module's state dict."""
    swapped: bool
    """The file has [in, out], the module [out, in]."""
    given: bool
    """ONNX Runtime gets its numbers from the module; otherwise the graph has them too, and none changes."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What stays the same all through a job; copies of a module share it."""

    graph: ModelProto
    """Initializers that are given have name, type and shape, and no bytes."""
    held: Mapping[str, Held]
    """By initializer, in the order of the file."""
    calls: tuple[tuple[str, Reader], ...]
    """The module's name of each layer with a node that it stands for, in the order of the graph."""
    products: tuple[NodeProto, ...]
    """Matrix products without a layer's weight: they are arithmetic, too."""
    inputs: Inputs
    opset: int
    output: str
    """The scores."""
    tokens: str | None
    """The module's name of the table that token ids look rows up in."""
    notes: tuple[str, ...]
    """For the report: what stays dense, and why."""

    def __deepcopy__(self, memo: object) -> Self:
        return self
