"""What a task is to all who train, judge and export a model: its loss and its metric."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from schemas.task import Task
from workers.loss import cross_entropy, softened_divergence

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel


@dataclass(frozen=True)
class Measured:
    """The metric that floors and curves are about, in [0, 1], the larger the better; and others, by name."""

    value: float
    others: Mapping[str, float] = field(default_factory=dict)


class Measure(Protocol):
    """Scores and labels of a split, batch by batch, to its metric."""

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        """One batch, all on one device."""

    def compute(self) -> Measured:
        """The metric of all batches so far."""


class Kind:
    """One task. Scores and labels are one tensor each, samples first, so that everything else is the same."""

    task: Task
    """The task whose models and data it takes."""

    @property
    def metric_name(self) -> str:
        """The metric, for a reader."""
        return self.task.metric_name

    def loss(self, scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch: cross-entropy of scores [N, classes] or [N, …, classes]."""
        return cross_entropy(scores, labels, label_smoothing=label_smoothing)

    def distillation(self, scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """How far `scores` are from those of the dense model, `wanted`, of the same shape."""
        return softened_divergence(scores, wanted, temperature)

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """An empty measure for scores of `model`, or of its ONNX file, that are on `device`."""
        raise NotImplementedError

    def evaluation_batch(self, most: int, label_shape: tuple[int, ...]) -> int:
        """Samples of one evaluation batch, at most `most`: fewer where the scores of one sample are large."""
        return most
