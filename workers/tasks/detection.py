"""Object detection: boxes with classes, judged by COCO's mean average precision."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_convert

from schemas.task import Task
from workers.errors import PreflightError
from workers.loss import softened_divergence
from workers.tasks.kind import Kind, Measure, Measured

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel

NO_OBJECT = -1
"""The class of a row of labels that holds no object."""
PIXELS_AT_A_TIME = 2**22
"""Pixels of one evaluation batch: 10 images of 640 x 640."""
SCORES_AT_A_TIME = 2**26
"""Numbers in the scores of one evaluation batch: 256 MiB."""
MAP_50, MAP_75 = "mAP at IoU 0.50", "mAP at IoU 0.75"

Boxes = dict[str, Tensor]
"""Of one image: `boxes` [K, 4] as x1, y1, x2, y2 in pixels of the model's input, `labels` [K]; what a model
found has `scores` [K], what is there has `iscrowd` [K]."""


class Detection(Kind):
    """Scores [N, Q, classes + more]: for each of Q queries or anchors the classes, then the box.

    Labels [N, M, 5] float: a class, then the centre, width and height of the box as shares of the image's.
    Class -1 fills up; -2 - c is a crowd of class c, which COCO neither asks for nor counts as wrong.
    """

    task = Task.detection
    first_class = 0
    """The lowest class number: 1 where 0 is the background."""
    class_offset = 0
    """What is added to a class number of the data to have the model's."""

    def __init__(self, classes: int, background: int | None, at_a_time: int) -> None:
        """`classes`: how many of the scores are of classes. `background`: which of them says that there is no
        object; None: classes are a yes or no each. `at_a_time`: images of an evaluation batch."""
        self.classes = classes
        self.background = background
        self.at_a_time = at_a_time

    def detections(self, scores: Tensor, size: tuple[int, int]) -> list[Boxes]:
        """What scores [N, Q, …] find in images of `size`, height and width."""
        raise NotImplementedError

    def distillation(self, scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Softened divergence of the classes of all queries, and L1 of the boxes, each weighted with the
        dense model's probability of an object.

        Both are sums, divided by the number of objects that the dense model sees, as focal losses are.
        """
        scores, wanted = scores.float(), wanted.float()
        seen = self._foreground(wanted[..., : self.classes])
        classes = self._divergence(scores[..., : self.classes], wanted[..., : self.classes], temperature)
        boxes = F.l1_loss(scores[..., self.classes :], wanted[..., self.classes :], reduction="none")
        return (classes * seen.numel() + (boxes.sum(dim=-1) * seen).sum()) / seen.sum().clamp(min=1.0)

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """mAP over the IoU thresholds 0.50 to 0.95 as COCO's own code counts it; beside it those at 0.50
        and 0.75."""
        return _OfBoxes(self)

    def evaluation_batch(self, most: int, label_shape: tuple[int, ...]) -> int:
        """So many images that they and their scores fit."""
        return min(most, self.at_a_time)

    def _foreground(self, logits: Tensor) -> Tensor:
        """Probability [N, Q] of an object of any class."""
        if self.background is None:
            return logits.sigmoid().amax(dim=-1)
        return 1 - logits.softmax(dim=-1)[..., self.background]

    def _divergence(self, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Mean over queries; where classes are a yes or no each, of the sum over classes."""
        if self.background is not None:
            return softened_divergence(logits, wanted, temperature)
        ours, theirs = (torch.stack([one, torch.zeros_like(one)], dim=-1) for one in (logits, wanted))
        return softened_divergence(ours, theirs, temperature) * self.classes


def images_at_a_time(size: tuple[int, int] | None, numbers: int) -> int:
    """How many images of `size`, each with so many numbers in its scores, make an evaluation batch."""
    height, width = size or (1024, 1024)
    return max(1, min(PIXELS_AT_A_TIME // (height * width), SCORES_AT_A_TIME // numbers))


def objects_in(labels: Tensor, size: tuple[int, int]) -> list[Boxes]:
    """Labels [N, M, 5] as boxes in pixels of images of `size`, image by image, crowds with the rest."""
    height, width = size
    scale = labels.new_tensor([width, height, width, height])
    found = []
    for rows in labels:
        there = rows[rows[:, 0] != NO_OBJECT]
        crowd = there[:, 0] < NO_OBJECT
        classes = torch.where(crowd, -2 - there[:, 0], there[:, 0]).long()
        boxes = box_convert(there[:, 1:], "cxcywh", "xyxy") * scale
        found.append({"boxes": boxes, "labels": classes, "iscrowd": crowd.long()})
    return found


def refuse_label_smoothing(label_smoothing: float) -> None:
    """PreflightError where a spec asks for it: the losses of detectors have none."""
    if label_smoothing:
        raise PreflightError("fine_tune.label_smoothing: the losses of detectors know none: leave it out")


class _OfBoxes:
    def __init__(self, kind: Detection) -> None:
        self._kind = kind
        self._metric = MeanAveragePrecision(backend="pycocotools")
        self._metric.warn_on_many_detections = False  # COCO counts the best hundred of an image

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        height, width = inputs["pixel_values"].shape[-2:]
        self._metric.update(
            [_on_cpu(one) for one in self._kind.detections(scores.float(), (height, width))],
            [_on_cpu(one) for one in objects_in(labels, (height, width))],
        )

    def compute(self) -> Measured:
        found = self._metric.compute()
        value, at_50, at_75 = (float(found[name]) for name in ("map", "map_50", "map_75"))
        return Measured(value, {MAP_50: at_50, MAP_75: at_75})


def _on_cpu(boxes: Boxes) -> Boxes:
    return {name: value.cpu() for name, value in boxes.items()}
