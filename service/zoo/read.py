"""The models under a prefix, one page at a time: one listing, and a few small reads for each model."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from pydantic import ValidationError

from schemas.page import Page
from schemas.refs import ModelRef
from schemas.zoo import ModelKind, ZooModel
from service.store.blobs import (
    BlobConflict,
    BlobError,
    BlobNotFound,
    Blobs,
    BlobUnavailable,
    parse_uri,
)
from service.store.tensor_header import TensorHeader
from service.zoo import archives
from service.zoo.config import MAX_CONFIG_BYTES, Described, Unreadable, describe
from service.zoo.layout import CONFIG, SURGERY, Candidate, candidates
from service.zoo.weights import weigh

MAX_OBJECTS = 100_000
"""Of one listing, which S3 gives a thousand at a time."""

_UNKNOWN = Described()


class TooManyObjects(Exception):
    """A prefix holds more objects than one request lists."""


class Zoo:
    """Reads with so many threads, which all requests of a process share."""

    def __init__(self, blobs: Blobs, threads: int = 16) -> None:
        self._blobs = blobs
        self._pool = ThreadPoolExecutor(threads, "zoo")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def page(
        self, uri: str, *, limit: int, after: str | None, plugins: Collection[str] = ()
    ) -> Page[ZooModel]:
        """The models under `uri`, by uri. Raises TooManyObjects and BlobError's classes.

        A model that cannot be read is in the list, with the reason. `plugins`: libraries that workers have.
        """
        bucket, prefix = parse_uri(uri)
        blobs = self._blobs.of(bucket)
        listed = list(islice(blobs.list(prefix), MAX_OBJECTS + 1))
        if len(listed) > MAX_OBJECTS:
            raise TooManyObjects
        found = [one for one in candidates(bucket, listed) if after is None or one.uri > after]
        models = list(self._pool.map(lambda one: look(blobs, one, plugins), found[:limit]))
        return Page(data=models, has_more=len(found) > limit, last_id=models[-1].uri if models else None)


def look(blobs: Blobs, candidate: Candidate, plugins: Collection[str] = ()) -> ZooModel:
    """What one model is; where it cannot be read, the answer says why. Raises BlobUnavailable."""
    looks: dict[ModelKind, Callable[[Blobs, Candidate], ZooModel]] = {
        ModelKind.folder: partial(_folder, plugins=plugins),
        ModelKind.torch_export: _torch_export,
        ModelKind.onnx: _onnx,
    }
    try:
        return looks[candidate.kind](blobs, candidate)
    except BlobUnavailable:
        raise
    except (BlobConflict, BlobNotFound):
        reason = "it changed while it was read: list it again"
    except BlobError as error:  # one object that S3 gives to nobody must not hide the others
        reason = f"it is listed and cannot be read: {error}"
    return _model(candidate, sum(blob.bytes for blob in candidate.files.values()), reasons=[reason])


def _folder(blobs: Blobs, candidate: Candidate, plugins: Collection[str]) -> ZooModel:
    described = _described(blobs, candidate, plugins)
    reasons = [described.reason] if described.reason else []
    if described.surgery and SURGERY not in candidate.files:
        reasons.append(f"config.json names {SURGERY}, which is not in the folder: upload it")
    try:
        weighed = weigh(blobs, candidate)
    except Unreadable as error:
        size = sum(blob.bytes for blob in candidate.weights())
        return _model(candidate, size, described, reasons=[*reasons, str(error)])
    return _model(candidate, weighed.bytes, described, weighed.header, reasons)


def _described(blobs: Blobs, candidate: Candidate, plugins: Collection[str]) -> Described:
    blob = candidate.files.get(CONFIG)
    if blob is None:
        return Described(reason="the folder has no config.json: store the model in the layout of the hub")
    if blob.bytes > MAX_CONFIG_BYTES:
        return Described(
            reason=f"config.json has {blob.bytes:,} bytes; at most {MAX_CONFIG_BYTES:,} are read"
        )
    return describe(blobs.get_range(blob, 0, blob.bytes), plugins)


def _torch_export(blobs: Blobs, candidate: Candidate) -> ZooModel:
    blob = next(iter(candidate.files.values()))
    described = Described(library="torch.export")
    try:
        header = archives.torch_export(blobs, blob)
    except Unreadable as error:
        return _model(candidate, blob.bytes, described, reasons=[str(error)])
    return _model(candidate, blob.bytes, described, header)


def _onnx(blobs: Blobs, candidate: Candidate) -> ZooModel:
    size = sum(blob.bytes for blob in candidate.files.values())
    described = Described(library="onnx")
    try:
        archives.check_onnx(blobs, next(iter(candidate.files.values())))
    except Unreadable as error:
        return _model(candidate, size, described, reasons=[str(error)])
    return _model(candidate, size, described)


def _model(
    candidate: Candidate,
    size: int,
    described: Described = _UNKNOWN,
    header: TensorHeader | None = None,
    reasons: Sequence[str] = (),
) -> ZooModel:
    every = [*reasons, *_why_not_nameable(candidate)]
    return ZooModel(
        uri=candidate.uri,
        kind=candidate.kind,
        library=_clean(described.library),
        architecture=_clean(described.architecture),
        tasks=list(described.tasks),
        parameters=None if header is None else header.elements.total(),
        bytes=size,
        dtypes={} if header is None else dict(header.elements.most_common()),
        readable=not every,
        reason=_clean("; ".join(every) or None),
    )


def _why_not_nameable(candidate: Candidate) -> list[str]:
    try:
        ModelRef(uri=candidate.uri)
    except ValidationError as error:
        return [f"a spec cannot name it: {error.errors()[0]['msg'].removeprefix('Value error, ')}"]
    return []


def _clean(text: str | None) -> str | None:
    """JSON of a user may hold lone surrogates, which no answer could carry."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
