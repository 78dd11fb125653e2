"""Bar `soak`: 200 jobs of two seconds through four CPU workers, while workers are killed with SIGKILL.

The jobs are `tests.faults.paced`: five committed rounds in two seconds, without torch, so that the queue and
not the arithmetic is under test. Every few seconds a random worker dies with all it runs, and a new one
starts. The value is the number of jobs that succeeded with each of their rounds committed exactly once.
"""

import argparse
import random
import time

from schemas.job import Status
from tests.benchmarks.bar import finish
from tests.benchmarks.stage import stage
from tests.cluster import Cluster, kill

WORKERS = 4
PACE_S = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with stage() as (settings, folder):
        # the leases of four workers and their children on two cores: 10 s leave room for a busy machine
        env = {"SECATEUR_CHILD_MODULE": "tests.faults.paced", "SECATEUR_LEASE_SECONDS": "10"}
        with Cluster(settings, folder, **env) as cluster:
            whole, kills, seconds = soak(cluster, asked.jobs, random.Random(asked.seed))
            recoveries = cluster.desk.queues.totals().get("recoveries", 0)
    print(f"{asked.jobs} jobs, {kills} workers killed, {recoveries} recoveries, {seconds:.0f} s")
    finish("soak", whole, asked.jobs, at_least=True)


def soak(cluster: Cluster, jobs: int, chance: random.Random) -> tuple[int, int, float]:
    """Submit, kill, wait; returns whole jobs, kills and seconds."""
    cluster.start_steward()
    living = [cluster.start_worker() for _ in range(WORKERS)]
    many = {"metadata": {"pace": str(PACE_S)}, "retry": {"max_recoveries": 50}}
    ids = [cluster.desk.submit(**many) for _ in range(jobs)]
    began, kills = time.monotonic(), 0
    deadline = began + 20 * 60
    while cluster.desk.queues.counts().get("succeeded", 0) < jobs and time.monotonic() < deadline:
        time.sleep(chance.uniform(2, 6))
        victim = chance.randrange(WORKERS)
        kill(living[victim])
        kills += 1
        living[victim] = cluster.start_worker()
        done = cluster.desk.queues.counts().get("succeeded", 0)
        print(f"{time.monotonic() - began:5.0f} s  {done:4d} of {jobs} done, {kills} kills", flush=True)
    return sum(is_whole(cluster, id) for id in ids), kills, time.monotonic() - began


def is_whole(cluster: Cluster, id: str) -> bool:
    """The job succeeded once, with rounds 1 to 5 committed once each, in order."""
    events = cluster.desk.records.events(id, limit=10_000)
    rounds = [event.data["number"] for event in events if event.type == "round"]
    ends = [event for event in events if event.data.get("status") == "succeeded"]
    return cluster.desk.job(id).status is Status.succeeded and rounds == [1, 2, 3, 4, 5] and len(ends) == 1


if __name__ == "__main__":
    main()
