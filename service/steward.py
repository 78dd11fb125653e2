"""The one control loop: rings free slots, takes back lost jobs, acts on deadlines, archives, cleans up."""

import secrets
import signal
import threading
import time

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from prometheus_client import Counter, Gauge
from redis import Redis

from schemas.fleet import Worker
from schemas.wire import RING_TASK, DeviceClass
from service.archive import Archivist
from service.exposition import serve_metrics
from service.logs import configure_logs
from service.settings import Settings
from service.store.blobs import Blobs
from service.store.connect import UNREACHABLE, connect
from service.store.jobs import JobStore
from service.store.queues import Queues
from service.store.scripts import PREFIX
from service.store.workers import Workers

log = structlog.get_logger(__name__)
LEADER_TTL_MS = 10_000

LEADER = Gauge("secateur_steward_leader", "1 on the steward that leads.")
TICKS = Counter("secateur_steward_ticks_total", "Rounds of the control loop.")
RINGS = Counter("secateur_steward_rings_total", "Rings sent.", ["queue"])
REAPED = Counter("secateur_steward_reaped_total", "Jobs taken back from lost workers.")
EXPIRED = Counter("secateur_steward_deadlines_total", "Deadlines acted on.")


class Leadership:
    """A lock in Redis with a time to live, so that of several stewards one acts."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._key = f"{prefix}steward"
        self._me = secrets.token_hex(8)

    def held(self) -> bool:
        """Take or renew the lock. Two stewards for a moment do no harm: each script is atomic."""
        if self._redis.set(self._key, self._me, nx=True, px=LEADER_TTL_MS):
            return True
        if self._redis.get(self._key) != self._me:
            return False
        return bool(self._redis.pexpire(self._key, LEADER_TTL_MS))

    def give_up(self) -> None:
        """Let another lead at once."""
        if self._redis.get(self._key) == self._me:
            self._redis.delete(self._key)


class Grace:
    """Holds reaping after Redis was away: the owners could not renew their leases meanwhile."""

    def __init__(self, lease_seconds: float) -> None:
        self._length = lease_seconds
        self._until = 0.0
        self._away = False

    def redis_away(self) -> None:
        """A tick could not reach Redis."""
        self._away = True

    def redis_back(self, uptime_seconds: float) -> None:
        """A tick reached it; `uptime_seconds` betrays a restart that no tick noticed."""
        since = 0.0 if self._away else uptime_seconds
        self._until = max(self._until, time.monotonic() + self._length - since)
        self._away = False

    def over(self) -> bool:
        """Expired leases may be reaped."""
        return time.monotonic() >= self._until


class Ringer:
    """Sends one message for each waiting job that a free slot could take, and no more."""

    def __init__(self, celery: Celery, queues: Queues) -> None:
        self._celery = celery
        self._queues = queues

    def ring(self, workers: list[Worker]) -> int:
        """Ring where needed; returns the number of messages."""
        sent = 0
        for device in DeviceClass:
            free = sum(free_slots(worker) for worker in workers if device in worker.serves)
            wanted = min(self._queues.size(device).waiting, free)
            missing = wanted - self._pending(device.queue) if wanted else 0
            for _ in range(missing):
                self._celery.send_task(RING_TASK, queue=device.queue, ignore_result=True)
                RINGS.labels(device.value).inc()
                sent += 1
        return sent

    def _pending(self, queue: str) -> int:
        """Rings that nobody has answered yet."""
        with self._celery.connection_or_acquire() as connection:
            return int(connection.default_channel.client.llen(queue))


def free_slots(worker: Worker) -> int:
    """Slots that would answer a ring."""
    return 0 if worker.draining else max(0, worker.slots - worker.busy)


class Steward:
    """`tick` does everything once."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings.redis_url)
        self._store = JobStore(self._redis)
        self._workers = Workers(self._redis)
        celery = Celery("secateur", broker=settings.broker_url)
        celery.conf.broker_transport_options = {"socket_timeout": 5, "socket_connect_timeout": 3}
        queues = Queues(self._redis)
        self._ringer = Ringer(celery, queues)
        self._archivist = Archivist(self._redis, queues, Blobs.connect(settings, attempts=2))
        self._leadership = Leadership(self._redis)
        self._grace = Grace(settings.lease_seconds)

    def tick(self) -> None:
        """One round of the loop; outages are logged and end the round."""
        try:
            self._grace.redis_back(self._redis.info("server")["uptime_in_seconds"])
            leads = self._leadership.held()
            LEADER.set(leads)
            if leads:
                self._act()
        except UNREACHABLE as error:
            self._grace.redis_away()
            log.warning("redis_unreachable", error=str(error))
        except Exception:
            log.exception("tick_failed")

    def _act(self) -> None:
        TICKS.inc()
        if self._grace.over():
            for id in self._store.reap():
                REAPED.inc()
                log.warning("job_reaped", job=id)
        for id in self._store.expire():
            EXPIRED.inc()
            log.info("deadline_passed", job=id)
        self._ring()

    def _ring(self) -> None:
        """A broker that is away keeps nobody from renewing a lease, so it is not `redis_away`."""
        workers = self._workers.living()
        try:
            self._ringer.ring(workers)
        except (OperationalError, *UNREACHABLE) as error:
            log.warning("broker_unreachable", error=str(error))

    def archive(self) -> None:
        """The chores in S3, in a thread of their own: a slow S3 must not hold up rings and leases."""
        try:
            self._archivist.work()
        except UNREACHABLE as error:
            log.warning("redis_unreachable", error=str(error))
        except Exception:
            log.exception("archive_failed")

    def stop(self) -> None:
        """Give up the lead."""
        try:
            self._leadership.give_up()
        except UNREACHABLE as error:
            log.warning("could_not_give_up_the_lead", error=str(error))


def run(settings: Settings) -> int:
    """Tick until SIGTERM or SIGINT."""
    configure_logs(settings.log_level, settings.log_format)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    serve_metrics(settings.steward_metrics_port, settings.metrics_host, "SECATEUR_STEWARD_METRICS_PORT")
    steward = Steward(settings)

    def archive_for_ever() -> None:
        while not stopped.wait(settings.steward_tick_seconds):
            steward.archive()

    threading.Thread(target=archive_for_ever, name="archive", daemon=True).start()
    log.info("steward_started")
    while not stopped.wait(settings.steward_tick_seconds):
        steward.tick()
    steward.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(run(Settings()))
