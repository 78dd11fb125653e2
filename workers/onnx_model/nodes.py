"""Which initializers of a graph are weights of linear layers and convolutions, and what each multiplies."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto, helper

from workers.onnx_model.check import subgraphs
from workers.onnx_model.tensors import FLOATS

_PLAIN = ("", "ai.onnx")


@dataclass(frozen=True)
class Source:
    """An initializer, as it is or with its two axes swapped on the way."""

    name: str
    swapped: bool


@dataclass(frozen=True)
class Reader:
    """A node that multiplies its input with a weight, in PyTorch's terms."""

    node: NodeProto
    kind: str
    """Gemm, MatMul, Conv or ConvTranspose."""
    weight: str
    """The initializer."""
    swapped: bool
    """The initializer is [in, out], where PyTorch's linear layers have [out, in]."""
    value: str
    """What the layer multiplies: an input or another node's output."""
    turned: bool
    """The features of `value` are its last axis but one."""


@dataclass(frozen=True)
class Found:
    """What a graph does with its float initializers."""

    readers: tuple[Reader, ...]
    """In the order of the graph, whose weight is read in one orientation by layers (and tables) alone."""
    tables: Mapping[str, str]
    """Tables of embeddings: what looks rows up in them (the name of the ids), by initializer."""
    dense: Mapping[str, str]
    """Matrices that stay dense, and why, by initializer."""


class Weights:
    """Follows initializers of one graph to the nodes that read them."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._shapes = {one.name: tuple(one.dims) for one in graph.initializer if one.data_type in FLOATS}
        self._sources = {name: Source(name, swapped=False) for name in self._shapes}
        self._passing: set[int] = set()
        for place, node in enumerate(graph.node):
            if (source := self._passed_on(node)) is not None:
                self._sources[node.output[0]] = source
                self._passing.add(place)

    def find(self) -> Found:
        """Sort the nodes. An initializer that anything else reads too is nobody's weight."""
        readers: list[Reader] = []
        tables: dict[str, str] = {}
        dense: dict[str, str] = {}
        for name in self._read_elsewhere():
            dense[self._sources[name].name] = "a loop, a branch or the graph's output reads it"
        for place, node in enumerate(self._graph.node):
            if place in self._passing:
                continue
            reader = self._reader(node)
            if reader is not None:
                readers.append(reader)
            for at, name in enumerate(node.input):
                source = self._sources.get(name)
                if source is None or (reader is not None and at == _weight_place(node, reader)):
                    continue
                if node.op_type == "Gather" and at == 0 and not source.swapped:
                    tables.setdefault(source.name, node.input[1])
                else:
                    dense.setdefault(source.name, f"{node.op_type} reads it")
        return self._sorted(readers, tables, dense)

    def _sorted(self, readers: list[Reader], tables: dict[str, str], dense: dict[str, str]) -> Found:
        shapes: defaultdict[str, set[object]] = defaultdict(set)
        for reader in readers:
            shapes[reader.weight].add((reader.swapped, _module_of(reader)))
        for name, ways in shapes.items():
            if len(ways) > 1:
                dense.setdefault(name, "layers read it in several ways")
            elif name in tables and any(one.weight == name and one.swapped for one in readers):
                dense.setdefault(name, "it is the table of an embedding too")
        return Found(
            tuple(reader for reader in readers if reader.weight not in dense),
            {name: ids for name, ids in tables.items() if name not in dense},
            {name: reason for name, reason in dense.items() if self._is_matrix(name)},
        )

    def _is_matrix(self, name: str) -> bool:
        return [size > 1 for size in self._shapes[name]].count(True) >= 2

    def _passed_on(self, node: NodeProto) -> Source | None:
        """What a node gives on: as it is, as another float, or with two axes swapped."""
        if node.domain not in _PLAIN or len(node.input) != 1 or len(node.output) != 1:
            return None
        source = self._sources.get(node.input[0])
        if source is None:
            return None
        if node.op_type == "Identity":
            return source
        if node.op_type == "Cast" and attributes(node).get("to") in FLOATS:
            return source
        if node.op_type == "Transpose" and len(self._shapes[source.name]) == 2:
            turned = list(attributes(node).get("perm", [1, 0])) == [1, 0]
            return Source(source.name, source.swapped != turned)
        return None

    def _read_elsewhere(self) -> set[str]:
        """Names of this graph that its outputs and the bodies of its loops and branches take."""
        names = {one.name for one in self._graph.output}
        waiting = list(subgraphs(self._graph.node))
        while waiting:
            inner = waiting.pop()
            names.update(one.name for one in inner.output)
            names.update(name for node in inner.node for name in node.input)
            waiting += subgraphs(inner.node)
        return names & self._sources.keys()

    def _reader(self, node: NodeProto) -> Reader | None:
        if node.domain not in _PLAIN or len(node.input) < 2:
            return None
        left, right = (self._sources.get(name) for name in node.input[:2])
        if node.op_type in ("Conv", "ConvTranspose"):
            return self._convolution(node, right) if left is None else None
        if node.op_type not in ("Gemm", "MatMul") or (left is None) == (right is None):
            return None
        source = right or left
        assert source is not None
        if len(self._shapes[source.name]) != 2 or 0 in self._shapes[source.name]:
            return None
        said = attributes(node)
        flipped = [bool(said.get("transA", 0)), bool(said.get("transB", 0))]
        if right is not None:  # x · W: [in, out], and [out, in] once it is swapped
            return _linear(node, right, right.swapped == flipped[1], node.input[0], flipped[0])
        # W · x is (xᵀ · Wᵀ)ᵀ: W is [out, in] as it stands, and the features of x are its rows
        return _linear(node, source, source.swapped != flipped[0], node.input[1], not flipped[1])

    def _convolution(self, node: NodeProto, source: Source | None) -> Reader | None:
        """3 to 5 axes, and paddings that a layer of PyTorch can have."""
        if source is None or source.swapped:
            return None
        shape, said = self._shapes[source.name], attributes(node)
        groups = said.get("group", 1)
        if not 3 <= len(shape) <= 5 or 0 in shape or groups < 1 or shape[0] % groups:
            return None
        if node.op_type == "ConvTranspose" and not _plain_transposed(said, len(shape) - 2):
            return None
        return Reader(node, node.op_type, source.name, False, node.input[0], False)


