"""Calls of a program back to PyTorch's layers, so that all who look for layers find them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten

Config = dict[str, Any]
"""Keyword arguments of a layer's class."""
_CONVOLUTIONS: dict[tuple[bool, int], type[nn.Module]] = {
    (False, 3): nn.Conv1d,
    (False, 4): nn.Conv2d,
    (False, 5): nn.Conv3d,
    (True, 3): nn.ConvTranspose1d,
    (True, 4): nn.ConvTranspose2d,
    (True, 5): nn.ConvTranspose3d,
}
"""By whether it is transposed, and the axes of its weight."""
_NORMS: dict[int, type[nn.Module]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
_TURNED = (aten.t.default, aten.permute.default, aten.transpose.int)


class _Call:
    """One call, its arguments by name."""

    def __init__(self, node: fx.Node, root: nn.Module) -> None:
        self.node = node
        self.root = root
        declared = node.target._schema.arguments  # type: ignore[union-attr]
        self.given = {one.name: one.default_value for one in declared if one.has_default_value()}
        self.given |= dict(zip((one.name for one in declared), node.args, strict=False)) | dict(node.kwargs)

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    def held(self, name: str) -> str | None:
        """The path of the tensor that the argument is, where it is one of the model's own."""
        return _path(self.given.get(name))

    def tensor(self, name: str) -> Tensor:
        path = self.held(name)
        assert path is not None
        return _tensor(self.root, path)


def lift(root: nn.Module, graph: fx.Graph) -> None:
    """Replace calls of operators by calls of layers with the same tensors under the same names.

    A call stays where its tensors have other names than the layer would give them (`weight`, `bias`, …), lie
    in one module with others, or are computed.
    """
    made: dict[str, tuple[type[nn.Module], Config]] = {}
    for node in list(graph.nodes):
        maker = _MAKERS.get(node.target) if node.op == "call_function" else None
        found = maker(_Call(node, root)) if maker else None
        if found is not None:
            _replace(root, graph, node, found, made)
    _lift_dropout(root, graph)
    _drop_counters(root, graph)
    for node in reversed(list(graph.nodes)):
        if not node.users and (node.op == "get_attr" or node.target in _TURNED):
            graph.erase_node(node)


class _Layer:
    """What a call could be: a class, its configuration, the input, and its tensors by the layer's names."""

    def __init__(
        self, kind: type[nn.Module], config: Config, value: Any, tensors: dict[str, str | None]
    ) -> None:
        self.kind, self.config, self.value = kind, config, value
        self.tensors = {name: path for name, path in tensors.items() if path is not None}

    @property
    def path(self) -> str | None:
        """Where all its tensors lie together under their usual names; None where they do not."""
        path = self.tensors["weight"].rpartition(".")[0]
        good = all(found == f"{path}.{name}" for name, found in self.tensors.items())
        return path if path and good else None

    def build(self, root: nn.Module) -> nn.Module:
        layer = self.kind(**self.config, device="meta")
        for name in (*layer._parameters, *layer._buffers):
            setattr(layer, name, None)
        for name, path in self.tensors.items():
            setattr(layer, name, _tensor(root, path))
        return layer


def _replace(
    root: nn.Module,
    graph: fx.Graph,
    node: fx.Node,
    layer: _Layer,
    made: dict[str, tuple[type[nn.Module], Config]],
) -> None:
    path = layer.path
    if path is None:
        return
    if path not in made:
        place = root.get_submodule(path)
        own = {**place._parameters, **place._buffers}
        counter = own.get("num_batches_tracked")
        if own.keys() - layer.tensors.keys() - {"num_batches_tracked"} or place._modules:
            return
        new = layer.build(root)
        if isinstance(new, nn.modules.batchnorm._BatchNorm):
            new.num_batches_tracked = counter
        parent, _, name = path.rpartition(".")
        root.get_submodule(parent).add_module(name, new)
        made[path] = (layer.kind, layer.config)
    if made[path] != (layer.kind, layer.config):
        return
    with graph.inserting_before(node):
        call = graph.call_module(path, (layer.value,))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def _linear(call: _Call) -> _Layer | None:
    if call.held("weight") is None or not _fits_bias(call):
        return None
    return _as_linear(call, call["input"], call.held("weight"), call.held("bias"))


def _product(call: _Call) -> _Layer | None:
    """addmm(bias, x, weight.T), mm(x, weight.T): what `linear` becomes when it is decomposed."""
    with_bias = call.node.target is aten.addmm.default
    weight = call["mat2"]
    if with_bias and (call["beta"] != 1 or call["alpha"] != 1 or call.held("self") is None):
        return None
    turned = isinstance(weight, fx.Node) and weight.target in _TURNED
    path = _path(weight.args[0]) if turned else None
    if path is None or _tensor(call.root, path).dim() != 2:
        return None
    return _as_linear(
        call, call["mat1" if with_bias else "self"], path, call.held("self") if with_bias else None
    )


def _as_linear(call: _Call, value: Any, weight: str | None, bias: str | None) -> _Layer | None:
    assert weight is not None
    shape = _tensor(call.root, weight).shape
    if len(shape) != 2:
        return None
    config = {"in_features": shape[1], "out_features": shape[0], "bias": bias is not None}
    return _Layer(nn.Linear, config, value, {"weight": weight, "bias": bias})


def _convolution(call: _Call) -> _Layer | None:
    if call.held("weight") is None or not _fits_bias(call):
        return None
    weight = call.tensor("weight")
    transposed = "transpose" in str(call.node.target) or bool(call.given.get("transposed", False))
    kind = _CONVOLUTIONS.get((transposed, weight.dim()))
    if kind is None:
        return None
    axes, groups = weight.dim() - 2, call["groups"]
    first, second = weight.shape[0], weight.shape[1] * groups
    config = {
        "in_channels": first if transposed else second,
        "out_channels": second if transposed else first,
        "kernel_size": tuple(weight.shape[2:]),
        "stride": _each(call["stride"], axes),
        "padding": call["padding"] if isinstance(call["padding"], str) else _each(call["padding"], axes),
        "dilation": _each(call["dilation"], axes),
        "groups": groups,
        "bias": call.held("bias") is not None,
    }
    if transposed:
        config["output_padding"] = _each(call["output_padding"], axes)
    if not all(
        isinstance(one, int) for value in config.values() if isinstance(value, tuple) for one in value
    ):
        return None
    return _Layer(kind, config, call["input"], {"weight": call.held("weight"), "bias": call.held("bias")})


def _batch_norm(call: _Call) -> _Layer | None:
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: call.held(name) for name in names}
    value = call["input"]
    axes = value.meta.get("axes") if isinstance(value, fx.Node) else None
    if None in tensors.values() or axes not in _NORMS:
        return None
    size = call.tensor("weight").shape[0]
    config = {"num_features": size, "eps": call["eps"], "momentum": call["momentum"]}
    return _Layer(_NORMS[axes], config, value, tensors)


