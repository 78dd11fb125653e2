"""DETR and its kind: loss, boxes and mAP, against the library's own figures."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForObjectDetection,
    DeformableDetrConfig,
    DeformableDetrImageProcessor,
    ResNetConfig,
    RTDetrConfig,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    YolosConfig,
    YolosImageProcessor,
)

from workers.errors import PreflightError
from workers.tasks.detection import MAP_50, NO_OBJECT, PIXELS_AT_A_TIME, Boxes, Detection, images_at_a_time
from workers.tasks.set_detection import SetDetection

SIDE, CLASSES = 64, 3
SIZES = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
STAGES = ["stage2", "stage3", "stage4"]
SMALL = {"num_queries": 8, "num_labels": CLASSES, "decoder_attention_heads": 2, "encoder_attention_heads": 2}


def yolos() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return YolosConfig(
        **sizes, image_size=[SIDE, SIDE], patch_size=16, num_detection_tokens=8, num_labels=CLASSES
    )


def deformable_detr() -> Any:
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    backbone = ResNetConfig(**SIZES, out_features=STAGES)
    return DeformableDetrConfig(backbone_config=backbone, d_model=32, num_feature_levels=3, **layers, **SMALL)


def rt_detr() -> Any:
    backbone = RTDetrResNetConfig(**SIZES, out_features=STAGES)
    encoder = {"encoder_hidden_dim": 16, "encoder_in_channels": [8, 16, 16], "encoder_ffn_dim": 32}
    decoder = {"d_model": 16, "decoder_in_channels": [16, 16, 16], "decoder_ffn_dim": 32, "decoder_layers": 2}
    return RTDetrConfig(backbone_config=backbone, **encoder, **decoder, num_denoising=0, **SMALL)


CONFIGS = {"yolos": yolos, "deformable_detr": deformable_detr, "rt_detr": rt_detr}
PROCESSORS = {
    "yolos": YolosImageProcessor,
    "deformable_detr": DeformableDetrImageProcessor,
    "rt_detr": RTDetrImageProcessor,
}


class Answered:
    """One of the small models, its answer to two images, and the same as scores."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.name = name
        self.config = CONFIGS[name]()
        self.module: nn.Module = AutoModelForObjectDetection.from_config(self.config).eval()
        self.pixels = torch.randn(2, 3, SIDE, SIDE)
        with torch.no_grad():
            self.output = self.module(pixel_values=self.pixels)
        self.scores = torch.cat([self.output.logits, self.output.pred_boxes], dim=-1)
        self.kind = SetDetection(self.config, (SIDE, SIDE))


@pytest.fixture(scope="module", params=list(CONFIGS))
def answered(request: pytest.FixtureRequest) -> Answered:
    return Answered(request.param)


def labels(*images: list[tuple[float, ...]]) -> Tensor:
    """Rows of (class, centre, width and height), filled up with rows of no object."""
    found = torch.zeros(len(images), max(map(len, images)), 5)
    found[..., 0] = NO_OBJECT
    for place, rows in zip(found, images, strict=True):
        if rows:
            place[: len(rows)] = torch.tensor(rows)
    return found


OBJECTS = labels([(1, 0.5, 0.5, 0.2, 0.3), (2, 0.3, 0.5, 0.2, 0.3)], [(0, 0.6, 0.4, 0.5, 0.5)])


def test_the_loss_is_the_librarys_of_the_last_layer(answered: Answered):
    answered.module.config.auxiliary_loss = False
    wanted = [
        {"class_labels": rows[:, 0].long(), "boxes": rows[:, 1:]}
        for rows in (one[one[:, 0] >= 0] for one in OBJECTS)
    ]

    theirs = answered.module(pixel_values=answered.pixels, labels=wanted).loss

    assert float(answered.kind.loss(answered.scores, OBJECTS)) == pytest.approx(float(theirs), rel=1e-5)


