"""What S3 states about an object's bytes, and whether a file agrees."""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from service.store.blobs import SHA256_METADATA, Blob, BlobError, BlobForbidden, Blobs, BlobUnavailable

# zlib's CRC-32 is a quarter of a download's CPU time (0.2 of 0.8 s a GiB); zlib-ng's uses the CPU's own
# instructions for it
_ZLIB: Any = import_module("zlib_ng.zlib_ng") if find_spec("zlib_ng") else zlib
_PIECE = 4 * 1024**2


@dataclass(frozen=True)
class Stated:
    """The strongest check that S3 offers for one object; `kind` '' where it states nothing."""

    kind: str = ""
    """crc32, sha256, md5, or crc32_parts: a CRC-32 over the CRC-32s of its parts."""
    value: str = ""
    part_bytes: int = 0
    """The size of each part but the last; only of crc32_parts."""
    sha256: str | None = None
    """What the uploader recorded of the whole file, if it did."""

    def parts_agree(self, crcs: Sequence[int]) -> bool:
        """Whether CRC-32s of all parts, in order, come to the stated one."""
        joined = b"".join(crc.to_bytes(4, "big") for crc in crcs)
        return self.value == f"{_base64(crc32(joined))}-{len(crcs)}"

    def agrees(self, path: Path) -> bool:
        """Whether the file has the stated bytes. True where nothing is stated."""
        if self.kind == "crc32_parts":
            return self.parts_agree(_crcs(path, self.part_bytes))
        check = _CHECKS.get(self.kind)
        return check is None or check(path) == self.value


def stated(blobs: Blobs, blob: Blob) -> Stated:
    """Ask S3. A CRC goes first: it finds what storage and networks do, at a third of the time of SHA-256."""
    head = blobs.head(blob.key)
    sha256 = head.get("Metadata", {}).get(SHA256_METADATA)
    crc32 = head.get("ChecksumCRC32", "")
    full = head.get("ChecksumSHA256", "")
    if re.fullmatch(r".+-\d+", crc32):
        part_bytes = _part_bytes(blobs, blob, int(crc32.rpartition("-")[2]))
        if part_bytes:
            return Stated("crc32_parts", crc32, part_bytes, sha256)
    elif crc32:
        return Stated("crc32", crc32, 0, sha256)
    if full and "-" not in full:
        return Stated("sha256", base64.b64decode(full).hex(), 0, sha256)
    if sha256 is not None:
        return Stated("sha256", sha256, 0, sha256)
    if _etag_is_md5(head, blob.etag):
        return Stated("md5", blob.etag)
    return Stated()


def _part_bytes(blobs: Blobs, blob: Blob, count: int) -> int:
    """The size of the parts that it was uploaded in, or 0 where they differ or S3 does not tell."""
    try:
        first, last = blobs.head(blob.key, part=1), blobs.head(blob.key, part=count)
    except (BlobForbidden, BlobUnavailable):
        raise
    except BlobError:
        return 0  # this server does not tell about parts
    size = int(first.get("ContentLength", 0))
    if first.get("PartsCount", 0 if count > 1 else 1) != count:
        return 0
    return size if size * (count - 1) + int(last.get("ContentLength", 0)) == blob.bytes else 0


def _etag_is_md5(head: Mapping[str, Any], etag: str) -> bool:
    plain = head.get("ServerSideEncryption") in (None, "AES256") and "SSECustomerAlgorithm" not in head
    return plain and re.fullmatch(r"[0-9a-f]{32}", etag) is not None


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    """CRC-32 of bytes that come after others whose CRC-32 was `before`."""
    crc: int = _ZLIB.crc32(data, before)
    return crc


def _base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _crcs(path: Path, part_bytes: int) -> list[int]:
    found: list[int] = []
    with path.open("rb") as file:
        while piece := file.read(min(_PIECE, part_bytes)):
            crc, left = crc32(piece), part_bytes - len(piece)
            while left and (piece := file.read(min(_PIECE, left))):
                crc, left = crc32(piece, crc), left - len(piece)
            found.append(crc)
    return found


def _crc32(path: Path) -> str:
    return _base64((_crcs(path, max(path.stat().st_size, 1)) or [0])[0])


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


_CHECKS: dict[str, Callable[[Path], str]] = {
    "crc32": _crc32,
    "sha256": lambda path: _digest(path, "sha256"),
    "md5": lambda path: _digest(path, "md5"),
}
