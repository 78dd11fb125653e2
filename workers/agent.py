"""The worker as a whole: its slots, its entry in the registry, and the loop that claims and runs jobs."""

import queue
import socket
import threading
import uuid
from datetime import UTC, datetime
from importlib.metadata import version

import structlog

from schemas.fleet import Worker
from schemas.job_spec import JobSpec
from schemas.wire import DeviceClass
from service.settings import Settings
from service.store.connect import UNREACHABLE, connect
from service.store.jobs import Claim, JobStore
from service.store.records import JobRecords
from service.store.workers import Workers
from workers import metrics
from workers.devices import Device, detect, most_memory, slots, threads_for
from workers.messages import JobOrder
from workers.plugins import MODELS, TASKS, installed
from workers.supervisor import Supervisor

log = structlog.get_logger(__name__)
ANNOUNCE_EVERY_S = 5.0


class Agent:
    """One a process. Thread-safe: each Celery pool thread calls `serve`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        redis = connect(settings.redis_url)
        self._store = JobStore(redis)
        self._records = JobRecords(redis)
        self._registry = Workers(redis)
        self._devices = slots(detect(), settings.worker_slots)
        self._threads = threads_for(len(self._devices), settings.threads)
        self._free: queue.Queue[Device] = queue.Queue()
        for device in self._devices:
            self._free.put(device)
        self._running: set[str] = set()
        self._lock = threading.Lock()
        self._drain = threading.Event()
        self._stopped = threading.Event()
        self._started_at = datetime.now(UTC)
        self._model_plugins, self._task_plugins = installed(MODELS), installed(TASKS)
        self.id = f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}"

    @property
    def slot_count(self) -> int:
        """Jobs at once."""
        return len(self._devices)

    @property
    def classes(self) -> tuple[DeviceClass, ...]:
        """The queues this worker listens to."""
        return tuple(dict.fromkeys(one for device in self._devices for one in device.serves))

    def start(self) -> None:
        """Begin to announce."""
        self._announce()
        metrics.SLOTS.set(self.slot_count)
        threading.Thread(target=self._announce_for_ever, name="announce", daemon=True).start()
        log.info("worker_started", worker=self.id, devices=[one.name for one in self._devices])

    def drain(self) -> None:
        """Take no more jobs and give back those that run: each stops at its next batch."""
        self._drain.set()

    def stop(self) -> None:
        """Leave the registry."""
        self._stopped.set()
        try:
            self._registry.leave(self.id)
        except UNREACHABLE as error:
            log.warning("could_not_leave", error=str(error))

    def serve(self) -> None:
        """Answer a ring: run waiting jobs on one free slot until none is left."""
        try:
            device = self._free.get_nowait()
        except queue.Empty:
            return
        try:
            while not self._drain.is_set():
                claim = self._store.claim(self.id, device.serves, self._settings.lease_seconds)
                if claim is None:
                    return
                self._run(claim, device)
        except UNREACHABLE as error:
            log.warning("claim_failed", error=str(error))
        finally:
            self._free.put(device)

    def _run(self, claim: Claim, device: Device) -> None:
        metrics.QUEUE_WAIT.observe(claim.waited_ms / 1000)
        with self._lock:
            self._running.add(claim.id)
        self._announce()
        try:
            self._supervisor(claim, device).run()
        except UNREACHABLE as error:
            log.warning("job_left_to_its_lease", job=claim.id, error=str(error))
        finally:
            with self._lock:
                self._running.discard(claim.id)
            self._announce()

    def _supervisor(self, claim: Claim, device: Device) -> Supervisor:
        order = self._order(claim, device)
        env = {
            **device.env,
            "OMP_NUM_THREADS": str(self._threads),
            # an epoch of a small net with two threads on two busy cores: 8 s; with OpenMP's spinning 73 s
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
        }
        return Supervisor(claim, order, self._store, self._settings, drain=self._drain, child_env=env)

    def _order(self, claim: Claim, device: Device) -> JobOrder:
        record = self._records.raw(claim.id)
        earlier = self._records.attempts(claim.id, claim.attempt - 1)
        return JobOrder(
            id=claim.id,
            tenant=record["tenant"],
            token=claim.token,
            attempt=claim.attempt,
            spec=JobSpec.model_validate_json(record["spec"]),
            device=device.torch_name,
            threads=self._threads,
            checkpoint=self._records.checkpoint(claim.id),
            rounds=self._records.rounds(claim.id),
            steps_before=[step for attempt in earlier for step in attempt.steps],
        )

    def _announce_for_ever(self) -> None:
        while not self._stopped.wait(ANNOUNCE_EVERY_S):
            try:
                self._announce()
            except Exception:
                log.exception("announce_failed")

    def _announce(self) -> None:
        with self._lock:
            jobs = sorted(self._running)
        metrics.BUSY.set(len(jobs))
        device = self._devices[0]
        worker = Worker(
            id=self.id,
            hostname=socket.gethostname(),
            version=version("secateur"),
            device=device.kind,
            device_name=device.name,
            memory_bytes=most_memory(self._devices),
            serves=list(self.classes),
            slots=self.slot_count,
            busy=len(jobs),
            jobs=jobs,
            draining=self._drain.is_set(),
            model_plugins=self._model_plugins,
            task_plugins=self._task_plugins,
            started_at=self._started_at,
            seen_at=datetime.now(UTC),
        )
        try:
            self._registry.announce(worker)
        except UNREACHABLE as error:
            log.warning("announce_failed", error=str(error))
