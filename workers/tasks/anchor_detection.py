"""torchvision's one-stage detectors: SSD, RetinaNet and FCOS, with the library's own anchors and losses."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from workers.tasks.detection import Boxes, Detection, images_at_a_time, objects_in, refuse_label_smoothing

ONE_STAGE = (SSD, RetinaNet, FCOS)


class AnchorDetection(Detection):
    """Scores [N, anchors, classes, 4]: logits, then the box as the library codes it against its anchors; FCOS
    has its centre-ness behind them. The loss and what is made of scores are the library's."""

    def __init__(self, detector: Any, size: tuple[int, int], class_offset: int) -> None:
        """`detector` is not kept, only its settings; `size`: height and width of its images."""
        self._size = size
        self._grids = _grids(detector, size)
        is_ssd = isinstance(detector, SSD)
        # a copy with no weights: loss and boxes need anchors and settings only
        parts = {id(detector.backbone): nn.Identity()}
        self._settings: Any = copy.deepcopy(detector, parts).requires_grad_(False).to("meta")
        self.first_class, self.class_offset = int(is_ssd), class_offset
        self._anchors_by_device: dict[torch.device, Tensor] = {}
        anchors = len(self._anchors(torch.device("cpu")))
        head = detector.head.classification_head
        classes = int(head.num_columns if is_ssd else head.num_classes)
        super().__init__(classes, 0 if is_ssd else None, images_at_a_time(size, anchors * (classes + 5)))

    def loss(self, scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """The sum of the library's losses of classes, boxes and centre-ness."""
        refuse_label_smoothing(label_smoothing)
        outputs, anchors = self._outputs(scores.float()), self._anchors(scores.device)
        repeated = [anchors] * len(scores)
        wanted = [
            {name: value[one["iscrowd"] == 0] for name, value in one.items()}
            for one in objects_in(labels, self._size)
        ]
        if isinstance(self._settings, SSD):
            matched = [self._matched(one["boxes"], anchors) for one in wanted]
            losses = self._settings.compute_loss(wanted, outputs, repeated, matched)
        elif isinstance(self._settings, FCOS):
            losses = self._settings.compute_loss(wanted, outputs, repeated, self._levels(anchors))
        else:
            losses = self._settings.compute_loss(wanted, outputs, repeated)
        return torch.stack(list(losses.values())).sum()

    def detections(self, scores: Tensor, size: tuple[int, int]) -> list[Boxes]:
        """The library's boxes: thresholds, the best of each level, and non-maximum suppression."""
        outputs, anchors = self._outputs(scores), self._anchors(scores.device)
        sizes = [size] * len(scores)
        if isinstance(self._settings, SSD):
            found = self._settings.postprocess_detections(outputs, [anchors] * len(scores), sizes)
        else:
            levels = self._levels(anchors)
            split = {name: list(torch.split(value, levels, dim=1)) for name, value in outputs.items()}
            repeated = [list(torch.split(anchors, levels))] * len(scores)
            found = self._settings.postprocess_detections(split, repeated, sizes)
        boxes: list[Boxes] = found
        return boxes

    def _outputs(self, scores: Tensor) -> dict[str, Tensor]:
        logits, boxes, centreness = scores.tensor_split([self.classes, self.classes + 4], dim=-1)
        outputs = {"cls_logits": logits.contiguous(), "bbox_regression": boxes}
        return outputs | ({"bbox_ctrness": centreness} if centreness.shape[-1] else {})

    def _matched(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """As in the library's forward: the number of a box, or below zero for none, for each anchor."""
        if not len(boxes):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        matched: Tensor = self._settings.proposal_matcher(box_iou(boxes, anchors))
        return matched

    def _anchors(self, device: torch.device) -> Tensor:
        if device not in self._anchors_by_device:
            maps = [torch.empty(1, 1, *grid, device=device) for grid in self._grids]
            images = ImageList(torch.empty(1, 1, *self._size, device=device), [self._size])
            self._anchors_by_device[device] = self._settings.anchor_generator(images, maps)[0]
        return self._anchors_by_device[device]

    def _levels(self, anchors: Tensor) -> list[int]:
        """Anchors of each feature map."""
        cells = [height * width for height, width in self._grids]
        return [count * (len(anchors) // sum(cells)) for count in cells]


def anchor_scores(module: nn.Module, batch: Any) -> Tensor:
    """What the heads give for each anchor, as one tensor; boxes are made of it later."""
    assert isinstance(module, ONE_STAGE)
    features = module.backbone(batch["pixel_values"])
    outputs = module.head(list(features.values()))
    names = [name for name in ("cls_logits", "bbox_regression", "bbox_ctrness") if name in outputs]
    return torch.cat([outputs[name] for name in names], dim=-1)


def _grids(detector: Any, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each feature map, from a forward without data."""
    was_training = detector.training
    detector.eval()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        features = detector.backbone(torch.empty(1, 3, *size))
    detector.train(was_training)
    return [(int(one.shape[2]), int(one.shape[3])) for one in features.values()]
