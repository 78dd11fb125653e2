"""DETR and its kind in transformers: a set of queries, matched with the objects that are there."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert
from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss
from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

from workers.tasks.detection import Boxes, Detection, images_at_a_time, refuse_label_smoothing


@dataclass(frozen=True)
class Family:
    """Models with one loss of the library, and one way to read their scores."""

    loss: Callable[..., Any]
    softmax: bool
    """Classes exclude each other, and the last one is "no object"; else each is a yes or no."""
    most: int | None = None
    """Detections that the library's image processor keeps; None: as many as there are queries."""


_DETR = Family(ForObjectDetectionLoss, softmax=True)
_DEFORMABLE = Family(DeformableDetrForObjectDetectionLoss, softmax=False, most=100)
_RT_DETR = Family(RTDetrForObjectDetectionLoss, softmax=False)

FAMILIES = {
    "detr": _DETR,
    "table-transformer": _DETR,
    "yolos": _DETR,
    "conditional_detr": _DEFORMABLE,
    "dab-detr": _DEFORMABLE,
    "deformable_detr": _DEFORMABLE,
    "rt_detr": _RT_DETR,
    "rt_detr_v2": _RT_DETR,
    "d_fine": Family(DFineForObjectDetectionLoss, softmax=False),
}
"""By `model_type`. The losses of the others need more than the scores of the last layer."""


class SetDetection(Detection):
    """Scores [N, queries, classes (and "no object"), 4]: logits, then the box's centre, width and height as
    shares of the image. The loss is the library's own, of the last layer alone."""

    def __init__(self, config: Any, size: tuple[int, int] | None) -> None:
        """`config`: the parsed config of a model of `FAMILIES`; `size`: height and width of its images."""
        self._family = FAMILIES[config.model_type]
        self._config = copy.deepcopy(config)
        self._config.auxiliary_loss = False
        classes = int(config.num_labels) + int(self._family.softmax)
        numbers = int(getattr(config, "num_queries", None) or config.num_detection_tokens) * (classes + 4)
        background = classes - 1 if self._family.softmax else None
        super().__init__(classes, background, images_at_a_time(size, numbers))

    def loss(self, scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The library's loss after the best matching of queries and objects."""
        refuse_label_smoothing(label_smoothing)
        scores = scores.float()
        wanted = [
            {"class_labels": rows[:, 0].long(), "boxes": rows[:, 1:]}
            for rows in (one[one[:, 0] >= 0] for one in labels)
        ]
        loss: Tensor = self._family.loss(
            logits=scores[..., : self.classes],
            labels=wanted,
            device=scores.device,
            pred_boxes=scores[..., self.classes :],
            config=self._config,
        )[0]
        return loss

    def detections(self, scores: Tensor, size: tuple[int, int]) -> list[Boxes]:
        """As the library's image processors read scores, without a threshold."""
        height, width = size
        boxes = box_convert(scores[..., self.classes :], "cxcywh", "xyxy")
        boxes = boxes * scores.new_tensor([width, height, width, height])
        logits = scores[..., : self.classes]
        if self._family.softmax:
            found, labels = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
        else:
            most = min(self._family.most or scores.shape[1], logits[0].numel())
            found, index = logits.sigmoid().flatten(1).topk(most, dim=1)
            labels = index % self.classes
            query = torch.div(index, self.classes, rounding_mode="floor")
            boxes = boxes.gather(1, query[..., None].expand(-1, -1, 4))
        triples = zip(boxes, found, labels, strict=True)
        return [{"boxes": one, "scores": score, "labels": label} for one, score, label in triples]
