"""What stands beside the accuracy of a classifier."""

from pathlib import Path

import pytest
import torch
from torch import nn

from schemas.task import Task
from workers.models.loaded import LoadedModel
from workers.tasks.classification import F1, TOP5
from workers.tasks.kind import Measured


def measured(task: Task, found: list[int], right: list[int], classes: int = 3) -> Measured:
    """The metrics of a model that answers `found`, in batches of one."""
    model = LoadedModel(
        module=nn.Identity(),
        architecture="tests/Nothing",
        task=task,
        classes=classes,
        folder=Path("unused"),
        image_size=None,
        image_channels=0,
        call=lambda module, batch: module(batch["x"]),
    )
    measure = model.kind.measure(model, torch.device("cpu"))
    scores = nn.functional.one_hot(torch.tensor(found), classes).float()
    for row, label in zip(scores, right, strict=True):
        measure.update(row[None], torch.tensor([label]), {})
    return measure.compute()


@pytest.mark.parametrize("task", [Task.text_classification, Task.audio_classification])
def test_f1_is_the_mean_over_the_classes(task):
    result = measured(task, [0, 1, 1, 1], [0, 0, 1, 2])

    # precision and recall: 1 and 1/2, 1/3 and 1, 0 and 0
    assert result.value == 0.5
    assert result.others == {F1: pytest.approx((2 / 3 + 1 / 2 + 0) / 3)}


def test_images_of_more_than_five_classes_have_a_top_5_accuracy():
    result = measured(Task.image_classification, [0, 1], [0, 0], classes=8)

    assert (result.value, result.others[TOP5]) == (0.5, 1.0)
    assert measured(Task.image_classification, [0, 1], [0, 0]).others == {}
