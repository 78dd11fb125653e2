"""WebDataset shards: tar files whose members `key.jpg` and `key.cls` make one sample.

Members are read in place, never unpacked, so a name is no path here. Headers go through Python's own
`tarfile.TarInfo.frombuf`; extended headers have a size limit, which `tarfile.open` does not have.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from workers.errors import DataError

_BLOCK = 512
_MAX_HEADER = 64 * 1024
"""Bytes of an extended header, which holds a long name."""
_MAX_MEMBERS = 20_000_000
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class Member:
    """A file in a tar, where its bytes are."""

    name: str
    offset: int
    bytes: int

    @property
    def key(self) -> str:
        """The name up to the first dot of its last part: what the members of a sample have in common."""
        folder, slash, base = self.name.rpartition("/")
        return f"{folder}{slash}{base.split('.', 1)[0]}"

    @property
    def kind(self) -> str:
        """What comes after that dot, in lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


def members(path: Path, name: str) -> Iterator[Member]:
    """The files of a tar in order. DataError names the shard, and the member, where it is no plain tar, cut
    off, has links or other special members, or names that lead out of a folder."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        yield from _Walk(file.fileno(), size, name).members()


def groups_of(path: Path, name: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """Samples in order: their key, and their members by kind. DataError names a kind that is there twice."""
    key, found = None, dict[str, Member]()
    for member in members(path, name):
        if member.name.rpartition("/")[2].startswith((".", "__")):
            continue  # of the writer, such as __index__ and macOS's ._name
        if member.key != key:
            if key is not None:
                yield key, found
            key, found = member.key, {}
        if member.kind in found:
            raise DataError(f"{name}: '{member.name}' is there twice: keep one of them")
        found[member.kind] = member
    if key is not None:
        yield key, found


@dataclass
class _Walk:
    file: int
    size: int
    shard: str

    def members(self) -> Iterator[Member]:
        offset, long_name, long_size = 0, None, None
        for _ in range(_MAX_MEMBERS):
            block = os.pread(self.file, _BLOCK, offset)
            if not block or block.count(0) == _BLOCK:
                return
            info = self._header(block, offset)
            start = offset + _BLOCK
            offset = start + -(-info.size // _BLOCK) * _BLOCK
            if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                long_name, long_size = self._pax(info, start, long_name)
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = self._text(info, start).rstrip("\0")
            elif info.type != tarfile.XGLTYPE:
                member = Member(long_name or info.name, start, info.size if long_size is None else long_size)
                offset = start + -(-member.bytes // _BLOCK) * _BLOCK
                self._check(member, info, offset)
                long_name = long_size = None
                if info.type in _FILES:
                    yield replace(member, name=member.name.removeprefix("./"))
        raise DataError(f"{self.shard} has more than {_MAX_MEMBERS:,} members: split it")

    def _header(self, block: bytes, offset: int) -> tarfile.TarInfo:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            packed = _COMPRESSED.get(block[:2]) if offset == 0 else None
            what = (
                f"is compressed with {packed}"
                if packed
                else f"is not a valid tar file at byte {offset} ({error})"
            )
            raise DataError(
                f"{self.shard} {what}: give an uncompressed .tar, images are packed already"
            ) from error
        if not 0 <= info.size <= self.size:
            raise DataError(
                f"{self.shard}: '{info.name}' says that it has {info.size:,} bytes, and the shard has "
                f"{self.size:,}: it is cut off or damaged, upload it again"
            )
        return info

    def _check(self, member: Member, info: tarfile.TarInfo, end: int) -> None:
        if info.type not in (*_FILES, tarfile.DIRTYPE):
            what = "a link" if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "no plain file"
            raise DataError(f"{self.shard}: '{member.name}' is {what}: give plain files only")
        if member.name.startswith("/") or ".." in member.name.split("/") or "\0" in member.name:
            raise DataError(
                f"{self.shard}: '{member.name}' leads out of the folder: give plain relative names"
            )
        if member.offset + member.bytes > self.size or end < member.offset:
            raise DataError(f"{self.shard} ends inside '{member.name}': it is cut off, upload it again")

    def _pax(self, info: tarfile.TarInfo, start: int, name: str | None) -> tuple[str | None, int | None]:
        """Name and size from records `length key=value\\n`."""
        size = None
        for key, value in _records(self._text(info, start)):
            if key == "path":
                name = value
            elif key == "size" and value.isdecimal() and len(value) < 20:
                size = int(value)
            elif key.startswith("GNU.sparse"):
                raise DataError(f"{self.shard} has a sparse member: give plain files only")
        return name, size

    def _text(self, info: tarfile.TarInfo, start: int) -> str:
        if info.size > _MAX_HEADER:
            raise DataError(f"{self.shard}: a header of {info.size:,} bytes; at most {_MAX_HEADER:,}")
        return os.pread(self.file, info.size, start).decode(errors="replace")


def _records(text: str) -> Iterator[tuple[str, str]]:
    """Values with a line break inside are cut there: names and sizes have none."""
    for line in text.split("\n"):
        _, _, record = line.partition(" ")
        key, equals, value = record.partition("=")
        if equals:
            yield key, value
