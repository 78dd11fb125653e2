"""Zeros that take no room: a safetensors file with a bit for each weight and a number for each that is left.

The layout is `sparse-bitmask` of compressed-tensors, whose versions 0.3 to 0.14 read it (later ones have no
loader of sparse files): in the place of LAYER.weight there are LAYER.bitmask (uint8 [rows, ceil(columns /
8)], lowest bit first), LAYER.compressed (the weights that are not zero, row by row), LAYER.row_offsets
(int64 [rows], where each row begins in it) and LAYER.shape (rows, columns). A convolution's weight is one
row for each of its output channels; its shape is in the file's metadata. For weights of b bits of which a
share s is zero the first two take 1/b + 1 - s of the dense size; no code that keeps each number as it is
gets below H(s)/b + 1 - s, with H the binary entropy. Ten lines read it: `read_sparse`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

SPARSE = "model.sparse.safetensors"
FORMAT = "sparse-bitmask"
_WEIGHT, _BITMASK, _COMPRESSED = ".weight", ".bitmask", ".compressed"
_OFFSETS, _SHAPE = ".row_offsets", ".shape"


@dataclass(frozen=True)
class SparseFile:
    """What was written."""

    path: Path
    bytes: int
    dense_bytes: int
    """Bytes of the same tensors as they are."""
    packed: int
    """Tensors that are stored without their zeros; the others would not be smaller."""


def write_sparse(tensors: Mapping[str, Tensor], path: Path) -> SparseFile:
    """Write `tensors` to `path`, each `*.weight` the way that is smaller; a negative zero becomes a zero."""
    stored: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        layer = name.removesuffix(_WEIGHT)
        parts = _packed(tensor) if layer != name and not _taken(layer, tensors) else None
        if parts is None:
            stored[name] = tensor
            continue
        shapes[layer] = list(tensor.shape)
        stored.update({layer + suffix: part for suffix, part in parts.items()})
    save_file(stored, path, metadata={"format": "pt", "sparsity": FORMAT, "shapes": json.dumps(shapes)})
    dense = sum(one.numel() * one.element_size() for one in tensors.values())
    return SparseFile(path, path.stat().st_size, dense, len(shapes))


def read_sparse(path: Path) -> dict[str, Tensor]:
    """The dense tensors of a file of `write_sparse`. This needs numpy, torch and safetensors only."""
    tensors: dict[str, Tensor] = load_file(path)
    with safe_open(path, "pt") as file:
        shapes: dict[str, list[int]] = json.loads(file.metadata()["shapes"])
    for layer, shape in shapes.items():
        columns = int(tensors.pop(layer + _SHAPE)[1])
        bits = np.unpackbits(tensors.pop(layer + _BITMASK).numpy(), -1, count=columns, bitorder="little")
        values, mask = tensors.pop(layer + _COMPRESSED), torch.from_numpy(bits.view(bool))
        dense = torch.zeros(mask.shape, dtype=values.dtype).masked_scatter_(mask, values)
        tensors[layer + _WEIGHT] = dense.reshape(shape)
        del tensors[layer + _OFFSETS]
    return tensors


def _taken(layer: str, tensors: Mapping[str, Tensor]) -> bool:
    return any(layer + suffix in tensors for suffix in (_BITMASK, _COMPRESSED, _OFFSETS, _SHAPE))


def _packed(tensor: Tensor) -> dict[str, Tensor] | None:
    """The four parts; None where they are not smaller than the tensor."""
    if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() == 0:
        return None
    rows = tensor.flatten(1)
    mask = rows != 0
    counts = mask.sum(dim=1)
    parts = {
        _BITMASK: torch.from_numpy(np.packbits(mask.numpy(), axis=1, bitorder="little")),
        _COMPRESSED: rows[mask],
        _OFFSETS: counts.cumsum(0) - counts,
        _SHAPE: torch.tensor(rows.shape, dtype=torch.int64),
    }
    room = sum(one.numel() * one.element_size() for one in parts.values())
    return parts if room < tensor.numel() * tensor.element_size() else None
