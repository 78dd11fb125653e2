"""What transformers builds for each task, and how its output becomes one tensor of scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from torch import Tensor, nn

from schemas.task import Task
from workers.errors import ModelError
from workers.models.loaded import Batch


@dataclass(frozen=True)
class Head:
    """The models of one task."""

    classes: Mapping[Any, Any]
    """Model class, or classes, by config class."""
    call: Callable[[nn.Module, Batch], Tensor]
    """Scores of one batch, samples first."""
    outputs: Callable[[Any], int]
    """From the parsed config to the number of classes, or of tokens; raises ModelError."""


def _logits(module: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = module(**batch).logits
    return logits


def _token_scores(module: nn.Module, batch: Batch) -> Tensor:
    scores: Tensor = module(**batch, use_cache=False).logits
    return scores


def _labels(parsed: Any) -> int:
    if parsed.num_labels < 2 or parsed.problem_type in ("regression", "multi_label_classification"):
        raise ModelError(
            f"config.json: the head has {parsed.num_labels} outputs and 'problem_type' is "
            f"{parsed.problem_type!r}; only single-label classification with two classes or more is supported"
        )
    return int(parsed.num_labels)


def _vocabulary(parsed: Any) -> int:
    return int(parsed.vocab_size)


HEADS: dict[Task, Head] = {
    Task.image_classification: Head(
        transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, call=_logits, outputs=_labels
    ),
    Task.text_classification: Head(
        transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, call=_logits, outputs=_labels
    ),
    Task.causal_lm: Head(transformers.MODEL_FOR_CAUSAL_LM_MAPPING, call=_token_scores, outputs=_vocabulary),
}
