"""The kinds of tasks that this worker knows, by name."""

from schemas.task import Task
from workers.tasks.answers import QuestionAnswering
from workers.tasks.classification import Classification
from workers.tasks.kind import Kind
from workers.tasks.language import LanguageModel
from workers.tasks.regression import Regression
from workers.tasks.segmentation import Segmentation
from workers.tasks.tokens import TokenClassification

_BUILT_IN: dict[Task, Kind] = {
    Task.image_classification: Classification(Task.image_classification),
    Task.text_classification: Classification(Task.text_classification),
    Task.audio_classification: Classification(Task.audio_classification),
    Task.token_classification: TokenClassification(),
    Task.question_answering: QuestionAnswering(),
    Task.regression: Regression(),
    Task.segmentation: Segmentation(),
    Task.causal_lm: LanguageModel(Task.causal_lm),
    Task.masked_lm: LanguageModel(Task.masked_lm),
    Task.seq2seq_lm: LanguageModel(Task.seq2seq_lm),
}


def kind_of(task: Task) -> Kind:
    """What `task` means."""
    return _BUILT_IN[task]
