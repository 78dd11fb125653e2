"""What transformers' segmentation and detection models answer, as one tensor of scores."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from workers.errors import ModelError
from workers.models.folder import listed
from workers.models.loaded import Batch
from workers.tasks.kind import Kind
from workers.tasks.segmentation import Segmentation
from workers.tasks.set_detection import FAMILIES, SetDetection

Size = tuple[int, int]
"""Height and width of the images; None: as they are."""


def pixel_scores(module: nn.Module, batch: Batch) -> Tensor:
    """[N, H, W, classes] at the size of the image, by the interpolation of the library's own loss.

    An auxiliary head, as UperNet has one, answers only where the library computes the loss: it keeps the
    weights that it came with.
    """
    images = batch["pixel_values"]
    logits = module(pixel_values=images).logits
    scores = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return scores.permute(0, 2, 3, 1)


def object_scores(module: nn.Module, batch: Batch) -> Tensor:
    """[N, queries, classes (and "no object"), 4]: logits and boxes of the last layer."""
    output = module(pixel_values=batch["pixel_values"])
    return torch.cat([output.logits, output.pred_boxes], dim=-1)


def pixel_classes(parsed: Any) -> int:
    """The classes of a pixel; ModelError for fewer than two."""
    if parsed.num_labels < 2:
        raise ModelError(
            f"config.json: the head has {parsed.num_labels} outputs: give a model with two classes or more"
        )
    return int(parsed.num_labels)


def object_classes(parsed: Any) -> int:
    """The classes of objects; ModelError for a model whose loss needs more than its scores."""
    if parsed.model_type not in FAMILIES:
        raise ModelError(
            f"config.json: the loss of '{parsed.model_type}' needs more than classes and boxes of the last "
            f"layer: give a model of {listed(sorted(FAMILIES), 12)}"
        )
    return int(parsed.num_labels)


def pixel_kind(parsed: Any, size: Size | None) -> Kind:
    """Segmentation into the classes of this model."""
    return Segmentation(int(parsed.num_labels))


def object_kind(parsed: Any, size: Size | None) -> Kind:
    """Detection with the loss of this model."""
    return SetDetection(parsed, size)