def _linear(node: NodeProto, source: Source, swapped: bool, value: str, turned: bool) -> Reader:
    return Reader(node, node.op_type, source.name, swapped, value, turned)


def _plain_transposed(said: Mapping[str, Any], axes: int) -> bool:
    """Padding the same on both sides, stated in numbers."""
    pads = list(said.get("pads", [0] * (2 * axes)))
    return "output_shape" not in said and not _automatic(said) and pads[:axes] == pads[axes:]


def _automatic(said: Mapping[str, Any]) -> bool:
    return said.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")


def _weight_place(node: NodeProto, reader: Reader) -> int:
    return 0 if reader.value == node.input[1] else 1


def _module_of(reader: Reader) -> tuple[str, str]:
    """Equal where one module of PyTorch does the same."""
    linear = reader.kind in ("Gemm", "MatMul")
    return ("Linear", "") if linear else (reader.kind, repr(sorted(attributes(reader.node).items())))


def attributes(node: NodeProto) -> dict[str, Any]:
    """The node's attributes by name: numbers, bytes or lists of them."""
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def weights_of_subgraphs(graph: GraphProto) -> Iterator[TensorProto]:
    """Float tensors of two axes or more in the bodies of loops and branches."""
    waiting = list(subgraphs(graph.node))
    while waiting:
        inner = waiting.pop()
        yield from (one for one in inner.initializer if one.data_type in FLOATS and len(one.dims) > 1)
        waiting += subgraphs(inner.node)
