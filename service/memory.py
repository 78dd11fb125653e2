"""The memory that a job would take, from the heads of its model's files, and whether any worker has it."""

from collections.abc import Iterable, Sequence
from itertools import islice

from schemas.fleet import Worker
from schemas.job_spec import JobSpec
from schemas.memory import fits, in_gb, keeps_dtype, memory_needed, remedy
from schemas.problem import FieldError
from schemas.wire import DeviceClass
from schemas.zoo import ModelKind
from service.deps import Services
from service.errors import NotEnoughMemory
from service.store.blobs import Blob, BlobError, Blobs, parse_uri
from service.zoo.config import Unreadable
from service.zoo.layout import Candidate, candidates
from service.zoo.weights import weigh

_MOST_FILES = 2000
_WIDEST = 4
"""A float32 takes so many times the bytes of the smallest type in a file."""


def estimated(blobs: Blobs, spec: JobSpec, files: Sequence[Blob]) -> int | None:
    """Bytes that the job takes at least, with `files` under its model's uri; None: they do not tell."""
    model = _model_of(spec.model.uri, files)
    if model is None:
        return None
    if model.kind is not ModelKind.folder:
        size = sum(blob.bytes for blob in model.files.values())
        # constants of an ONNX graph are shared by all copies, and nobody knows here how many there are
        return size if model.kind is ModelKind.onnx else memory_needed(spec, size)
    try:
        stored = weigh(blobs.of(parse_uri(spec.model.uri).bucket), model).header
    except (Unreadable, BlobError):
        return None
    return memory_needed(spec, stored.computed_bytes(keep_half=keeps_dtype(spec)))


def require_memory(services: Services, spec: JobSpec) -> None:
    """NotEnoughMemory where no living worker has what the job takes at least.

    One listing, unless the model is large; nothing where a worker that may take the job does not state its
    memory, or none lives. What S3 does not tell now is left to the worker.
    """
    if not services.settings.check_memory:
        return
    workers = services.workers.living()
    most = most_memory(workers, spec.placement.device)
    if most is None:
        return
    where = parse_uri(spec.model.uri)
    try:
        listed = services.blobs.of(where.bucket).list(where.prefix, delimiter="/")
        files = list(islice(listed, _MOST_FILES))
    except BlobError:
        return
    if fits(memory_needed(spec, _WIDEST * sum(blob.bytes for blob in files)), most):
        return
    refuse_what_fits_nowhere(workers, spec, estimated(services.blobs, spec, files))


def refuse_what_fits_nowhere(workers: Sequence[Worker], spec: JobSpec, needed: int | None) -> None:
    """NotEnoughMemory, which names both figures and the remedy, where all workers state too little."""
    wanted = spec.placement.device
    most = most_memory(workers, wanted)
    if needed is None or most is None or fits(needed, most):
        return
    large = [one for one in workers if not one.draining and fits(needed, one.memory_bytes or 0)]
    where, field = ("placement", "device") if large else ("model", "uri")
    elsewhere = f"set placement.device to '{large[0].serves[0]}', where a worker has it, or " if large else ""
    told = (
        f"the job takes at least {in_gb(needed)} (its copies of the weights and what training adds, without "
        f"activations), and no worker that serves '{wanted}' has more than {in_gb(most)}: "
        f"{elsewhere}{remedy(spec)}"
    )
    raise NotEnoughMemory(
        f"{where}.{field}: {told}.",
        errors=(FieldError(loc=["body", where, field], msg=told, type=NotEnoughMemory.code),),
        needed_bytes=needed,
        most_bytes=most,
    )


def most_memory(workers: Iterable[Worker], device: DeviceClass) -> int | None:
    """Of the workers that may take a job of this class; None: there is none, or one does not state it."""
    serving = [one.memory_bytes for one in workers if device in one.serves and not one.draining]
    stated = [one for one in serving if one is not None]
    return max(stated) if stated and len(stated) == len(serving) else None


def _model_of(uri: str, files: Iterable[Blob]) -> Candidate | None:
    """What a worker would load from the folder or file at `uri`; the folder itself before files in it."""
    found = candidates(parse_uri(uri).bucket, files)
    here = [one for one in found if one.uri.startswith(uri) and "/" not in one.uri[len(uri) :]]
    return here[0] if here else None
