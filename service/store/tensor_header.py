"""The head of a safetensors file: names, types and shapes of its tensors, without their values."""

import json
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
"""500,000 names took the library 19 s to open; real models have a few thousand."""

_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Bytes of an element."""
_HALF = frozenset({"F16", "BF16"})
_FLOATS = _HALF | {"F32", "F64", "F8_E4M3", "F8_E5M2"}
OTHER = "other"
"""Types that are not here; their sizes are not checked."""

_MOST = 2**63
_MOST_AXES = 64


class HeaderError(ValueError):
    """The file is not what it should be. The message continues the file's name and ends in the remedy."""


@dataclass(frozen=True)
class TensorHeader:
    """What a file, or several files together, hold."""

    tensors: int
    elements: Counter[str]
    """By type."""

    def __add__(self, other: "TensorHeader") -> "TensorHeader":
        return TensorHeader(self.tensors + other.tensors, self.elements + other.elements)

    def computed_bytes(self, *, keep_half: bool) -> int:
        """Bytes of the floating-point numbers in memory: as float32, or, where half precision stays and the
        weights have no other, in two bytes each."""
        floats = {dtype: count for dtype, count in self.elements.items() if dtype in _FLOATS}
        halved = keep_half and len(floats) == 1 and floats.keys() <= _HALF
        return sum(floats.values()) * (2 if halved else 4)


def header_length(first: bytes, file_bytes: int) -> int:
    """The length of the JSON that follows the first eight bytes. Raises HeaderError."""
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if file_bytes < LENGTH_BYTES or length > file_bytes - LENGTH_BYTES:
        raise HeaderError(
            f"is cut short or not a safetensors file: it says that its header has {length:,} bytes, "
            f"and the whole file has {file_bytes:,}: upload it again"
        )
    if length > MAX_HEADER_BYTES:
        raise HeaderError(f"has a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    return length


def parse_header(header: bytes, file_bytes: int) -> TensorHeader:
    """What `header`, the JSON alone, says about a file of so many bytes. Raises HeaderError."""
    tensors = header.count(b'"data_offsets"')
    if tensors > MAX_TENSORS:
        raise HeaderError(f"names {tensors:,} tensors; at most {MAX_TENSORS:,} are read")
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"has a header that is no JSON ({error}): upload it again") from error
    if not isinstance(entries, dict):
        raise HeaderError("has a header that is no JSON object: upload it again")
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise HeaderError(f"names {len(entries):,} tensors; at most {MAX_TENSORS:,} are read")
    found: Counter[str] = Counter()
    last = 0
    for name, entry in entries.items():
        dtype, elements, end = _tensor(name, entry)
        found[dtype] += elements
        last = max(last, end)
    stored = file_bytes - LENGTH_BYTES - len(header)
    if last != stored:
        raise HeaderError(
            f"is cut short or damaged: its tensors take {last:,} bytes, and it holds {stored:,}: "
            "upload it again"
        )
    return TensorHeader(len(entries), found)


def _tensor(name: str, entry: Any) -> tuple[str, int, int]:
    """Type, elements, and where the tensor's bytes end."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (
        fields.get("dtype"),
        _counts(fields.get("shape")),
        _counts(fields.get("data_offsets")),
    )
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise HeaderError(f"has a broken header at tensor '{name[:100]}': upload it again")
    elements, stored = prod(shape), offsets[1] - offsets[0]
    if elements * _BYTES.get(dtype, 0) not in (0, stored) or elements >= _MOST:
        raise HeaderError(
            f"has a broken header: tensor '{name[:100]}' of {elements:,} {dtype[:16]} takes {stored:,} "
            "bytes: upload it again"
        )
    return dtype if dtype in _BYTES else OTHER, elements, offsets[1]


def _counts(value: Any) -> list[int] | None:
    """A list of sizes; None where it is something else."""
    if not isinstance(value, list) or len(value) > _MOST_AXES:
        return None
    return value if all(type(one) is int and 0 <= one < _MOST for one in value) else None
