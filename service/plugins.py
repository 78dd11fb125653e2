"""Metrics that operators have added to their workers: whether a spec's is there."""

from collections.abc import Sequence

from schemas.fleet import Worker
from schemas.job_spec import JobSpec


def plugin_warnings(workers: Sequence[Worker], spec: JobSpec) -> list[str]:
    """A sentence where the spec names a plug-in that not every living worker of its device class has."""
    wanted = spec.data.plugin
    serving = [one for one in workers if spec.placement.device in one.serves]
    lacking = [one.id for one in serving if wanted not in one.task_plugins]
    if wanted is None or not lacking:
        return []
    known = sorted({name for one in serving for name in one.task_plugins})
    has = f"they have {', '.join(repr(name) for name in known)}" if known else "they have none"
    if len(lacking) < len(serving):
        return [f"data.plugin: {len(lacking)} of {len(serving)} workers lack '{wanted}': the job may fail."]
    return [f"data.plugin: no worker that serves '{spec.placement.device}' has '{wanted}': {has}."]
