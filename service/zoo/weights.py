"""Parameters, types and bytes of a model folder's weights, from the heads of its safetensors files."""

import json
import threading
from collections import Counter
from dataclasses import dataclass

from service.store.blobs import Blob, Blobs
from service.store.tensor_header import (
    LENGTH_BYTES,
    MAX_TENSORS,
    HeaderError,
    TensorHeader,
    header_length,
    parse_header,
)
from service.zoo.config import Unreadable
from service.zoo.layout import INDEX, SINGLE, Candidate, pickles

GUESS_BYTES = 64 * 1024
"""Read at once, in the hope that the header ends before: that of BERT-base has 20 kB."""
MAX_INDEX_BYTES = 16 * 2**20
MAX_SHARDS = 1000

_LARGE = threading.BoundedSemaphore(2)  # 16 MiB of JSON become a few hundred MB of Python's objects


@dataclass(frozen=True)
class Weighed:
    """What the heads say."""

    header: TensorHeader
    bytes: int


def weigh(blobs: Blobs, candidate: Candidate) -> Weighed:
    """Read the heads of a folder's weights. Raises Unreadable, and BlobError's classes."""
    files = candidate.files
    if SINGLE in files:
        return Weighed(_header(blobs, SINGLE, files[SINGLE]), files[SINGLE].bytes)
    if INDEX not in files:
        raise Unreadable(_why_no_weights(candidate))
    names = _shards(blobs, candidate)
    total = TensorHeader(0, Counter())
    for name in names:
        total += _header(blobs, name, files[name])
        if total.tensors > MAX_TENSORS:
            raise Unreadable(f"the shards name more than {MAX_TENSORS:,} tensors, which is all that are read")
    return Weighed(total, sum(files[name].bytes for name in names))


def _header(blobs: Blobs, name: str, blob: Blob) -> TensorHeader:
    try:
        first = blobs.get_range(blob, 0, GUESS_BYTES)
        length = header_length(first, blob.bytes)
        end = LENGTH_BYTES + length
        if end <= len(first):
            return parse_header(first[LENGTH_BYTES:end], blob.bytes)
        with _LARGE:
            rest = blobs.get_range(blob, len(first), end)
            return parse_header(first[LENGTH_BYTES:] + rest, blob.bytes)
    except HeaderError as error:
        raise Unreadable(f"{name} {error}") from error


def _why_no_weights(candidate: Candidate) -> str:
    pickled = pickles(candidate.files)
    others = sorted(name for name in candidate.files if name.endswith(".safetensors"))
    if others:
        return (
            f"the weights are in {_listed(others)}: name a single file {SINGLE}, or add {INDEX} for several"
        )
    if pickled:
        return (
            f"the weights are in {_listed(pickled)}, a pickle, which can run code when it is read: "
            "run `secateur convert` on it and upload the result"
        )
    return f"the folder has neither {SINGLE} nor {INDEX}: upload the weights as safetensors"


def _shards(blobs: Blobs, candidate: Candidate) -> list[str]:
    """The names in the index, each of a file of this folder."""
    blob = candidate.files[INDEX]
    if blob.bytes > MAX_INDEX_BYTES:
        raise Unreadable(f"{INDEX} has {blob.bytes:,} bytes; at most {MAX_INDEX_BYTES:,} are read")
    with _LARGE:
        try:
            index = json.loads(blobs.get_range(blob, 0, blob.bytes))
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{INDEX} is not valid JSON ({error}): upload the file again") from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise Unreadable(f"{INDEX} has no 'weight_map': save the model again with save_pretrained")
    names = sorted({str(name) for name in places.values()})
    if len(names) > MAX_SHARDS:
        raise Unreadable(f"{INDEX} names {len(names):,} files; at most {MAX_SHARDS:,} are read")
    for name in names:
        if not name.endswith(".safetensors") or "/" in name:
            raise Unreadable(
                f"{INDEX} names '{name[:100]}', which is not a *.safetensors file of this folder"
            )
        if name not in candidate.files:
            raise Unreadable(f"{INDEX} names {name[:100]}, which is not in the folder: upload it")
    return names


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
