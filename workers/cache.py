"""Models and data sets kept on a worker's disk: shared by its processes, bounded, the oldest goes first."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.settings import MiB, Settings
from service.store.blobs import Blobs, parse_uri
from workers.errors import StorageError
from workers.transfer import THREADS, OnBytes, Source, as_storage_error, look_at, pull

_POLL_S = 0.1


@dataclass(frozen=True)
class Entry:
    """A folder in the cache, whole and not to be written to while it is in use."""

    path: Path
    skipped: tuple[str, ...]
    """Names that S3 has and no pattern asked for."""
    hit: bool
    """It was there already."""


class Cache:
    """The folder SECATEUR_CACHE_DIR. Any number of processes of one machine may use it at once.

    An entry is `<key>/files/` with `<key>/complete.json`; the key comes from the bucket, the prefix and all
    ETags. Whoever uses an entry holds a shared flock on `<key>/lock`, whoever changes it an exclusive one.
    """

    def __init__(self, blobs: Blobs, root: Path, limit_bytes: int) -> None:
        self._blobs = blobs
        self._root = root
        self._limit = limit_bytes

    @classmethod
    def of(cls, settings: Settings, blobs: Blobs) -> "Cache":
        """As the settings say."""
        return cls(blobs, settings.cache_dir, settings.cache_bytes)

    @contextmanager
    def folder(
        self, uri: str, *, allow: Sequence[str], on_bytes: OnBytes, threads: int = THREADS
    ) -> Iterator[Entry]:
        """The folder at `uri` as it is in S3 now, on the local disk for as long as the context lasts.

        Raises StorageError as pull_folder does, or when the cache has no room left.
        """
        source = look_at(self._blobs, uri, allow)
        place = self._root / _key(source)
        hit = True
        while True:
            with as_storage_error(), _locked(place, fcntl.LOCK_SH, on_bytes, source.bytes):
                if _is_whole(place, source):
                    os.utime(place / "complete.json")
                    yield Entry(place / "files", source.skipped, hit)
                    return
            hit = False
            with as_storage_error(), _locked(place, fcntl.LOCK_EX, on_bytes, source.bytes):
                if not _is_whole(place, source):
                    self._fill(place, source, on_bytes, threads)

    def _fill(self, place: Path, source: Source, on_bytes: OnBytes, threads: int) -> None:
        marker = place / "complete.json"
        if marker.exists():  # complete once, and no longer what it was
            marker.unlink()
            shutil.rmtree(place / "files", ignore_errors=True)
        self._make_room(place, source.bytes)
        (place / "files").mkdir(exist_ok=True)
        left = {name: blob for name, blob in source.files.items() if not (place / "files" / name).exists()}
        pull(self._blobs, source, place / "files", on_bytes=on_bytes, threads=threads)
        marker.write_text(json.dumps(_stamps(place, source)))
        del left

    def _make_room(self, place: Path, needed: int) -> None:
        """Evict until `needed` more bytes fit, and reserve them."""
        if needed > self._limit:
            raise StorageError(
                f"the folder has {needed / MiB:.0f} MiB and the worker's cache only {self._limit / MiB:.0f} MiB: "
                "raise SECATEUR_CACHE_BYTES"
            )
        with _exclusive(self._root / "lock"):
            entries = [path for path in self._root.iterdir() if path.is_dir() and path != place]
            sizes = {path: _reserved(path) for path in entries}
            for path in sorted(entries, key=_last_used):
                if sum(sizes.values()) + needed <= self._limit:
                    break
                if _evict(path):
                    del sizes[path]
            if sum(sizes.values()) + needed > self._limit:
                raise StorageError(
                    f"no room for {needed / MiB:.0f} MiB in the worker's cache of {self._limit / MiB:.0f} MiB: "
                    "all the rest is in use; raise SECATEUR_CACHE_BYTES or run fewer jobs at once"
                )
            (place / "bytes").write_text(str(needed))
