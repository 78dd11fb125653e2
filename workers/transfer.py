"""Pull a folder from S3: only the files that were asked for, in parallel ranges, checked, and resumable."""

import errno
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from schemas.base import is_model_file
from service.settings import MiB
from service.store.blobs import Blob, BlobConflict, BlobError, Blobs, BlobUnavailable, parse_uri
from workers.checksums import Stated, crc32, stated
from workers.errors import StorageError, StorageUnavailable
from workers.model_files import PICKLES, one_form, with_companions
from workers.partial import OWN, Partial, Plan
from workers.ranged import RangeReader

MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "*.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "*.spm",
    "target_vocab.json",
    "preprocessor_config.json",
    "processor_config.json",
    "surgery.json",
    "*.pt2",
    "*.onnx",
    "*.onnx.data",
    "*.onnx_data",
)
DATA_FILES = (
    *(f"{folder}*.{kind}" for folder in ("", "data/") for kind in ("parquet", "npz", "txt", "tar")),
    "*.safetensors",
    *(f"{split}/*.tar" for split in ("train", "validation", "calibration")),
)

MAX_OBJECTS = 200_000
"""Of one folder; S3 lists them a thousand at a time."""
_MOST_NAME_BYTES = 200
RANGE_BYTES = 32 * MiB
THREADS = 4
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)

OnBytes = Callable[[int, int], None]
"""Hears bytes so far and bytes in all, from several threads, one at a time. What it raises ends the pull."""


@dataclass(frozen=True)
class File:
    """A file that was pulled. `name` is relative to the folder; `sha256` is what its uploader stated."""

    name: str
    bytes: int
    etag: str
    sha256: str | None


