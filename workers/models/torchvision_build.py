"""What torchvision builds for each task, and how its output becomes one tensor of scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
import torchvision
from torch import Tensor, nn
from torchvision.models.segmentation._utils import _SimpleSegmentationModel as SimpleSegmentationModel

from schemas.task import Task
from workers.models.loaded import Batch
from workers.tasks.kind import Kind
from workers.tasks.segmentation import Segmentation

Size = tuple[int, int]
"""Height and width of the images."""


@dataclass(frozen=True)
class Build:
    """What a model is built from."""

    name: str
    classes: int
    weights: Mapping[str, Tensor]
    """They say whether a model has auxiliary classifiers."""
    config: Mapping[str, Any]
    size: Size | None

    def has(self, prefix: str) -> bool:
        """Whether some tensor's name begins so."""
        return any(name.lower().startswith(prefix) for name in self.weights)


@dataclass(frozen=True)
class Branch:
    """The architectures of one task."""

    task: Task
    namespace: ModuleType
    """Where torchvision lists them."""
    what: str
    """What they are, for a reader."""
    build: Callable[[Build], nn.Module]
    """Raises ModelError."""
    call: Callable[[nn.Module, Batch], Tensor]
    kind: Callable[[nn.Module, Build], Kind | None]
    """What the task means for this model; None: what it always means."""
    fewest: int = 2
    """Classes that a model has at least."""


def library_model(build: Build, **options: Any) -> nn.Module:
    """An architecture with random weights; nothing is fetched."""
    module: nn.Module = torchvision.models.get_model(
        build.name, weights=None, num_classes=build.classes, **options
    )
    return module


def _classifier(build: Build) -> nn.Module:
    if build.name in ("googlenet", "inception_v3"):
        return library_model(build, aux_logits=build.has("aux"), init_weights=False)
    return library_model(build)


def _class_scores(module: nn.Module, batch: Batch) -> Tensor:
    output = module(batch["pixel_values"])
    # GoogLeNet and Inception answer (logits, auxiliary logits) in training mode
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits


def _segmenter(build: Build) -> nn.Module:
    if build.name.startswith("lraspp"):
        return library_model(build, weights_backbone=None)
    return library_model(build, weights_backbone=None, aux_loss=build.has("aux_classifier."))


def _pixel_scores(module: nn.Module, batch: Batch) -> Tensor:
    """[N, H, W, classes]; in training mode, with an auxiliary classifier, [N, H, W, 2, classes].

    The library's forward, which runs the auxiliary classifier in evaluation too, where nothing reads it.
    """
    images = batch["pixel_values"]
    if not isinstance(module, SimpleSegmentationModel):
        main: Tensor = module(images)["out"]
        return main.permute(0, 2, 3, 1)
    features = module.backbone(images)
    scores = [module.classifier(features["out"])]
    if module.training and module.aux_classifier is not None:
        scores.append(module.aux_classifier(features["aux"]))
    large = [
        F.interpolate(one, size=images.shape[-2:], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        for one in scores
    ]
    return large[0] if len(large) == 1 else torch.stack(large, dim=3)


CLASSIFIERS = Branch(
    Task.image_classification,
    torchvision.models,
    "classifiers",
    build=_classifier,
    call=_class_scores,
    kind=lambda module, build: None,
)
SEGMENTERS = Branch(
    Task.segmentation,
    torchvision.models.segmentation,
    "segmentation models",
    build=_segmenter,
    call=_pixel_scores,
    kind=lambda module, build: Segmentation(build.classes),
)
