"""torchvision's one-stage detectors. Those of two stages are refused: they cannot be exported."""

import torchvision
from torch import nn

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import listed
from workers.models.torchvision_build import Branch, Build, library_model
from workers.tasks.anchor_detection import ONE_STAGE, AnchorDetection, anchor_scores
from workers.tasks.kind import Kind

_NAMES = ("ssd", "retinanet", "fcos")
_FIXED = {"ssd300_vgg16": (300, 300), "ssdlite320_mobilenet_v3_large": (320, 320)}


def _detector(build: Build) -> nn.Module:
    """The architecture with the settings of the library. Raises ModelError for two stages, and where
    'input_size' is missing or not the one that it is made for."""
    if not build.name.startswith(_NAMES):
        # torch.export 2.14 stops at torchvision's non-maximum suppression, with the batch fixed too
        raise ModelError(
            f"config.json: {build.name} has two stages: it chooses regions of each image and cuts them out "
            "within the model, which torch.export cannot write with a free number of images: give "
            f"one of {listed(sorted(_known()), 9)}, or a DETR of transformers"
        )
    wanted = _FIXED.get(build.name)
    if build.size is None or wanted not in (None, build.size):
        shown = list(wanted) if wanted else "the height and width that the images shall have"
        raise ModelError(
            f"config.json: 'input_size' is {build.config.get('input_size')!r}: "
            f"for {build.name} give [3, height, width] with {shown}"
        )
    return library_model(build, weights_backbone=None)


def _known() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models.detection)
    return [name for name in names if name.startswith(_NAMES)]


def _kind(module: nn.Module, build: Build) -> Kind:
    offset = build.config.get("class_offset", 0)
    if offset not in (0, 1) or isinstance(offset, bool):
        raise ModelError(
            f"config.json: 'class_offset' is {offset!r}: give 1 where class 0 of the data is class 1 of the "
            "model, because 0 is its background, or leave it out"
        )
    assert isinstance(module, ONE_STAGE)
    assert build.size is not None
    return AnchorDetection(module, build.size, int(offset))


DETECTORS = Branch(
    Task.detection,
    torchvision.models.detection,
    "detectors",
    build=_detector,
    call=anchor_scores,
    kind=_kind,
    fewest=1,
)