@dataclass(frozen=True)
class Pulled:
    """What is in the folder now, and what S3 has that stayed there because no pattern names it."""

    files: tuple[File, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A listed folder: the files to pull, by their relative names, and the names to leave."""

    uri: str
    files: dict[str, Blob]
    skipped: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(blob.bytes for blob in self.files.values())


def look_at(blobs: Blobs, uri: str, allow: Sequence[str]) -> Source:
    """List the folder, or a model's file and the small files beside it. `allow` has patterns for relative
    names, segment by segment.

    Raises StorageError when the bucket cannot be read or nothing is there.
    """
    if is_model_file(uri):
        return _look_at_file(blobs, uri, allow)
    bucket, prefix = parse_uri(uri if uri.endswith("/") else uri + "/")
    with as_storage_error():
        found = list(islice(blobs.of(bucket).list(prefix), MAX_OBJECTS + 1))
        listed = [blob for blob in found if not blob.key.endswith("/")]
        if len(found) > MAX_OBJECTS:
            raise StorageError(f"{uri} holds more than {MAX_OBJECTS:,} objects: give a folder with fewer")
        if not listed:
            raise StorageError(f"{uri} holds no files; check the bucket and the prefix")
        names = {blob.key.removeprefix(prefix): blob for blob in listed}
        files = {name: blob for name, blob in names.items() if wanted(name, allow)}
        files = one_form(blobs.of(bucket), files)
    return Source(uri, files, tuple(sorted(names.keys() - files.keys())))


def _look_at_file(blobs: Blobs, uri: str, allow: Sequence[str]) -> Source:
    bucket, key = parse_uri(uri)
    folder, slash, own = key.rpartition("/")
    with as_storage_error():
        listed = list(blobs.of(bucket).list(folder + slash, delimiter="/"))
    names = {name: blob for blob in listed if (name := blob.key.removeprefix(folder + slash))}
    if own not in names or not wanted(own, allow):
        raise StorageError(f"{uri} is not there; check the bucket and the name")
    files = with_companions(own, {name: blob for name, blob in names.items() if wanted(name, allow)})
    return Source(f"s3://{bucket}/{folder}{slash}", files, ())


def pull_folder(
    blobs: Blobs, uri: str, dest: Path, *, allow: Sequence[str], on_bytes: OnBytes, threads: int = THREADS
) -> Pulled:
    """Bring the folder at `uri` to `dest`; after a crash the same call goes on where it was.

    Raises StorageError: nothing there, no permission, no answer, a full disk, bytes that do not match.
    """
    return pull(blobs, look_at(blobs, uri, allow), dest, on_bytes=on_bytes, threads=threads)


def pull(
    blobs: Blobs,
    source: Source,
    dest: Path,
    *,
    on_bytes: OnBytes,
    threads: int = THREADS,
    range_bytes: int = RANGE_BYTES,
) -> Pulled:
    """Bring the files of a listed folder to `dest`, `range_bytes` by request. Errors: as of pull_folder."""
    bucket = blobs.of(parse_uri(source.uri).bucket)
    with as_storage_error(), ThreadPoolExecutor(threads, "pull") as pool:
        job = _Pull(bucket, source, dest, on_bytes, pool, range_bytes)
        done = job.run()
    return Pulled(tuple(done[name] for name in source.files), source.skipped)


@dataclass(eq=False)
class _Transfer:
    """One file."""

    name: str
    blob: Blob
    stated: Stated
    partial: Partial
    counted: int = 0
    """Bytes that on_bytes has heard of."""

    def verified(self) -> bool:
        """Whether the bytes are those of the object; the CRCs of the parts were taken on the way."""
        if self.partial.path.stat().st_size != self.blob.bytes:
            return False
        if self.stated.kind == "crc32_parts" and all(self.partial.done.values()):
            crcs = [crc for index in sorted(self.partial.done) for crc in self.partial.done[index]]
            return self.stated.parts_agree(crcs)
        return self.stated.agrees(self.partial.path)


@dataclass
class _Pull:
    blobs: Blobs
    source: Source
    dest: Path
    on_bytes: OnBytes
    pool: ThreadPoolExecutor
    range_bytes: int
    _so_far: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.reader = RangeReader(self.blobs)

    def run(self) -> dict[str, File]:
        """All files; one that changed or came out wrong is fetched once more."""
        done, failed = self._attempt(self.source.files)
        if failed:
            again, failed = self._attempt({name: self._now(name) for name in failed})
            done |= again
        for name, why in failed.items():
            raise StorageError(f"{self.source.uri}{name} {why}, twice: upload it again, then retry the job")
        return done

    def _attempt(self, files: dict[str, Blob]) -> tuple[dict[str, File], dict[str, str]]:
        """The files that arrived, and of the others the reason."""
        transfers = list(self.pool.map(self._begin, files, files.values()))
        try:
            self._make_room(transfers)
            for one in transfers:
                self._count(one, one.partial.bytes_done)
            failed = self._fetch_all(transfers)
            arrived = [one for one in transfers if one.name not in failed]
            for one, good in zip(arrived, self.pool.map(_Transfer.verified, arrived), strict=True):
                if not good:
                    failed[one.name] = "does not match the checksum that S3 states"
        finally:
            for one in transfers:
                one.partial.close()
        return self._settle(transfers, failed), failed

    def _settle(self, transfers: list[_Transfer], failed: dict[str, str]) -> dict[str, File]:
        arrived = [one for one in transfers if one.name not in failed]
        for one in arrived:
            one.partial.publish()
        for one in transfers:
            if one in arrived:
                one.partial.forget()
            else:
                self._count(one, -one.counted)
                one.partial.discard()
        return {one.name: File(one.name, one.blob.bytes, one.blob.etag, one.stated.sha256) for one in arrived}

    def _begin(self, name: str, blob: Blob) -> _Transfer:
        what = stated(self.blobs, blob)
        size = what.part_bytes
        whole_parts = size * max(1, self.range_bytes // size) if size else self.range_bytes
        plan = Plan(blob.etag, blob.bytes, whole_parts)
        return _Transfer(name, blob, what, Partial.open(self.dest / name, plan))

    def _fetch_all(self, transfers: list[_Transfer]) -> dict[str, str]:
        work = [(one, index) for one in transfers for index in one.partial.missing]
        futures = [(one, self.pool.submit(self._fetch, one, index)) for one, index in work]
        failed: dict[str, str] = {}
        try:
            for one, future in futures:
                try:
                    future.result()
                except BlobConflict:
                    failed[one.name] = "changes while it is read"
        except BaseException:
            self._stop.set()
            self.pool.shutdown(cancel_futures=True)
            raise
        return failed

    def _fetch(self, one: _Transfer, index: int) -> None:
        start, end = one.partial.plan.span(index)
        crcs = _PartCrcs(one.stated.part_bytes)

        def sink(offset: int, view: memoryview) -> None:
            if self._stop.is_set():
                raise _Abandoned
            crcs.feed(view)
            one.partial.write(offset, view)
            self._count(one, len(view))

        self.reader.read(one.blob.key, one.blob.etag, start, end, sink)
        one.partial.finish_range(index, crcs.values)

    def _count(self, one: _Transfer, more: int) -> None:
        with self._lock:
            one.counted += more
            self._so_far += more
            self.on_bytes(self._so_far, self.source.bytes)

    def _now(self, name: str) -> Blob:
        key = self.source.files[name].key
        head = self.blobs.head(key)
        return Blob(key, head["ContentLength"], head["ETag"].strip('"'))

    def _make_room(self, transfers: list[_Transfer]) -> None:
        needed = sum(one.blob.bytes - one.partial.bytes_done for one in transfers)
        free = shutil.disk_usage(self.dest).free if transfers else 0
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed / MiB:.0f} MiB are needed, {free / MiB:.0f} MiB are free")


class _Abandoned(Exception):
    """Another range failed."""


class _PartCrcs:
    """CRC-32s of consecutive parts of the same size, of bytes that come in any pieces."""

    def __init__(self, part_bytes: int) -> None:
        self.values: list[int] = []
        self._part_bytes = part_bytes
        self._left = 0

    def feed(self, view: memoryview) -> None:
        while self._part_bytes and view:
            if not self._left:
                self.values.append(0)
                self._left = self._part_bytes
            piece = view[: self._left]
            self.values[-1] = crc32(piece, self.values[-1])
            self._left -= len(piece)
            view = view[len(piece) :]


def wanted(name: str, allow: Sequence[str]) -> bool:
    """Whether a pattern names it, and it can be a path below the folder and nothing else."""
    segments = name.split("/")
    if not all(map(_is_file_name, segments)):
        return False
    if name.lower().endswith((*PICKLES, *OWN)):
        return False
    return any(_matches(segments, pattern.split("/")) for pattern in allow)


def _is_file_name(segment: str) -> bool:
    """Of this folder, on any disk: also with what is appended while the file arrives."""
    if segment in ("", ".", "..") or "\\" in segment or not segment.isprintable():
        return False
    return len(segment.encode()) <= _MOST_NAME_BYTES


def _matches(segments: list[str], patterns: list[str]) -> bool:
    return len(segments) == len(patterns) and all(map(fnmatchcase, segments, patterns))


@contextmanager
def as_storage_error() -> Iterator[None]:
    """What S3 and the disk raise, as the job's error with its sentence."""
    try:
        yield
    except BlobUnavailable as error:
        raise StorageUnavailable(str(error)) from error
    except BlobError as error:
        raise StorageError(str(error)) from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"the worker's disk is full ({error}): free space under SECATEUR_CACHE_DIR, or lower "
                "SECATEUR_CACHE_BYTES"
            ) from error
        if error.errno in _FORBIDDEN:
            raise StorageError(
                f"the worker may not write there ({error}): correct SECATEUR_CACHE_DIR or its permissions"
            ) from error
        raise
