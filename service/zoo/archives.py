"""What the heads and tails of single files say: `torch.export` archives (.pt2) and ONNX files."""

import io
import json
import struct
import threading
import zipfile
from collections import Counter
from math import prod
from typing import Any

from service.store.blobs import Blob, Blobs
from service.store.tensor_header import OTHER, TensorHeader
from service.zoo.config import Unreadable

MAX_READ_BYTES = 4 * 2**20
"""Of an archive's directory, and of the list of its weights: about 90,000 members."""

_TAIL_BYTES = 64 * 1024
_PROGRAM = "models/model.json"
_LISTS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_PICKLES = ("data/weights/model.pt", "data/constants/model.pt")
_EXPORT_AGAIN = "export the model again with torch.export.save of torch 2.9 or newer"
_FEW = threading.BoundedSemaphore(4)  # a directory of 4 MiB becomes 50 MB of Python's objects
_BROKEN = (
    zipfile.BadZipFile,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What zipfile raises on damaged bytes, and we on JSON of another shape."""
_TYPES = {
    1: "U8",
    2: "I8",
    3: "I16",
    4: "I32",
    5: "I64",
    6: "F16",
    7: "F32",
    8: "F64",
    12: "BOOL",
    13: "BF16",
}
"""torch._export.serde.schema.ScalarType in the names of safetensors."""


class _TooLarge(Exception):
    """More would have to be read than is cheap."""


class _Ranges(io.RawIOBase):
    """A file in S3 that zipfile may seek in; its end is read once."""

    def __init__(self, blobs: Blobs, blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob
        self._at = 0
        self._tail_start = max(0, blob.bytes - _TAIL_BYTES)
        self._tail = blobs.get_range(blob, self._tail_start, blob.bytes)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.bytes}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._blob.bytes if size < 0 else min(self._at + size, self._blob.bytes)
        start, self._at = self._at, max(self._at, end)
        if end - start > MAX_READ_BYTES:
            raise _TooLarge
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : max(0, end - self._tail_start)]
        return self._blobs.get_range(self._blob, start, end)


def torch_export(blobs: Blobs, blob: Blob) -> TensorHeader | None:
    """The weights of a `.pt2` archive; None where it does not say in a cheap way.

    Raises Unreadable, and BlobError's classes.
    """
    try:
        with _FEW, zipfile.ZipFile(_Ranges(blobs, blob)) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            _refuse_code(members)
            return _header([_entries(archive, members.get(name)) for name in _LISTS])
    except _TooLarge:
        return None
    except _BROKEN as error:
        raise Unreadable(f"the file is not a torch.export archive ({error}): upload it again") from error


def _refuse_code(members: dict[str, zipfile.ZipInfo]) -> None:
    """What the worker's reader refuses too, as far as the names tell."""
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise Unreadable(f"the archive has compressed members, which torch does not write: {_EXPORT_AGAIN}")
    if any(name.startswith("data/aotinductor/") for name in members):
        raise Unreadable(f"the archive holds machine code (AOTInductor), never run: {_EXPORT_AGAIN}")
    if any(name in members for name in _PICKLES):
        raise Unreadable(f"the weights are a pickle, which can run code: {_EXPORT_AGAIN}")
    if [name for name in members if name.startswith("models/")] != [_PROGRAM] or _LISTS[0] not in members:
        raise Unreadable(f"the archive does not hold one program with its weights: {_EXPORT_AGAIN}")


def _entries(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> dict[str, Any]:
    if info is None:
        return {}
    if info.file_size > MAX_READ_BYTES:
        raise _TooLarge
    entries: dict[str, Any] = json.loads(archive.read(info))["config"]
    return entries


def _header(parts: list[dict[str, Any]]) -> TensorHeader:
    """A member that several names share counts once."""
    elements: Counter[str] = Counter()
    seen: set[str] = set()
    for name, entry in (pair for part in parts for pair in part.items()):
        if entry["use_pickle"]:
            raise Unreadable(
                f"'{name[:100]}' is stored as a pickle, which can run code when it is read: "
                "export the model without tensor subclasses and custom objects"
            )
        meta = entry["tensor_meta"]
        count = prod(int(size["as_int"]) for size in meta["sizes"])
        if not 0 <= count < 2**63:
            raise ValueError(f"'{name[:100]}' has an impossible size")
        if entry["path_name"] not in seen:
            elements[_TYPES.get(meta["dtype"], OTHER)] += count
        seen.add(entry["path_name"])
    return TensorHeader(len(seen), elements)


def check_onnx(blobs: Blobs, blob: Blob) -> None:
    """Raises Unreadable where the file does not begin as ONNX does: with the version of its format.

    Its weights lie between its nodes: to count them the whole file would have to be read.
    """
    first = blobs.get_range(blob, 0, 2)
    if len(first) < 2 or first[0] != 0x08 or not 1 <= first[1] <= 100:
        raise Unreadable("the file does not begin like an ONNX model: upload it again")
