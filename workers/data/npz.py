"""Arrays of an `.npz` or safetensors file, whose headers are read before their data."""

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from workers.data.memory import Allowance
from workers.data.tensors import read_tensors
from workers.errors import DataError
from workers.models.folder import listed

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What zipfile, its decompressors and numpy's reader of headers raise on damaged files."""


def read_arrays(
    path: Path, *, required: Sequence[str], optional: Sequence[str], allowance: Allowance
) -> dict[str, np.ndarray]:
    """The named arrays; DataError when one is missing, pickled, too large, or not one row a sample."""
    read = read_tensors if path.suffix == ".safetensors" else _read_npz
    arrays = read(path, required=required, optional=optional, allowance=allowance)
    _check_rows(arrays, path)
    return arrays


def _read_npz(
    path: Path, *, required: Sequence[str], optional: Sequence[str], allowance: Allowance
) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [name for name in required if name not in names]
            if missing:
                raise DataError(
                    f"{path.name} has no array {listed(map(repr, missing))} (it has {listed(names, 20)}): "
                    "set data.input_column and data.label_column"
                )
            wanted = [name for name in (*required, *optional) if name in names]
            for name in wanted:
                _check_member(archive, name, path, allowance)
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in wanted}
    except _BROKEN as error:
        raise DataError(
            f"{path.name} is not a valid .npz file ({error}): save it with numpy.savez again"
        ) from error


def _check_member(archive: zipfile.ZipFile, name: str, path: Path, allowance: Allowance) -> None:
    with archive.open(f"{name}.npy") as member:
        version = npy.read_magic(member)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(member)
    if dtype.hasobject:
        raise DataError(
            f"{path.name}: the array '{name}' is pickled (dtype object), which can run code when it is read: "
            "save numbers, or text as fixed-length strings"
        )
    if min(shape, default=0) < 0:
        raise DataError(f"{path.name}: the array '{name}' has the shape {list(shape)}: save it again")
    allowance.take(int(np.prod(shape, dtype=object)) * dtype.itemsize, f"{path.name}: the array '{name}'")


def _check_rows(arrays: dict[str, np.ndarray], path: Path) -> None:
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = listed(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path.name}: the arrays differ in length ({shown}): give one row a sample")
    if 0 in lengths.values():
        raise DataError(f"the split '{path.stem}' is empty ({path.name})")
