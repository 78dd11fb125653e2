"""Names of layers: as PyTorch had them before the export where the file still says so."""

import re
from collections.abc import Container

from onnx import NodeProto
from torch import Tensor, nn

_FROM_TORCH = re.compile(r"[A-Za-z_][\w.-]*\.weight")
_MADE_UP = re.compile(r"^(onnx::|val_|_val|\d)")
_MAX = 200
_SCOPES = "pkg.torch.onnx.name_scopes"
_MAX_SCOPES = 10_000
RESERVED = ("plan", "config", "_sessions")
"""Attributes of the module that holds all the rest."""


def layer_name(weight: str, node: NodeProto) -> str:
    """From the initializer `encoder.fc.weight`, the module that the node says it was in, or the node
    `/encoder/fc/MatMul`: `encoder.fc`."""
    if _FROM_TORCH.fullmatch(weight):
        return weight.removesuffix(".weight")[:_MAX]
    if scope := _scope(node):
        return scope
    path = [part for part in plain(node.name).split(".") if part]
    if len(path) > 1 and path[-1].rstrip("_0123456789") == node.op_type:
        path = path[:-1]
    if path:
        return ".".join(path)
    return (plain(weight) if not _MADE_UP.match(weight) else "") or node.op_type


def _scope(node: NodeProto) -> str:
    """The module that torch.export saw the node in, which the newer exporter of torch.onnx writes down."""
    stated = next((one.value for one in node.metadata_props if one.key == _SCOPES), "")
    modules = re.findall(r"'([^']*)'", stated[:_MAX_SCOPES])
    return plain(modules[-2]) if len(modules) > 2 else ""


def plain(name: str) -> str:
    """Slashes become dots, and what is no letter, digit, dot, dash or underscore becomes one."""
    return re.sub(r"[^\w.-]", "_", name[:_MAX].replace("/", "."), flags=re.ASCII).strip(".")


def attach(root: nn.Module, name: str, part: nn.Module | Tensor) -> None:
    """Put a module, a parameter or a buffer at the dotted `name`; a name that is taken gets an underscore."""
    *path, last = [piece for piece in name.split(".") if piece] or ["unnamed"]
    for piece in path:
        place = _free(root, piece, but=root._modules)
        if place not in root._modules:
            root.add_module(place, nn.Module())
        root = root.get_submodule(place)
    last = _free(root, last, but=())
    if isinstance(part, nn.Module):
        root.add_module(last, part)
    elif isinstance(part, nn.Parameter):
        root.register_parameter(last, part)
    else:
        root.register_buffer(last, part)


def _free(root: nn.Module, name: str, *, but: Container[str]) -> str:
    while name not in but and (hasattr(root, name) or name in RESERVED):
        name += "_"
    return name