def test_the_boxes_are_those_of_the_librarys_image_processor(answered: Answered):
    theirs = PROCESSORS[answered.name]().post_process_object_detection(
        answered.output, threshold=-1.0, target_sizes=[(SIDE, SIDE)] * 2
    )

    ours = answered.kind.detections(answered.scores, (SIDE, SIDE))

    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one["labels"], other["labels"])
        assert torch.allclose(one["scores"], other["scores"])
        assert torch.allclose(one["boxes"], other["boxes"], atol=1e-4)


def test_an_image_without_objects_and_one_with_a_crowd_have_a_loss(answered: Answered):
    crowd = labels([(-2 - 1, 0.5, 0.5, 0.9, 0.9), (2, 0.3, 0.5, 0.2, 0.3)], [])
    alone = labels([(2, 0.3, 0.5, 0.2, 0.3)], [])

    assert answered.kind.loss(answered.scores, crowd) == answered.kind.loss(answered.scores, alone)


def test_distillation_is_zero_for_the_same_scores_and_has_a_gradient(answered: Answered):
    student = (answered.scores + 0.1).requires_grad_()

    assert float(answered.kind.distillation(answered.scores, answered.scores, 2.0)) == pytest.approx(
        0, abs=1e-6
    )
    answered.kind.distillation(student, answered.scores, 2.0).backward()
    assert student.grad is not None
    assert bool((student.grad[..., -4:] != 0).any())


def test_label_smoothing_is_refused():
    with pytest.raises(PreflightError, match=r"fine_tune\.label_smoothing"):
        Answered("yolos").kind.loss(torch.zeros(1, 8, CLASSES + 5), OBJECTS[:1], label_smoothing=0.1)


class Told(Detection):
    """Finds what it is told to."""

    def __init__(self, *found: list[tuple[float, ...]]) -> None:
        super().__init__(CLASSES, None, 16)
        self.found = [torch.tensor(rows).reshape(-1, 6) for rows in found]

    def detections(self, scores: Tensor, size: tuple[int, int]) -> list[Boxes]:
        return [
            {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].long()} for rows in self.found
        ]


def measured(kind: Detection, wanted: Tensor) -> Any:
    measure = kind.measure(None, torch.device("cpu"))
    measure.update(
        torch.zeros(len(wanted), 1, 7), wanted, {"pixel_values": torch.zeros(len(wanted), 3, 100, 100)}
    )
    return measure.compute()


HALF = labels([(1, 0.5, 0.5, 0.2, 0.2)], [(1, 0.5, 0.5, 0.2, 0.2)])
FOUND = (40.0, 40.0, 60.0, 60.0, 0.9, 1.0)


def test_all_objects_found_exactly_is_an_map_of_one():
    assert measured(Told([FOUND], [FOUND]), HALF).value == pytest.approx(1)


def test_half_of_the_objects_found_is_the_map_that_coco_gives():
    # precision 1 up to a recall of 0.5, which is 51 of COCO's 101 points
    assert measured(Told([FOUND], []), HALF).value == pytest.approx(51 / 101)


def test_a_box_that_half_fits_counts_at_low_thresholds_only():
    loose = (40.0, 40.0, 60.0, 72.0, 0.9, 1.0)  # IoU 20 / 32 = 0.625: right at 0.50, 0.55 and 0.60

    result = measured(Told([loose], [loose]), HALF)

    assert result.value == pytest.approx(0.3)
    assert result.others[MAP_50] == pytest.approx(1)


def test_a_detection_in_a_crowd_is_not_counted_as_wrong():
    crowd = labels([(1, 0.5, 0.5, 0.2, 0.2), (-2 - 1, 0.2, 0.2, 0.4, 0.4)])
    within = (0.0, 0.0, 30.0, 30.0, 0.95, 1.0)

    assert measured(Told([within, FOUND]), crowd).value == pytest.approx(1)
    assert measured(Told([within, FOUND]), crowd[:, :1]).value == pytest.approx(0.5)


def test_evaluation_batches_shrink_with_images_and_scores():
    assert images_at_a_time((640, 640), 300 * 84) == PIXELS_AT_A_TIME // 640**2 == 10
    assert images_at_a_time((64, 64), 2**25) == 2
    assert images_at_a_time(None, 2**30) == 1
    assert Told([]).evaluation_batch(256, (7, 5)) == 16
