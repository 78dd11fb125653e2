"""The worker's instruments. Labels come from closed sets; totals of jobs are counted by the steward."""

from prometheus_client import Counter, Gauge, Histogram

LONG = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400)

SLOTS = Gauge("secateur_worker_slots", "Jobs that this worker can run at once.")
BUSY = Gauge("secateur_worker_busy_slots", "Jobs that run on this worker now.")
QUEUE_WAIT = Histogram("secateur_job_wait_seconds", "Seconds a job waited before its claim.", buckets=LONG)
STEP_SECONDS = Histogram("secateur_step_seconds", "Seconds of one step.", ["step", "state"], buckets=LONG)
ROUND_SECONDS = Histogram("secateur_round_seconds", "Seconds of one whole round.", buckets=LONG)
JOBS_ENDED = Counter(
    "secateur_worker_attempts_total", "Attempts that ended here, by the job's status.", ["status"]
)
LEASES_LOST = Counter("secateur_worker_leases_lost_total", "Attempts that lost their lease.")


def step_kind(name: str) -> str:
    """`finetune#3` is a `finetune`: a label must not grow with the rounds."""
    return name.partition("#")[0]
