"""The kinds of tasks that this worker knows, by name."""

from schemas.task import Task
from workers.tasks.classification import Classification
from workers.tasks.kind import Kind
from workers.tasks.language import LanguageModel

_BUILT_IN: dict[Task, Kind] = {
    Task.image_classification: Classification(Task.image_classification),
    Task.text_classification: Classification(Task.text_classification),
    Task.causal_lm: LanguageModel(Task.causal_lm),
}


def kind_of(task: Task) -> Kind:
    """What `task` means."""
    return _BUILT_IN[task]
