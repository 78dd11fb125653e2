"""The zip of a `torch.export` archive: JSON and raw tensors are read, pickles and libraries never.

torch's own loader (`torch.export.load`, read in 2.10 and 2.14) runs what the archive says: it unpickles
example inputs, tensor subclasses and custom objects without `weights_only`, evaluates shape expressions
(sympify) and guards (exec), resolves any attribute of torch as an operator, writes names of nodes into
Python source, imports modules that tree specs name, and loads AOTInductor's libraries. So it is not used, and
neither is torch's reader of zip files, which may see other members than Python's.
"""

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.errors import ModelError

MAX_MEMBERS = 100_000
MAX_JSON_BYTES = 32 * 2**20
SCHEMA = 8
"""The major version of the program's JSON, of all versions of torch that have written this layout."""

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""By torch._export.serde.schema.ScalarType; other types are no weights of a model that can be pruned."""

_PROGRAM = "models/model.json"
_WEIGHTS = "data/weights/"
_CONSTANTS = "data/constants/"
_CONFIGS = (_WEIGHTS + "model_weights_config.json", _CONSTANTS + "model_constants_config.json")
_EXPORT_AGAIN = "export the model again with torch.export.save of torch 2.9 or newer"
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What zipfile and json raise on damaged bytes, and torch and our code on a program of another shape."""


@dataclass(frozen=True)
class Program:
    """What an archive holds: the program as JSON, and tensors by the names that the program calls them."""

    name: str
    json: dict[str, Any]
    tensors: dict[str, Tensor]
    """Those that are one memory in the archive and have one shape are one object."""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What damaged bytes make Python raise, as ModelError that names the file."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except _BROKEN as error:
        told = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise ModelError(f"{name} is not a valid torch.export archive ({told}): upload it again") from error


