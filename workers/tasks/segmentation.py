"""Semantic segmentation: one class for each pixel, judged by the mean intersection over union."""

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from schemas.task import Task
from workers.loss import IGNORED, cross_entropy, softened_divergence
from workers.tasks.kind import Kind, Measure, Measured

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel

IOU = "mean IoU"
PIXEL_ACCURACY = "pixel accuracy"
SCORES_AT_A_TIME = 2**27
"""Numbers in the scores of one evaluation batch: 512 MiB; three images of 512 x 512 with 150 classes."""
MANY_CLASSES = 150
"""Those of ADE20k, where nothing says how many a model has."""
AUXILIARY_WEIGHT = 0.5
"""As in torchvision's reference training."""


class Segmentation(Kind):
    """Scores [N, H, W, classes] at the size of the input, labels [N, H, W] of any integer type.

    `IGNORED` pixels are left out. In training mode a model with an auxiliary classifier gives
    [N, H, W, 2, classes], and that classifier's loss is added with the weight 0.5.
    """

    task = Task.segmentation

    def __init__(self, classes: int = MANY_CLASSES) -> None:
        self.classes = classes

    def loss(self, scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy over the pixels that have a label."""
        scores, wanted = scores.float(), labels.long()
        if scores.ndim == 4:
            return cross_entropy(scores, wanted, label_smoothing=label_smoothing)
        main, auxiliary = (
            cross_entropy(part, wanted, label_smoothing=label_smoothing) for part in scores.unbind(3)
        )
        return main + AUXILIARY_WEIGHT * auxiliary

    def distillation(self, scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Divergence of the pixels' classes, mean over pixels; an auxiliary classifier learns from labels."""
        return softened_divergence(_main(scores), _main(wanted), temperature)

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """Mean IoU over the classes that labels or answers have, from one confusion matrix of the whole
        split; beside it pixel accuracy."""
        options = {"num_classes": model.classes, "ignore_index": IGNORED}
        metrics = {
            IOU: MulticlassJaccardIndex(average="macro", **options),
            PIXEL_ACCURACY: MulticlassAccuracy(average="micro", **options),
        }
        return _OfPixels(MetricCollection(dict(metrics), compute_groups=False).to(device))

    def evaluation_batch(self, most: int, label_shape: tuple[int, ...]) -> int:
        """So many images that their scores fit."""
        return max(1, min(most, SCORES_AT_A_TIME // (prod(label_shape) * self.classes)))


def _main(scores: Tensor) -> Tensor:
    return scores if scores.ndim == 4 else scores[..., 0, :]


class _OfPixels:
    def __init__(self, metrics: MetricCollection) -> None:
        self._metrics = metrics

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        self._metrics.update(_main(scores).argmax(dim=-1), labels.long())

    def compute(self) -> Measured:
        found = {name: float(value) for name, value in self._metrics.compute().items()}
        return Measured(found.pop(IOU), found)
