"""torchvision's one-stage detectors: loss and boxes, against the library's own forward."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from workers.errors import PreflightError
from workers.tasks.anchor_detection import AnchorDetection, anchor_scores
from workers.tasks.detection import NO_OBJECT, objects_in

SIDE, CLASSES = 64, 4
PLAIN = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
KEEPS = {"score_thresh": 0.0, "topk_candidates": 50}
OBJECTS = torch.tensor(
    [[(1, 0.5, 0.5, 0.4, 0.6), (2, 0.3, 0.5, 0.3, 0.3)], [(3, 0.6, 0.4, 0.5, 0.5), (NO_OBJECT, 0, 0, 0, 0)]]
)


class Maps(nn.Module):
    """Two feature maps of 32 channels, with strides of 8 and 16."""

    def __init__(self, out_channels: int | list[int] = 32) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.first, self.second = nn.Conv2d(3, 32, 3, 8, 1), nn.Conv2d(32, 32, 3, 2, 1)

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        first = self.first(pixels).relu()
        return OrderedDict({"0": first, "1": self.second(first).relu()})


def ssd() -> SSD:
    anchors = DefaultBoxGenerator([[2], [2]])
    return SSD(Maps([32, 32]), anchors, (SIDE, SIDE), CLASSES, **KEEPS, **PLAIN)


def retinanet() -> RetinaNet:
    anchors = AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2)
    return RetinaNet(Maps(), CLASSES, SIDE, SIDE, anchor_generator=anchors, **KEEPS, **PLAIN)


def fcos() -> FCOS:
    anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    return FCOS(Maps(), CLASSES, SIDE, SIDE, anchor_generator=anchors, **KEEPS, **PLAIN)


class Case:
    def __init__(self, build: type) -> None:
        torch.manual_seed(0)
        self.detector = build()
        self.pixels = torch.rand(2, 3, SIDE, SIDE)
        self.kind = AnchorDetection(self.detector, (SIDE, SIDE), 0)
        with torch.no_grad():
            self.scores = anchor_scores(self.detector, {"pixel_values": self.pixels})


@pytest.fixture(scope="module", params=[ssd, retinanet, fcos], ids=lambda one: one.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def library_loss(case: Case, labels: Tensor) -> float:
    wanted = [{name: one[name] for name in ("boxes", "labels")} for one in objects_in(labels, (SIDE, SIDE))]
    losses = case.detector.train()(list(case.pixels), wanted)
    case.detector.eval()
    return float(sum(losses.values()))


def test_the_loss_is_the_librarys(case: Case):
    assert float(case.kind.loss(case.scores, OBJECTS)) == pytest.approx(library_loss(case, OBJECTS), rel=1e-5)


def test_an_image_without_objects_has_the_librarys_loss(case: Case):
    labels = OBJECTS.clone()
    labels[1, :, 0] = NO_OBJECT

    assert float(case.kind.loss(case.scores, labels)) == pytest.approx(library_loss(case, labels), rel=1e-5)


def test_a_crowd_is_no_object_to_learn(case: Case):
    crowd, alone = OBJECTS.clone(), OBJECTS.clone()
    crowd[0, 1, 0], alone[0, 1, 0] = -2 - 2, NO_OBJECT

    assert case.kind.loss(case.scores, crowd) == case.kind.loss(case.scores, alone)


def test_the_boxes_are_the_librarys(case: Case):
    with torch.no_grad():
        theirs = case.detector.eval()(list(case.pixels))

    ours = case.kind.detections(case.scores, (SIDE, SIDE))

    for one, other in zip(ours, theirs, strict=True):
        assert len(one["boxes"]) > 0
        for name in other:
            assert torch.equal(one[name], other[name]), name


def test_the_loss_reaches_every_weight(case: Case):
    case.detector.train().zero_grad()

    case.kind.loss(anchor_scores(case.detector, {"pixel_values": case.pixels}), OBJECTS).backward()

    missed = [name for name, one in case.detector.named_parameters() if one.grad is None]
    case.detector.eval().zero_grad()
    assert missed == []


def test_the_kind_holds_no_weights_of_the_detector(case: Case):
    held = case.kind._settings.state_dict().values()

    assert all(one.is_meta for one in held)
    assert not any(one.is_meta for one in case.detector.state_dict().values())


def test_distillation_is_zero_for_the_same_scores(case: Case):
    assert float(case.kind.distillation(case.scores, case.scores, 2.0)) == pytest.approx(0, abs=1e-6)
    assert case.kind.distillation(case.scores + torch.rand_like(case.scores), case.scores, 2.0) > 0


def test_label_smoothing_is_refused(case: Case):
    with pytest.raises(PreflightError, match=r"fine_tune\.label_smoothing"):
        case.kind.loss(case.scores, OBJECTS, label_smoothing=0.1)


def test_only_ssd_counts_the_background_among_its_classes():
    assert Case(ssd).kind.first_class == 1
    assert Case(retinanet).kind.first_class == 0