def read_archive(path: Path) -> Program:
    """The program and its tensors, on the CPU. Nothing in the file is run.

    Raises ModelError for anything that torch.export.save of torch 2.9 or newer does not write, and for what
    needs code to be read: pickled tensors, custom objects, AOTInductor's libraries.
    """
    with reading(path.name), zipfile.ZipFile(path) as archive:
        members = _members(archive, path.stat().st_size)
        _refuse_code(members)
        program = _json(archive, members, _PROGRAM)
        _check_version(archive, members, program)
        tensors: dict[str, Tensor] = {}
        for config, folder in zip(_CONFIGS, (_WEIGHTS, _CONSTANTS), strict=True):
            entries = _json(archive, members, config)["config"]
            for name, tensor in _tensors(archive, members, folder, entries):
                if tensors.setdefault(name, tensor) is not tensor:
                    raise ModelError(f"two tensors are named '{name[:100]}': {_EXPORT_AGAIN}")
        return Program(path.name, program, tensors)


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """By name below the archive's one root folder, as torch.save stores them: uncompressed."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise ModelError(f"the archive has {len(infos):,} members; at most {MAX_MEMBERS:,} are read")
    roots = {info.filename.partition("/")[0] for info in infos}
    if len(roots) != 1:
        raise ModelError(f"the archive has {len(roots)} folders at its root, not one: {_EXPORT_AGAIN}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.partition("/")[2]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ModelError(f"'{name[:100]}' is compressed, which torch does not do: {_EXPORT_AGAIN}")
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or info.flag_bits & 1:
            raise ModelError(f"a member of the archive has the name '{name[:100]}': {_EXPORT_AGAIN}")
        if _is_link(info):
            raise ModelError(f"'{name[:100]}' is a link: {_EXPORT_AGAIN}")
        if members.setdefault(name, info) is not info:
            raise ModelError(f"'{name[:100]}' is in the archive twice: {_EXPORT_AGAIN}")
    if sum(info.file_size for info in infos) > size:
        raise ModelError("the archive's members are larger than the file: upload it again")
    return members


def _is_link(info: zipfile.ZipInfo) -> bool:
    kind = info.external_attr >> 16 & 0o170000
    return kind not in (0, 0o100000)


def _refuse_code(members: dict[str, zipfile.ZipInfo]) -> None:
    if library := next((name for name in members if name.startswith("data/aotinductor/")), None):
        raise ModelError(
            f"the archive holds machine code ('{library[:100]}', by AOTInductor), which is never run: give "
            "the archive that torch.export.save wrote"
        )
    for legacy in (_WEIGHTS + "model.pt", _CONSTANTS + "model.pt"):
        if legacy in members:
            raise ModelError(f"the weights are a pickle ('{legacy}'), which can run code: {_EXPORT_AGAIN}")
    programs = [name for name in members if name.startswith("models/")]
    if programs != [_PROGRAM]:
        raise ModelError(f"the archive has {len(programs)} programs, not one named 'model': {_EXPORT_AGAIN}")


def _json(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> dict[str, Any]:
    if name not in members:
        raise ModelError(f"the archive has no '{name}': {_EXPORT_AGAIN}")
    if members[name].file_size > MAX_JSON_BYTES:
        raise ModelError(
            f"'{name}' has {members[name].file_size:,} bytes; at most {MAX_JSON_BYTES:,} are read"
        )
    value = json.loads(archive.read(members[name]))
    if not isinstance(value, dict):
        raise ModelError(f"'{name}' is no JSON object: {_EXPORT_AGAIN}")
    return value


def _check_version(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], program: dict[str, Any]
) -> None:
    order = members.get("byteorder")
    if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
        raise ModelError("the archive was not written on a little-endian machine: convert it there")
    version = program["schema_version"]["major"]
    if version != SCHEMA:
        raise ModelError(
            f"the program has version {version!r} of its format, and only {SCHEMA} is read: {_EXPORT_AGAIN}"
        )


def _tensors(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: str, entries: dict[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    files: dict[tuple[str, int], Tensor] = {}
    views: dict[object, Tensor] = {}
    for name, entry in entries.items():
        file, meta = entry["path_name"], entry["tensor_meta"]
        if entry["use_pickle"] or not isinstance(meta, dict) or not file.startswith(("weight_", "tensor_")):
            raise ModelError(
                f"'{name[:100]}' is a pickle ('{str(file)[:100]}'), which can run code when it is read: "
                "export the model without tensor subclasses (such as quantized weights) and custom objects"
            )
        key = (file, meta["dtype"])
        if key not in files:
            files[key] = _raw(archive, members.get(folder + file), meta, name)
        shape, strides, offset = _layout(meta)
        place = (key, shape, strides, offset, entry["is_param"])
        if place not in views:
            views[place] = _view(files[key], shape, strides, offset, name, learned=entry["is_param"] is True)
        yield name, views[place]


def _raw(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, meta: dict[str, Any], name: str) -> Tensor:
    """All numbers of one member, flat."""
    if info is None or meta["dtype"] not in DTYPES:
        why = "is not in the archive" if info is None else f"has the type {str(meta['dtype'])[:20]}"
        raise ModelError(f"'{name[:100]}' {why}: export the model in float32, float16 or bfloat16")
    dtype = DTYPES[meta["dtype"]]
    if info.file_size % dtype.itemsize:
        raise ModelError(f"'{name[:100]}' has {info.file_size} bytes, no whole number of {dtype}")
    flat = torch.empty(info.file_size // dtype.itemsize, dtype=dtype)
    with archive.open(info) as file:
        into = memoryview(flat.view(torch.uint8).numpy().data) if len(flat) else memoryview(b"")
        filled = 0
        while filled < len(into) and (read := file.readinto(into[filled:])):  # type: ignore[attr-defined]
            filled += read
    if filled != info.file_size:
        raise ModelError(f"'{name[:100]}' is cut short: upload the file again")
    return flat


def _layout(meta: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    sizes, strides = (tuple(_whole(one["as_int"]) for one in meta[key]) for key in ("sizes", "strides"))
    if len(sizes) != len(strides):
        raise ValueError("a tensor has not as many strides as axes")
    return sizes, strides, _whole(meta["storage_offset"]["as_int"])


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"{str(value)[:50]!r} is no size")
    return value


def _view(
    flat: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, name: str, *, learned: bool
) -> Tensor:
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if prod(shape) and last >= len(flat):
        raise ModelError(f"'{name[:100]}' of shape {list(shape)} is larger than its {len(flat)} numbers")
    if prod(shape) > len(flat):
        raise ModelError(f"'{name[:100]}' repeats its numbers: export the model with contiguous weights")
    view = flat.as_strided(shape, strides, offset)
    whole = view if view.is_contiguous() and len(flat) == view.numel() else view.contiguous()
    if not learned or not whole.is_floating_point():
        return whole
    return nn.Parameter(whole)
