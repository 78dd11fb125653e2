"""Classifiers of whole samples: accuracy."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from schemas.task import Task
from workers.tasks.kind import Kind, Measure, Measured

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel

ACCURACY = "accuracy"
TOP5 = "top-5 accuracy"
F1 = "macro F1"


class Classification(Kind):
    """One of several classes: scores [N, classes], labels [N]."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """Top-1 accuracy; beside it top-5 accuracy of images, and macro F1 of what is not an image."""
        metrics = {ACCURACY: MulticlassAccuracy(num_classes=model.classes, average="micro")}
        if self.task is not Task.image_classification:
            metrics[F1] = MulticlassF1Score(num_classes=model.classes, average="macro")
        elif model.classes > 5:
            metrics[TOP5] = MulticlassAccuracy(num_classes=model.classes, average="micro", top_k=5)
        return _OfClasses(MetricCollection(dict(metrics), compute_groups=False).to(device))


class _OfClasses:
    def __init__(self, metrics: MetricCollection) -> None:
        self._metrics = metrics

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        self._metrics.update(scores, labels)

    def compute(self) -> Measured:
        found = {name: float(value) for name, value in self._metrics.compute().items()}
        return Measured(found.pop(ACCURACY), found)
