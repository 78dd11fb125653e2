"""What a spec would do, said before anything runs: rounds, epochs, bytes and warnings."""

from itertools import islice

from schemas.base import MODEL_FILE_SUFFIXES
from schemas.job import Estimate
from schemas.job_spec import JobSpec
from schemas.method import Unstructured
from schemas.schedule import Search
from schemas.wire import SERVED_BY, DeviceClass
from service.auth import check_uris
from service.deps import Services
from service.memory import estimated, refuse_what_fits_nowhere
from service.plugins import plugin_warnings
from service.store.api_keys import Principal
from service.store.blobs import Blob, BlobError, BlobForbidden, BlobNotFound, parse_uri

_MOST_FILES = 10_000
_DATA_SUFFIXES = (".parquet", ".npz", ".tar", ".txt", ".safetensors")


def estimate(services: Services, caller: Principal, spec: JobSpec) -> Estimate:
    """All that submitting would check, and an estimate; nothing is created.

    Raises PrefixNotAllowed, NotEnoughMemory.
    """
    check_uris(caller, spec, services.settings.bucket)
    model, model_warnings = _files(services, spec.model.uri)
    data, data_warnings = (None, []) if spec.data.uri is None else _files(services, spec.data.uri)
    if model is not None:
        model_warnings += _model_warnings(spec.model.uri, model)
    if data is not None and not any(blob.key.endswith(_DATA_SUFFIXES) for blob in data):
        data_warnings.append(
            f"{spec.data.uri} holds no {', '.join(_DATA_SUFFIXES)} file: the job would fail."
        )
    memory = None if model is None else estimated(services.blobs, spec, model)
    if services.settings.check_memory:
        refuse_what_fits_nowhere(services.workers.living(), spec, memory)
    rounds = spec.rounds_in_all()
    return Estimate(
        rounds=rounds,
        epochs=sum(spec.fine_tune.epochs_of(number, rounds) for number in range(1, rounds + 1)),
        model_bytes=None if model is None else sum(blob.bytes for blob in model),
        data_bytes=None if data is None else sum(blob.bytes for blob in data),
        memory_bytes=memory,
        warnings=[*model_warnings, *data_warnings, *_spec_warnings(spec), *_fleet_warnings(services, spec)],
        spec=spec,
    )


def _files(services: Services, uri: str) -> tuple[list[Blob] | None, list[str]]:
    """What lies under `uri`; None and a warning where that cannot be read."""
    where = parse_uri(uri)
    try:
        found = list(islice(services.blobs.of(where.bucket).list(where.prefix), _MOST_FILES))
    except BlobNotFound:
        return None, [f"There is no bucket '{where.bucket}': the job would fail."]
    except BlobForbidden:
        return None, [f"The service may not list {uri}: give it the right to read bucket '{where.bucket}'."]
    except BlobError:
        return None, [f"{uri} could not be listed: its size is not known."]
    if not found:
        return [], [f"{uri} is empty: the job would fail."]
    if len(found) == _MOST_FILES:
        return found, [f"{uri} holds {_MOST_FILES} files or more: the size is that of the first."]
    return found, []


def _model_warnings(uri: str, files: list[Blob]) -> list[str]:
    names = [blob.key.rpartition("/")[2] for blob in files]
    warnings: list[str] = []
    if any(name.endswith(MODEL_FILE_SUFFIXES) for name in names):
        return warnings
    if names and "config.json" not in names:
        warnings.append(f"{uri} holds no config.json: the job would fail.")
    if names and not any(name.endswith(".safetensors") for name in names):
        warnings.append(f"{uri} holds no .safetensors file; pickled weights are never loaded.")
    return warnings


def _spec_warnings(spec: JobSpec) -> list[str]:
    warnings = []
    rounds = spec.rounds_in_all()
    if rounds < spec.schedule.rounds_in_all() and not isinstance(spec.schedule, Search):
        reached = spec.removed_after(rounds)
        warnings.append(
            f"budget.max_rounds ends the job after round {rounds}, with {reached:.1%} of the {spec.quantity} "
            "gone: the goal is not reached."
        )
    if spec.fine_tune.epochs == 0 and spec.fine_tune.final_epochs == 0:
        warnings.append("fine_tune.epochs is 0: nothing is trained, so the floor may break early.")
    if _empties_layers(spec):
        warnings.append("A global cut above 95 % can empty whole layers: consider allocation 'uniform'.")
    return warnings


def _empties_layers(spec: JobSpec) -> bool:
    method, goal = spec.method, spec.goal
    if not isinstance(method, Unstructured) or goal is None or goal.sparsity is None:
        return False
    return goal.sparsity > 0.95 and method.allocation.kind == "global" and method.allocation.cap == 1


def _fleet_warnings(services: Services, spec: JobSpec) -> list[str]:
    wanted = spec.placement.device
    if any(wanted in worker.serves and not worker.draining for worker in services.workers.living()):
        return plugin_warnings(services.workers.living(), spec)
    return [f"No worker serves '{wanted}' now: the job would wait for one ({who_serves(wanted)})."]


def who_serves(device: DeviceClass) -> str:
    """The devices that may take a job of this class, in words."""
    devices = [own.value for own, served in SERVED_BY.items() if device in served]
    return "a worker on " + " or ".join(devices)
