"""Loss, metric and distillation of classes of pixels, against the libraries' own figures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import nn
from torchvision.models.segmentation.fcn import FCN, FCNHead
from transformers.loss.loss_utils import ForSemanticSegmentationLoss

from schemas.task import Task
from tests import scenes
from workers.loss import IGNORED
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.models.torchvision_build import SEGMENTERS
from workers.tasks.segmentation import PIXEL_ACCURACY, SCORES_AT_A_TIME, Segmentation

KIND = Segmentation(scenes.CLASSES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(scenes.segformer(tmp_path_factory.mktemp("segformer")), Task.segmentation)


def masks(samples: int, *, seed: int = 0) -> torch.Tensor:
    """Random classes, a fifth of them without one, as the readers keep them."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 5, (samples, scenes.SIDE, scenes.SIDE), generator=generator)
    return torch.where(numbers < scenes.CLASSES, numbers, IGNORED).to(torch.int16)


def test_the_loss_of_segformer_is_the_librarys(model: LoadedModel):
    labels = masks(2)
    pixels = torch.randn(2, 3, scenes.SIDE, scenes.SIDE)

    ours = KIND.loss(model.logits({"pixel_values": pixels}), labels)

    theirs = model.module(pixel_values=pixels, labels=torch.where(labels == IGNORED, 255, labels).long()).loss
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_label_smoothing_reaches_the_loss():
    scores = torch.randn(1, 4, 4, scenes.CLASSES)
    labels = torch.zeros(1, 4, 4, dtype=torch.int16)

    expected = F.cross_entropy(scores.permute(0, 3, 1, 2), labels.long(), label_smoothing=0.2)
    assert torch.isclose(KIND.loss(scores, labels, label_smoothing=0.2), expected)


class Maps(nn.Module):
    """A backbone with two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.first(pixels)
        return {"aux": first, "out": self.second(first)}


def test_an_auxiliary_classifier_adds_half_of_its_loss_in_training_only():
    module = FCN(Maps(), FCNHead(16, scenes.CLASSES), FCNHead(8, scenes.CLASSES))
    pixels, labels = torch.randn(2, 3, scenes.SIDE, scenes.SIDE), masks(2)
    torch.manual_seed(0)
    theirs = module(pixels)
    torch.manual_seed(0)

    ours = KIND.loss(SEGMENTERS.call(module, {"pixel_values": pixels}), labels)

    main, auxiliary = (
        F.cross_entropy(theirs[name], labels.long(), ignore_index=IGNORED) for name in ("out", "aux")
    )
    assert float(ours) == pytest.approx(float(main + 0.5 * auxiliary), rel=1e-6)
    judged = SEGMENTERS.call(module.eval(), {"pixel_values": pixels})
    assert judged.shape == (2, scenes.SIDE, scenes.SIDE, scenes.CLASSES)


def test_the_auxiliary_loss_of_the_library_is_the_same_sum():
    scores, labels = torch.randn(2, 8, 8, 2, scenes.CLASSES), torch.randint(0, scenes.CLASSES, (2, 8, 8))
    main, auxiliary = (one.permute(0, 3, 1, 2) for one in scores.unbind(3))

    theirs = ForSemanticSegmentationLoss(main, labels, auxiliary_logits=auxiliary, auxiliary_loss_weight=0.5)

    assert float(KIND.loss(scores, labels)) == pytest.approx(float(theirs), rel=1e-6)


def test_mean_iou_is_that_of_all_pixels_of_the_split(model: LoadedModel):
    answers = torch.tensor([[[0, 0], [1, 1]], [[0, 1], [1, 1]]])
    labels = torch.tensor([[[0, 1], [1, IGNORED]], [[0, 0], [1, 1]]], dtype=torch.int16)
    measure = KIND.measure(model, torch.device("cpu"))

    for scores, wanted in zip(F.one_hot(answers, 3).float(), labels, strict=True):
        measure.update(scores[None], wanted[None], {})

    measured = measure.compute()
    # class 0: 2 of 4 pixels; class 1: 3 of 5; class 2 is nowhere and does not count
    assert measured.value == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert measured.others == {PIXEL_ACCURACY: pytest.approx(5 / 7)}


def test_mean_iou_of_random_answers_is_what_numpy_counts(model: LoadedModel):
    scores, labels = torch.randn(3, scenes.SIDE, scenes.SIDE, scenes.CLASSES), masks(3)
    measure = KIND.measure(model, torch.device("cpu"))

    measure.update(scores, labels, {})

    answers, wanted = scores.argmax(-1).numpy(), labels.numpy()
    seen = wanted != IGNORED
    shares = [
        np.sum((answers == one) & (wanted == one) & seen)
        / np.sum(((answers == one) | (wanted == one)) & seen)
        for one in range(scenes.CLASSES)
    ]
    assert measure.compute().value == pytest.approx(np.mean(shares), rel=1e-5)


def test_distillation_is_zero_for_the_same_scores_and_takes_the_main_ones():
    wanted = torch.randn(2, 4, 4, scenes.CLASSES)
    auxiliary = torch.randn(2, 4, 4, scenes.CLASSES)

    same = KIND.distillation(torch.stack([wanted, auxiliary], dim=3), wanted, 2.0)

    assert float(same) == pytest.approx(0, abs=1e-6)
    assert KIND.distillation(auxiliary, wanted, 2.0) > 0.1


@pytest.mark.parametrize(
    ("classes", "shape", "expected"), [(150, (512, 512), 3), (2, (32, 32), 256), (1000, (4096, 4096), 1)]
)
def test_an_evaluation_batch_holds_so_many_images_that_their_scores_fit(
    classes: int, shape: tuple[int, int], expected: int
):
    size = Segmentation(classes).evaluation_batch(256, shape)

    assert size == expected
    assert size == 1 or size * classes * shape[0] * shape[1] <= SCORES_AT_A_TIME
