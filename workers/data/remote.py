"""A data folder that is in S3: its names and sizes are known, its files come when they are opened."""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from schemas.refs import DataRef
from schemas.task import Task
from service.settings import Settings
from service.store.blobs import Blob, Blobs, parse_uri
from workers.cache import Cache, Entry
from workers.patience import patiently
from workers.transfer import DATA_FILES, OnBytes, Source, as_storage_error, look_at

_IN_PART = (".parquet", ".tar")
"""Formats that are read in part."""
_PAGE = 256 * 1024
"""Bytes of one small request."""


@dataclass(frozen=True)
class RemoteFolder:
    """A listed folder. Its shards go through the worker's cache, each an entry of its own."""

    cache: Cache
    source: Source
    on_bytes: OnBytes
    """Hears bytes of the shard that is being fetched; what it raises ends the fetch."""

    @property
    def names(self) -> list[str]:
        """Of the files of data, relative to the folder."""
        return sorted(self.source.files)

    def shard(self, name: str) -> "RemoteShard":
        """One of its files."""
        return RemoteShard(name, self, Source(self.source.uri, {name: self.source.files[name]}, ()))


@dataclass(frozen=True)
class RemoteShard:
    """A file of a remote folder."""

    name: str
    folder: RemoteFolder
    source: Source

    @contextmanager
    def _held(self) -> Iterator[Path]:
        with ExitStack() as stack:

            def hold() -> Entry:
                held = self.folder.cache.hold(self.source, on_bytes=self.folder.on_bytes)
                return stack.enter_context(held)

            entry = patiently(hold, lambda: self.folder.on_bytes(0, self.source.bytes))
            yield entry.path / self.name

    def open(self) -> AbstractContextManager[Path]:
        """The file in the cache; it is not evicted while the context lasts. Raises StorageError."""
        return self._held()

    def peek(self) -> IO[bytes]:
        """The file by ranges, in pages. Reading raises StorageError."""
        blobs = self.folder.cache.blobs.of(parse_uri(self.source.uri).bucket)
        return io.BufferedReader(_Ranges(blobs, self.source.files[self.name]), _PAGE)


def data_folder(
    ref: DataRef, cache: Cache, fetch: Callable[[str], Entry], heard: Callable[[], None]
) -> Path | RemoteFolder | None:
    """Where the data of a job are: None where they are synthetic; in S3 where they are more bytes of images
    than are kept in memory, in formats that can be read in part; else in the cache, by `fetch`.

    `heard` is called while S3 does not answer or a shard is fetched, and may raise Stopped. Raises
    StorageError.
    """
    if ref.uri is None:
        return None
    if ref.task is Task.image_classification:
        source = patiently(partial(look_at, cache.blobs, ref.uri, DATA_FILES), heard)
        in_part = all(name.endswith(_IN_PART) for name in source.files)
        if in_part and source.bytes > Settings().stream_bytes:
            return RemoteFolder(cache, source, lambda done, total: heard())
    return fetch(ref.uri).path


class _Ranges(io.RawIOBase):
    """An S3 object as a file that can be read anywhere."""

    def __init__(self, blobs: Blobs, blob: Blob) -> None:
        self._blobs = blobs
        self._blob = blob
        self._at = 0
        self.name = blob.key

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        with as_storage_error():
            found = self._blobs.get_range(self._blob, self._at, self._at + len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
