"""Jobs, workers, queues and artifacts as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from schemas.artifact import Artifact
from schemas.fleet import Queue, Worker
from schemas.job import Estimate, Job, Status
from schemas.job_spec import JobSpec
from service.cli.figures import duration, local, metric, share, size, whole
from service.store.api_keys import KeyInfo

COLOURS = {
    Status.queued: "cyan",
    Status.running: "blue",
    Status.recovering: "yellow",
    Status.pausing: "yellow",
    Status.paused: "yellow",
    Status.cancelling: "yellow",
    Status.succeeded: "green",
    Status.failed: "red",
    Status.cancelled: "magenta",
    Status.expired: "magenta",
}

_FOLDED = ("tags", "why", "serves", "your jobs", "device", "name", "may name", "sha256", "plug-ins")


def status_text(status: Status) -> Text:
    """The status in its colour."""
    return Text(status.value, style=COLOURS[status])


def jobs_table(jobs: Iterable[Job]) -> RenderableType:
    """One line a job."""
    table = _table("id", "status", "done", "goal", "metric", "created", "tags")
    for job in jobs:
        progress = f"{job.progress.percent:.0f} %"
        goal = _goal(job.spec)
        row = (progress, goal, metric(job.progress.metric), local(job.created_at))
        table.add_row(job.id, status_text(job.status), *row, escape(", ".join(job.tags)))
    return table if table.row_count else Text("No jobs.")


def _goal(spec: JobSpec) -> str:
    """`sparsity 80.0%`, or what stands for a goal."""
    if spec.goal is not None:
        return f"{spec.goal.name} {share(spec.goal.value)}"
    return "auto" if spec.recipe else "search"


def job_panel(job: Job) -> RenderableType:
    """Everything about one job that fits a screen."""
    spec = job.spec
    floor = spec.floor.max_drop
    rows: list[tuple[str, str | Text]] = [
        ("status", status_text(job.status)),
        ("reason", job.status_reason or "-"),
        ("failure class", job.failure_class.value if job.failure_class else ""),
        ("model", spec.model.uri),
        ("data", f"{spec.data.uri or 'synthetic'} ({spec.data.task.value})"),
        ("goal", spec.goal_in_words()),
        ("floor", f"at most {floor:.4f} lost" if floor is not None else f"at least {spec.floor.min_value}"),
        ("schedule", f"{spec.schedule.kind}, {job.rounds_done} of {spec.rounds_in_all()} rounds committed"),
        ("progress", _progress(job)),
        ("device", f"{job.device.value}, priority {job.priority}"),
        ("attempt", f"{job.attempt} ({job.recoveries} after lost workers)" if job.attempt else "none yet"),
        ("worker", job.worker or ""),
        ("created", local(job.created_at)),
        ("started", local(job.started_at)),
        ("finished", local(job.finished_at)),
        ("tags", ", ".join(job.tags)),
        ("metadata", ", ".join(f"{key}={value}" for key, value in job.metadata.items())),
    ]
    body = pairs(rows)
    parts: list[RenderableType] = [Text(job.id, style="bold"), body]
    if job.summary:
        parts += [Text("result", style="bold"), summary_table(job)]
    return Group(*parts)


def summary_table(job: Job) -> RenderableType:
    """The headline figures of a finished job, whatever they are."""
    return pairs([(key.replace("_", " "), _figure(key, value)) for key, value in (job.summary or {}).items()])


def estimate_panel(estimate: Estimate) -> RenderableType:
    """What a valid spec would cost."""
    memory = estimate.memory_bytes
    rows = [
        ("rounds", str(estimate.rounds)),
        ("fine-tuning epochs", str(estimate.epochs)),
        ("model", size(estimate.model_bytes)),
        ("data", size(estimate.data_bytes)),
        ("memory", "-" if memory is None else f"at least {size(memory)}, activations not counted"),
    ]
    warnings = [Text(f"warning: {one}", style="yellow") for one in estimate.warnings]
    return Group(Text("The spec is valid.", style="green"), pairs(rows), *warnings)


def workers_table(workers: Iterable[Worker]) -> RenderableType:
    """One line a worker."""
    table = _table("id", "device", "memory", "serves", "busy", "state", "your jobs", "plug-ins", "seen")
    for one in workers:
        state = "draining" if one.draining else "busy" if one.busy >= one.slots else "free"
        serves = ", ".join(device.value for device in one.serves)
        device = f"{one.device.value}: {escape(one.device_name)}"
        lists = [", ".join(one.jobs), escape(", ".join([*one.model_plugins, *one.task_plugins]))]
        table.add_row(
            one.id,
            device,
            size(one.memory_bytes),
            serves,
            f"{one.busy}/{one.slots}",
            state,
            *lists,
            local(one.seen_at),
        )
    return table if table.row_count else Text("No workers. Start one with `secateur worker`.")


def queues_table(queues: Iterable[Queue]) -> RenderableType:
    """One line a device class."""
    table = _table("queue", "waiting", "running", "workers", "free slots", "oldest waits", "why")
    for one in queues:
        counts = (str(one.waiting), str(one.running), str(one.workers), str(one.free_slots))
        table.add_row(one.name.value, *counts, duration(one.oldest_wait_s), escape(one.reason))
    return table


def artifacts_table(artifacts: Iterable[Artifact]) -> RenderableType:
    """One line a file."""
    table = _table("name", "size", "type", "sha256")
    for one in artifacts:
        table.add_row(escape(one.name), size(one.bytes), one.media_type, one.sha256)
    return table if table.row_count else Text("No artifacts yet: the job writes them when it ends.")


def keys_table(keys: Iterable[KeyInfo]) -> RenderableType:
    """One line an API key; the secret is stored nowhere."""
    table = _table("id", "tenant", "name", "may name")
    for one in keys:
        table.add_row(one.id, escape(one.tenant), escape(one.name), escape(", ".join(one.prefixes)))
    return table if table.row_count else Text("No keys. Make one with `secateur keys create`.")


def pairs(rows: Sequence[tuple[str, str | Text]]) -> Table:
    """Names and values; what is empty is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value:
            grid.add_row(name, Text(value) if isinstance(value, str) else value)
    return grid


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=name not in _FOLDED, overflow="fold")
    return table


def _progress(job: Job) -> str:
    progress = job.progress
    parts = [f"{progress.percent:.0f} %"]
    if progress.step:
        parts.append(f"{progress.step} {progress.step_percent:.0f} %")
    if progress.metric is not None:
        parts.append(f"metric {metric(progress.metric)}")
    if progress.eta_s is not None and not job.status.is_terminal:
        parts.append(f"{duration(progress.eta_s)} to go")
    return ", ".join(parts)


def _figure(key: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{name}: {str(one).replace('_', ' ')}" for name, one in value.items())
    if isinstance(value, float):
        return share(value) if key == "sparsity" else duration(value) if "seconds" in key else metric(value)
    if isinstance(value, int):
        return size(value) if "bytes" in key else whole(value)
    return str(value)
