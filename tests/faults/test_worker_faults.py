"""Each way in which a worker or its servers can die, really provoked: no job is lost, no round repeated."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.job import FailureClass, Status
from service.dev.valkey import start_valkey
from service.settings import Settings, for_celery, with_database
from service.store.connect import connect
from tests.cluster import Cluster, alive, child_of, kill
from tests.servers import valkey_binary

PACED = {"SECATEUR_CHILD_MODULE": "tests.faults.paced"}
LEASE_S = 5


@pytest.fixture
def cluster(settings: Settings, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(settings, tmp_path, **PACED) as cluster:
        cluster.start_steward()
        yield cluster


class OwnRedis:
    """A cluster on a server that the test may stop and start."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._folder = folder / "redis"
        self._folder.mkdir()
        self.start()
        broker = for_celery(with_database(self.server.url, 1))
        own = settings.model_copy(update={"redis_url": self.server.url, "broker_url": broker})
        self.cluster = Cluster(own, folder, **PACED)

    def start(self) -> None:
        """It finds what it had written before."""
        self.server = start_valkey(self._folder, valkey_binary())

    def kill(self) -> None:
        """SIGKILL."""
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()
        self.server.stop()  # gives up the folder


@pytest.fixture
def own_redis(s3_settings: Settings, tmp_path: Path) -> Iterator[OwnRedis]:
    own = OwnRedis(s3_settings, tmp_path)
    with own.cluster as cluster:
        cluster.start_steward()
        yield own
    own.server.stop()


def rounds_are_whole(cluster: Cluster, id: str) -> bool:
    """Rounds 1 to 5, each committed once."""
    committed = [
        event.data["number"] for event in cluster.desk.records.events(id, limit=1000) if event.type == "round"
    ]
    return committed == [1, 2, 3, 4, 5]


def in_round(cluster: Cluster, id: str, number: int) -> None:
    cluster.wait_for(lambda: cluster.desk.job(id).progress.round == number, f"round {number}")


def test_a_job_runs_from_ring_to_success(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit()

    job = cluster.ended(id)

    assert (job.status, job.attempt, job.rounds_done) == (Status.succeeded, 1, 5)
    assert rounds_are_whole(cluster, id)
    assert "round 5 of attempt 1" in cluster.desk.records.log_lines(id)


def test_sigkill_of_a_worker_costs_at_most_the_round_in_progress(cluster: Cluster):
    first = cluster.start_worker()
    id = cluster.desk.submit(metadata={"pace": "0.5"})
    in_round(cluster, id, 3)
    child = child_of(first)

    kill(first)
    cluster.start_worker()
    killed = time.monotonic()

    cluster.wait_for(lambda: cluster.desk.job(id).attempt == 2, "attempt 2")
    assert time.monotonic() - killed < LEASE_S + 5
    assert not alive(child)
    job = cluster.ended(id)
    assert (job.status, job.attempt, job.recoveries) == (Status.succeeded, 2, 1)
    assert rounds_are_whole(cluster, id)
    assert cluster.desk.records.attempts(id, 2)[1].first_round == 3


def test_sigkill_of_the_child_restarts_the_round_at_once(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"die_in_round": "3"})

    job = cluster.ended(id, timeout_s=30)

    assert (job.status, job.attempt, job.recoveries) == (Status.succeeded, 2, 1)
    assert rounds_are_whole(cluster, id)
    assert "SIGKILL" in (cluster.desk.records.attempts(id, 1)[0].reason or "")


def test_sigterm_gives_the_job_back_within_five_seconds_and_exits_0(cluster: Cluster):
    first = cluster.start_worker()
    id = cluster.desk.submit(metadata={"pace": "1"})
    in_round(cluster, id, 2)

    first.send_signal(signal.SIGTERM)
    released = cluster.wait_for(
        lambda: cluster.desk.job(id).status is Status.queued, "the lease is released", 5
    )

    assert first.wait(timeout=5) == 0
    assert released < 5
    cluster.start_worker()
    job = cluster.ended(id)
    assert (job.status, job.attempt, job.recoveries) == (Status.succeeded, 2, 0)
    assert rounds_are_whole(cluster, id)


def test_a_child_deaf_to_sigterm_is_killed_and_the_job_given_back(cluster: Cluster):
    first = cluster.start_worker()
    id = cluster.desk.submit(metadata={"pace": "1", "deaf": "yes"})
    in_round(cluster, id, 2)

    first.send_signal(signal.SIGTERM)

    cluster.wait_for(lambda: cluster.desk.job(id).status is Status.queued, "the lease is released", 5)
    assert first.wait(timeout=5) == 0


def test_cancel_ends_a_running_job_and_frees_the_worker(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"pace": "5"})
    in_round(cluster, id, 1)

    cluster.desk.store.cancel(id)

    assert cluster.ended(id, timeout_s=5).status is Status.cancelled
    assert cluster.ended(cluster.desk.submit()).status is Status.succeeded


