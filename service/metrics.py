"""The API's metrics, and those of the whole service that Redis knows: read when Prometheus asks."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from schemas.job import FailureClass, Status
from schemas.wire import DeviceClass
from service.store.queues import Queues

_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_NO_FAILURE = "none"
_COUNTERS = (
    ("submitted", "secateur_jobs_submitted", "Jobs accepted."),
    ("recoveries", "secateur_recoveries", "Attempts that a lost worker made necessary."),
    ("leases_lost", "secateur_leases_lost", "Leases that ran out."),
)


class HttpMetrics:
    """What this process itself sees. One instance, and one registry, for each app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Histogram(
            "secateur_http_request_seconds",
            "Seconds until the response began, by route template.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.s3_put = Histogram(
            "secateur_s3_put_seconds",
            "Seconds of the one S3 PUT that a submission waits for.",
            buckets=_BUCKETS,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; methods that nobody defined share one label."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).observe(seconds)


class StoreCollector(Collector):
    """Queues and totals from Redis. Every replica exports the same values: take `max` over them."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape. With Redis away only `secateur_redis_up 0` is left."""
        try:
            families = [*self._sizes(), *self._totals()]
            up = 1
        except (RedisError, OSError):
            families, up = [], 0
        yield GaugeMetricFamily("secateur_redis_up", "Whether Redis answered this scrape.", value=up)
        yield from families

    def describe(self) -> list[Metric]:
        """Nothing: otherwise registering would ask Redis."""
        return []

    def _sizes(self) -> Iterator[Metric]:
        demand = GaugeMetricFamily(
            "secateur_queue_demand", "Waiting and running jobs: what an autoscaler reads.", labels=["queue"]
        )
        waiting = GaugeMetricFamily("secateur_queue_waiting", "Waiting jobs.", labels=["queue"])
        oldest = GaugeMetricFamily(
            "secateur_queue_oldest_wait_seconds", "How long the oldest waiting job waits.", labels=["queue"]
        )
        for device in DeviceClass:
            size = self._queues.size(device)
            demand.add_metric([device], size.demand)
            waiting.add_metric([device], size.waiting)
            wait = 0.0 if size.oldest_ms is None else max(0.0, time.time() - size.oldest_ms / 1000)
            oldest.add_metric([device], wait)
        yield from (demand, waiting, oldest)

    def _totals(self) -> Iterator[Metric]:
        counts, totals = self._queues.counts(), self._queues.totals()
        jobs = GaugeMetricFamily("secateur_jobs", "Jobs by status.", labels=["status"])
        for status in Status:
            jobs.add_metric([status], counts.get(status, 0))
        yield jobs
        for total, name, text in _COUNTERS:
            yield CounterMetricFamily(name, text, value=totals.get(total, 0))
        yield _finished(totals)


def _finished(totals: dict[str, int]) -> Metric:
    family = CounterMetricFamily(
        "secateur_jobs_finished", "Jobs that ended.", labels=["status", "failure_class"]
    )
    for status in (one for one in Status if one.is_terminal):
        classes = [one.value for one in FailureClass] if status is Status.failed else [""]
        for failure in classes:
            value = totals.get(f"finished:{status}:{failure}", 0)
            family.add_metric([status, failure or _NO_FAILURE], value)
    return family