def _layer_norm(call: _Call) -> _Layer | None:
    if call.held("weight") is None or not _fits_bias(call):
        return None
    config = {
        "normalized_shape": tuple(call.tensor("weight").shape),
        "eps": call["eps"],
        "bias": call.held("bias") is not None,
    }
    if tuple(call["normalized_shape"]) != config["normalized_shape"]:
        return None
    tensors = {"weight": call.held("weight"), "bias": call.held("bias")}
    return _Layer(nn.LayerNorm, config, call["input"], tensors)


def _group_norm(call: _Call) -> _Layer | None:
    tensors = {"weight": call.held("weight"), "bias": call.held("bias")}
    if None in tensors.values():
        return None
    channels = call.tensor("weight").shape[0]
    config = {"num_groups": call["num_groups"], "num_channels": channels, "eps": call["eps"]}
    return _Layer(nn.GroupNorm, config, call["input"], tensors)


def _embedding(call: _Call) -> _Layer | None:
    if call.held("weight") is None or call.tensor("weight").dim() != 2 or call["sparse"]:
        return None
    rows, width = call.tensor("weight").shape
    padding = call["padding_idx"]
    config = {
        "num_embeddings": rows,
        "embedding_dim": width,
        "padding_idx": padding if padding >= 0 else None,
        "scale_grad_by_freq": call["scale_grad_by_freq"],
    }
    return _Layer(nn.Embedding, config, call["indices"], {"weight": call.held("weight")})


_MAKERS: dict[Any, Callable[[_Call], _Layer | None]] = {
    aten.linear.default: _linear,
    aten.addmm.default: _product,
    aten.mm.default: _product,
    aten.conv1d.default: _convolution,
    aten.conv1d.padding: _convolution,
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.conv3d.default: _convolution,
    aten.conv3d.padding: _convolution,
    aten.conv_transpose1d.default: _convolution,
    aten.conv_transpose2d.input: _convolution,
    aten.conv_transpose3d.input: _convolution,
    aten.convolution.default: _convolution,
    aten.batch_norm.default: _batch_norm,
    aten.layer_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
    aten.embedding.default: _embedding,
}


def _fits_bias(call: _Call) -> bool:
    """Whether there is no bias, or one of the model's own tensors."""
    return call.given.get("bias") is None or call.held("bias") is not None


def _each(value: Any, axes: int) -> tuple[Any, ...]:
    """One number for each axis; one stands for all."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * axes if len(values) == 1 else values


def _lift_dropout(root: nn.Module, graph: fx.Graph) -> None:
    """Dropout is off in an exported evaluation; as a layer it follows the module's mode."""
    for number, node in enumerate(list(_calls(graph, aten.dropout.default, aten.dropout_.default))):
        call = _Call(node, root)
        name = f"dropout_{number}"
        if hasattr(root, name) or not isinstance(call["p"], float):
            continue
        root.add_module(name, nn.Dropout(call["p"]))
        with graph.inserting_before(node):
            layer = graph.call_module(name, (node.args[0],))
        layer.meta = dict(node.meta)
        node.replace_all_uses_with(layer)
        graph.erase_node(node)


def _drop_counters(root: nn.Module, graph: fx.Graph) -> None:
    """A program that was exported for training counts the batches of its norms, as the layers do now."""
    for node in list(_calls(graph, aten.add_.Tensor)):
        path = _path(node.args[0]) or ""
        layer = root.get_submodule(path.rpartition(".")[0])
        if path.endswith(".num_batches_tracked") and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            graph.erase_node(node)


def _calls(graph: fx.Graph, *targets: Any) -> Iterator[fx.Node]:
    for node in graph.nodes:
        if node.op == "call_function" and node.target in targets:
            yield node


def _path(value: Any) -> str | None:
    return str(value.target) if isinstance(value, fx.Node) and value.op == "get_attr" else None


def _tensor(root: nn.Module, path: str) -> Tensor:
    folder, _, name = path.rpartition(".")
    tensor = getattr(root.get_submodule(folder), name)
    assert isinstance(tensor, Tensor)
    return tensor
