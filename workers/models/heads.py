"""What transformers builds for each task, and how its output becomes one tensor of scores."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from schemas.task import Task
from workers.errors import ModelError
from workers.models.image_heads import (
    Size,
    object_classes,
    object_kind,
    object_scores,
    pixel_classes,
    pixel_kind,
    pixel_scores,
)
from workers.models.loaded import Batch
from workers.tasks.kind import Kind


@dataclass(frozen=True)
class Head:
    """The models of one task."""

    classes: Mapping[Any, Any]
    """Model class, or classes, by config class."""
    call: Callable[[nn.Module, Batch], Tensor]
    """Scores of one batch, samples first."""
    outputs: Callable[[Any], int]
    """From the parsed config to the number of classes, or of tokens; raises ModelError."""
    kind: Callable[[Any, Size | None], Kind | None] = lambda parsed, size: None
    """What the task means for this model, where its config has a say; None: what it always means."""


def _logits(module: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = module(**batch).logits
    return logits


def _token_scores(module: nn.Module, batch: Batch) -> Tensor:
    scores: Tensor = module(**batch, use_cache=False).logits
    return scores


def _spans(module: nn.Module, batch: Batch) -> Tensor:
    """Scores [N, 2, T] of each token as the first and as the last of the answer."""
    output = module(**batch)
    return torch.stack((output.start_logits, output.end_logits), dim=1)


def _labels(parsed: Any) -> int:
    if parsed.num_labels < 2 or parsed.problem_type in ("regression", "multi_label_classification"):
        raise ModelError(
            f"config.json: the head has {parsed.num_labels} outputs and 'problem_type' is "
            f"{parsed.problem_type!r}; only single-label classification with two classes or more is supported"
        )
    return int(parsed.num_labels)


def _vocabulary(parsed: Any) -> int:
    return int(parsed.vocab_size)


def _ends(parsed: Any) -> int:
    return 2


def _one_number(parsed: Any) -> int:
    if parsed.num_labels != 1:
        raise ModelError(
            f"config.json: the head has {parsed.num_labels} outputs, and data.task 'regression' means one: "
            "give a model with num_labels 1, or set data.task to what the model does"
        )
    return 1


class _Either(Mapping[Any, Any]):
    """Model classes of two mappings, each of which knows some config classes."""

    def __init__(self, *mappings: Mapping[Any, Any]) -> None:
        self._mappings = mappings

    def __getitem__(self, config: Any) -> tuple[Any, ...]:
        found = [mapping[config] for mapping in self._mappings if config in mapping]
        if not found:
            raise KeyError(config)
        return tuple(cls for one in found for cls in (one if isinstance(one, tuple) else (one,)))

    def __contains__(self, config: object) -> bool:
        return any(config in mapping for mapping in self._mappings)

    def __iter__(self) -> Iterator[Any]:
        return iter({config for mapping in self._mappings for config in mapping})

    def __len__(self) -> int:
        return len(list(iter(self)))


HEADS: dict[Task, Head] = {
    Task.image_classification: Head(
        transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, call=_logits, outputs=_labels
    ),
    Task.text_classification: Head(
        transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, call=_logits, outputs=_labels
    ),
    Task.token_classification: Head(
        transformers.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, call=_logits, outputs=_labels
    ),
    Task.question_answering: Head(
        transformers.MODEL_FOR_QUESTION_ANSWERING_MAPPING, call=_spans, outputs=_ends
    ),
    Task.regression: Head(
        _Either(
            transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
            transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        ),
        call=_logits,
        outputs=_one_number,
    ),
    Task.audio_classification: Head(
        transformers.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, call=_logits, outputs=_labels
    ),
    Task.segmentation: Head(
        transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
        call=pixel_scores,
        outputs=pixel_classes,
        kind=pixel_kind,
    ),
    Task.detection: Head(
        transformers.MODEL_FOR_OBJECT_DETECTION_MAPPING,
        call=object_scores,
        outputs=object_classes,
        kind=object_kind,
    ),
    Task.causal_lm: Head(transformers.MODEL_FOR_CAUSAL_LM_MAPPING, call=_token_scores, outputs=_vocabulary),
    Task.masked_lm: Head(transformers.MODEL_FOR_MASKED_LM_MAPPING, call=_logits, outputs=_vocabulary),
    Task.seq2seq_lm: Head(
        transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, call=_token_scores, outputs=_vocabulary
    ),
}
