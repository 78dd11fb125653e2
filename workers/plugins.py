"""What operators have installed beside us: entry points of Python packages in the worker's image.

Only an entry point's name is compared with what a user wrote; which module it means, its package says.
"""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any

from workers.errors import ModelError

MODELS = "secateur.models"
"""Group of functions `build(config: dict) -> nn.Module`; `library_name` of config.json names one."""
TASKS = "secateur.tasks"
"""Group of subclasses or instances of `workers.tasks.kind.Kind`; `data.plugin` of a spec names one."""


def installed(group: str) -> list[str]:
    """The names in `group`, sorted; nothing is imported."""
    return sorted({entry.name for entry in entry_points(group=group)})


def installed_in_words(group: str) -> str:
    """`this worker has the plug-ins 'a', 'b'`, for a message."""
    names = ", ".join(repr(name) for name in installed(group))
    return f"this worker has the plug-ins {names}" if names else f"this worker has no plug-in of {group}"


def package_of(group: str, name: str) -> str:
    """`distribution version`, for a message."""
    return _package(next(iter(entry_points(group=group, name=name))))


def imported(group: str, name: str) -> Any:
    """What the entry point `name` stands for. It must be installed.

    ModelError where two packages have the name, or the package cannot be imported.
    """
    entries = list(entry_points(group=group, name=name))
    packages = sorted({_package(entry) for entry in entries})
    if len(packages) > 1:
        raise ModelError(
            f"the plug-in '{name}' is in {' and in '.join(packages)}: ask the operator of the workers to "
            "uninstall all but one"
        )
    try:
        return entries[0].load()
    except (Exception, SystemExit) as error:
        raise failed(f"the plug-in '{name}' of {packages[0]} cannot be imported", error) from error


def failed(what: str, error: BaseException) -> ModelError:
    """`what` went wrong in code that an operator installed, with the reason and whom to ask."""
    cause = f"{type(error).__name__}: {str(error)[:300]}" if str(error) else type(error).__name__
    return ModelError(f"{what} ({cause}): ask the operator of the workers to correct it")


def from_plugin(error: BaseException) -> ModelError | None:
    """The error as a sentence where code of a plug-in raised it, or called what raised it; else None."""
    packages = {
        entry.module.partition(".")[0]: _package(entry)
        for group in (MODELS, TASKS)
        for entry in entry_points(group=group)
    }
    for module in _modules_in(error.__traceback__):
        if (package := packages.get(module.partition(".")[0])) is not None:
            return failed(f"the plug-in package {package} failed", error)
    return None


def _modules_in(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
