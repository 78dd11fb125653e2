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

_MARKER = "complete.json"
"""Written last: sizes and times of all files. Its own time is when the entry was used last."""
_RESERVED = "bytes"
"""What the entry has or will have."""
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

    An entry is `<key>/files/`, whole once `<key>/complete.json` is there; the key comes from the bucket, the
    prefix and all ETags. Whoever uses an entry holds a shared flock on `<key>/lock`, whoever changes it an
    exclusive one.
    """

    def __init__(self, blobs: Blobs, root: Path, limit_bytes: int) -> None:
        self.blobs = blobs
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
        with self.hold(look_at(self.blobs, uri, allow), on_bytes=on_bytes, threads=threads) as entry:
            yield entry

    @contextmanager
    def hold(self, source: Source, *, on_bytes: OnBytes, threads: int = THREADS) -> Iterator[Entry]:
        """The files of a listed folder, as `folder` has them. A single file of it can be an entry too."""
        place = self._root / _key(source)
        hit = True
        while True:
            with self._locked(place, fcntl.LOCK_SH, on_bytes, source.bytes):
                if _is_whole(place, source):
                    os.utime(place / _MARKER)
                    yield Entry(place / "files", source.skipped, hit)
                    return
            hit = False
            with self._locked(place, fcntl.LOCK_EX, on_bytes, source.bytes), as_storage_error():
                if not _is_whole(place, source):
                    self._fill(place, source, on_bytes, threads)

    @contextmanager
    def _locked(self, place: Path, kind: int, on_bytes: OnBytes, total: int) -> Iterator[None]:
        """Hold the entry's lock. Whoever has it may be downloading for long: `on_bytes` can end the wait."""
        with as_storage_error():
            place.mkdir(parents=True, exist_ok=True)
        while True:
            with _flock(place / "lock", kind | fcntl.LOCK_NB) as held:
                if held:
                    yield
                    return
            on_bytes(0, total)
            time.sleep(_POLL_S)
            place.mkdir(parents=True, exist_ok=True)  # it was evicted in between

    def _fill(self, place: Path, source: Source, on_bytes: OnBytes, threads: int) -> None:
        if (place / _MARKER).exists():  # it was whole once: what is there now is not to be trusted
            (place / _MARKER).unlink()
            shutil.rmtree(place / "files", ignore_errors=True)
        self._make_room(place, source.bytes)
        (place / "files").mkdir(exist_ok=True)
        pull(self.blobs, source, place / "files", on_bytes=on_bytes, threads=threads)
        draft = place / f"{_MARKER}.new"
        draft.write_text(json.dumps(_stamps(place, source)))
        draft.replace(place / _MARKER)

    def _make_room(self, place: Path, needed: int) -> None:
        """Evict until `needed` more bytes fit, and reserve them."""
        limit = f"the worker's cache of {self._limit / MiB:.0f} MiB"
        if needed > self._limit:
            raise StorageError(
                f"a folder of {needed / MiB:.0f} MiB does not fit {limit}: raise SECATEUR_CACHE_BYTES"
            )
        with _flock(self._root / "lock", fcntl.LOCK_EX):
            others = [path for path in self._root.iterdir() if path.is_dir() and path != place]
            sizes = {path: _reserved(path) for path in others}
            for path in sorted(others, key=_last_used):
                if sum(sizes.values()) + needed <= self._limit:
                    break
                if _evict(path):
                    del sizes[path]
            if sum(sizes.values()) + needed > self._limit:
                raise StorageError(
                    f"no room for {needed / MiB:.0f} MiB in {limit}: all the rest is in use; "
                    "raise SECATEUR_CACHE_BYTES or run fewer jobs at once"
                )
            (place / _RESERVED).write_text(str(needed))


def _key(source: Source) -> str:
    """The bucket, the prefix and every name with its ETag: another content is another entry."""
    files = sorted((name, blob.etag, blob.bytes) for name, blob in source.files.items())
    return hashlib.sha256(json.dumps([parse_uri(source.uri), files]).encode()).hexdigest()[:32]


def _stamps(place: Path, source: Source) -> dict[str, list[int]]:
    """Size and time of change of each file: what shows that somebody cut or wrote it."""
    found = {name: (place / "files" / name).stat() for name in source.files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}


def _is_whole(place: Path, source: Source) -> bool:
    try:
        stamps: object = json.loads((place / _MARKER).read_text())
        return stamps == _stamps(place, source)
    except (FileNotFoundError, ValueError):
        return False


def _reserved(place: Path) -> int:
    try:
        return int((place / _RESERVED).read_text() or 0)
    except FileNotFoundError:
        return 0  # somebody waits to fill it and has not asked for room yet


def _last_used(place: Path) -> float:
    times = [path.stat().st_mtime for name in (_MARKER, _RESERVED) if (path := place / name).exists()]
    return times[0] if times else 0.0


def _evict(place: Path) -> bool:
    """Remove the entry unless somebody uses it."""
    with _flock(place / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
        if not held:
            return False
        (place / _MARKER).unlink(missing_ok=True)  # first: a crash from here on leaves no whole entry
        shutil.rmtree(place)
        return True


@contextmanager
def _flock(path: Path, kind: int) -> Iterator[bool]:
    """Hold the lock file. False: with LOCK_NB, somebody else holds it, or it was removed meanwhile."""
    try:
        file = path.open("a")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            yield False
            return
        yield _still_there(path, file.fileno())


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