def test_cancel_is_heard_within_two_seconds_although_the_heartbeat_is_slower(
    settings: Settings, tmp_path: Path
):
    with Cluster(settings, tmp_path, **PACED, SECATEUR_HEARTBEAT_SECONDS="60") as cluster:
        cluster.start_steward()
        cluster.start_worker()
        id = cluster.desk.submit(metadata={"pace": "30"})
        in_round(cluster, id, 1)

        cluster.desk.store.cancel(id)

        assert cluster.ended(id, timeout_s=2).status is Status.cancelled


def test_a_stopped_worker_that_wakes_up_late_changes_nothing(cluster: Cluster):
    zombie = cluster.start_worker()
    id = cluster.desk.submit(metadata={"pace": "1"})
    in_round(cluster, id, 2)
    child = child_of(zombie)

    zombie.send_signal(signal.SIGSTOP)
    cluster.start_worker()
    cluster.wait_for(lambda: cluster.desk.job(id).attempt == 2, "attempt 2")
    zombie.send_signal(signal.SIGCONT)

    job = cluster.ended(id)
    assert (job.status, job.attempt) == (Status.succeeded, 2)
    assert rounds_are_whole(cluster, id)
    cluster.wait_for(lambda: not alive(child), "the zombie's child ends", 10)


def test_a_child_that_hangs_is_killed_and_its_job_runs_again(settings: Settings, tmp_path: Path):
    with Cluster(settings, tmp_path, **PACED, SECATEUR_STALL_SECONDS="2") as cluster:
        cluster.start_steward()
        cluster.start_worker()
        id = cluster.desk.submit(metadata={"hang_in_round": "2"})

        job = cluster.ended(id, timeout_s=40)

        assert (job.status, job.attempt) == (Status.succeeded, 2)
        assert "no progress" in (cluster.desk.records.attempts(id, 1)[0].reason or "")


def test_a_child_that_sends_garbage_is_ended_at_once_and_its_job_runs_again(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"garble_in_round": "2"})

    job = cluster.ended(id, timeout_s=30)

    assert (job.status, job.attempt) == (Status.succeeded, 2)
    assert "message" in (cluster.desk.records.attempts(id, 1)[0].reason or "")


def test_output_that_is_no_text_does_not_hold_up_a_job(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"noise": "yes"})

    job = cluster.ended(id, timeout_s=30)

    assert (job.status, job.attempt) == (Status.succeeded, 1)
    assert any("not UTF-8" in line for line in cluster.desk.records.log_lines(id))


def test_the_scratch_of_a_killed_child_is_removed(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"litter": "yes", "die_in_round": "3"})

    cluster.ended(id, timeout_s=30)

    lines = cluster.desk.records.log_lines(id)
    folders = {line.removeprefix("scratch ") for line in lines if line.startswith("scratch ")}
    assert len(folders) == 2
    assert not any(Path(folder).exists() for folder in folders)


def test_a_worker_shuts_down_although_redis_is_away(own_redis: OwnRedis):
    worker = own_redis.cluster.start_worker()
    id = own_redis.cluster.desk.submit(metadata={"pace": "5"})
    in_round(own_redis.cluster, id, 1)

    own_redis.kill()
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(timeout=30) == 0


def test_a_job_that_kills_each_worker_stops_as_poison(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"exit_in_round": "2"}, retry={"max_recoveries": 2})

    job = cluster.ended(id)

    assert (job.status, job.failure_class, job.attempt) == (Status.failed, FailureClass.worker_lost, 3)
    assert job.rounds_done == 1


def test_wall_time_ends_a_job_that_takes_too_long(cluster: Cluster):
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"pace": "10"}, budget={"wall_time_s": 2})

    job = cluster.ended(id, timeout_s=20)

    assert (job.status, job.failure_class) == (Status.failed, FailureClass.timeout)


def test_flushing_the_broker_loses_no_job(cluster: Cluster, redis_url: str):
    ids = [cluster.desk.submit() for _ in range(3)]
    connect(with_database(redis_url, 1)).flushdb()

    cluster.start_worker()

    assert [cluster.ended(id).status for id in ids] == [Status.succeeded] * 3


def test_two_stewards_reap_and_ring_as_one(cluster: Cluster):
    second = cluster.start_steward()
    cluster.start_worker()
    kill(cluster.stewards[0])

    job = cluster.ended(cluster.desk.submit(), timeout_s=40)

    assert (job.status, job.attempt) == (Status.succeeded, 1)
    assert second.poll() is None


def test_an_outage_of_redis_reaps_nobody(own_redis: OwnRedis):
    cluster = own_redis.cluster
    cluster.start_worker()
    id = cluster.desk.submit(metadata={"pace": "2"})
    in_round(cluster, id, 2)

    own_redis.kill()
    time.sleep(LEASE_S + 2)
    own_redis.start()

    job = cluster.ended(id, timeout_s=60)
    assert (job.status, job.attempt) == (Status.succeeded, 1)
    assert rounds_are_whole(cluster, id)
