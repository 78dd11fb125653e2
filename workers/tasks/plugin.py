"""A loss and a metric of an operator's own, from a plug-in of the worker's image."""

import inspect

from schemas.task import Task
from workers.errors import DataError, JobError
from workers.plugins import TASKS, failed, imported, installed, installed_in_words, package_of
from workers.tasks.kind import Kind


def plugin_kind(name: str, task: Task) -> Kind:
    """What the plug-in `name` makes of `task`.

    DataError where it is not installed or is for another task; ModelError where its package fails.
    """
    if name not in installed(TASKS):
        raise DataError(
            f"data.plugin: there is no '{name}', {installed_in_words(TASKS)}: correct the name, or leave it "
            f"out for the metric of task '{task.value}'"
        )
    kind = _made(name, task)
    found = getattr(kind, "task", None)
    if found is not task:
        raise DataError(
            f"data.plugin '{name}' of {package_of(TASKS, name)} is for task '{found}', and data.task is "
            f"'{task.value}': set data.task to '{found}', or leave out data.plugin"
        )
    return kind


def _made(name: str, task: Task) -> Kind:
    """A class is called without arguments, or with the task where it takes one, as the built-in ones do."""
    value = imported(TASKS, name)
    if isinstance(value, Kind):
        return value
    where = f"the plug-in '{name}' of {package_of(TASKS, name)}"
    if not (isinstance(value, type) and issubclass(value, Kind)):
        raise failed(
            f"{where} is no subclass or instance of workers.tasks.kind.Kind",
            TypeError(f"it is {type(value).__name__}"),
        )
    try:
        takes_task = "task" in inspect.signature(value).parameters
        return value(task) if takes_task else value()  # type: ignore[call-arg]
    except JobError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(f"{where} cannot be made", error) from error
