"""Workers and queues: who serves what, what waits, and why."""

from fastapi import APIRouter

from schemas.fleet import Queue, Worker
from schemas.job import Status
from schemas.page import Page
from schemas.wire import DeviceClass
from service.deps import Caller, Services, ServicesOf
from service.estimate import who_serves
from service.routes.responses import problems
from service.store.api_keys import Principal
from service.store.queues import QueueSize
from service.store.records import Filter

router = APIRouter(prefix="/v1", tags=["fleet"])

_UNRUNG_S = 30.0
_MOST_RUNNING = 1000


@router.get("/workers", responses=problems(401), summary="Workers")
def list_workers(services: ServicesOf, caller: Caller) -> Page[Worker]:
    """The workers that announced themselves in the last 30 seconds. `jobs` names your own jobs only."""
    own = _running(services, caller)
    workers = [
        worker.model_copy(update={"jobs": own.get(worker.id, [])}) for worker in services.workers.living()
    ]
    return Page(data=workers)


def _running(services: Services, caller: Principal) -> dict[str, list[str]]:
    """The ids of the caller's jobs that run now, by worker."""
    by_worker: dict[str, list[str]] = {}
    for status in (Status.running, Status.cancelling):
        jobs, _ = services.records.page(caller.tenant, Filter((status,)), limit=_MOST_RUNNING, after=None)
        for job in jobs:
            by_worker.setdefault(job.worker or "", []).append(job.id)
    return by_worker


@router.get("/queues", responses=problems(401), summary="Queues")
def list_queues(services: ServicesOf, caller: Caller) -> Page[Queue]:
    """One queue for each device class, over all tenants, with the reason why its jobs wait."""
    seconds, microseconds = services.redis.time()
    now_ms = seconds * 1000 + microseconds // 1000
    workers = services.workers.living()
    queues = []
    for device in DeviceClass:
        size = services.queues.size(device)
        queues.append(queue_of(device, size, workers, now_ms))
    return Page(data=queues)


def queue_of(device: DeviceClass, size: QueueSize, workers: list[Worker], now_ms: int) -> Queue:
    """One queue as its size and the living workers show it at this moment (milliseconds)."""
    serving = [one for one in workers if device in one.serves and not one.draining]
    free = sum(max(0, one.slots - one.busy) for one in serving)
    wait = None if size.oldest_ms is None else max(0.0, (now_ms - size.oldest_ms) / 1000)
    return Queue(
        name=device,
        waiting=size.waiting,
        running=size.running,
        demand=size.demand,
        workers=len(serving),
        free_slots=free,
        oldest_wait_s=wait,
        reason=_reason(device, size, serving, free, wait),
    )


def _reason(
    device: DeviceClass, size: QueueSize, serving: list[Worker], free: int, wait_s: float | None
) -> str:
    if size.waiting == 0:
        return "Nothing waits."
    if not serving:
        return f"No worker serves '{device}': start {who_serves(device)}."
    if free == 0:
        slots = sum(one.slots for one in serving)
        return f"All {slots} slots of the workers that serve '{device}' are busy: {len(serving)} workers."
    if wait_s is not None and wait_s > _UNRUNG_S:
        return f"{free} slots are free, but nobody rings them: check that the steward runs."
    return f"{free} slots are free and are being rung."
