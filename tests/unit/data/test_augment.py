"""Random changes to training images."""

import pytest
import torch

from schemas.job_spec import JobSpec
from workers.data.augment import augmentation
from workers.data.bundle import Bundle, Split
from workers.data.normalize import as_they_are
from workers.errors import DataError

PRESETS = ("light", "standard", "strong")
CPU = torch.device("cpu")


def images(channels: int = 3, count: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 24, 20), dtype=torch.uint8, generator=generator)


def bundle(name: str, pixels: torch.Tensor) -> Bundle:
    split = Split({"pixel_values": pixels}, torch.arange(len(pixels)))
    return Bundle(split, split, as_they_are, augment=augmentation(name))  # type: ignore[arg-type]


def epoch(of: Bundle, seed: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    shuffle = None if seed is None else torch.Generator().manual_seed(seed)
    parts = list(of.batches(of.train, 4, device=CPU, shuffle=shuffle))
    return torch.cat([inputs["pixel_values"] for inputs, _ in parts]), torch.cat(
        [label for _, label in parts]
    )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_epoch_is_the_same_again_and_another_is_not(name: str, channels: int):
    of = bundle(name, images(channels))

    first, again, other = (epoch(of, seed)[0] for seed in (1, 1, 2))

    assert first.dtype == torch.uint8
    assert first.shape == (8, channels, 24, 20)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", PRESETS)
def test_each_image_of_a_batch_has_draws_of_its_own(name: str):
    one = images(count=1).repeat(8, 1, 1, 1)

    changed, _ = epoch(bundle(name, one), 0)

    assert len(changed.unique(dim=0)) > 1


@pytest.mark.parametrize("name", PRESETS)
def test_batches_to_judge_by_stay_as_they_are(name: str):
    assert torch.equal(epoch(bundle(name, images()), None)[0], images())


def test_without_a_preset_the_order_and_the_images_are_what_they_were():
    pixels, labels = epoch(bundle("none", images()), 3)

    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pixels, images()[order])
    assert torch.equal(labels, order)


def test_the_random_numbers_of_training_do_not_move():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)

    epoch(bundle("strong", images()), 0)

    assert torch.equal(torch.rand(1), expected)


def test_normalized_floats_are_refused():
    with pytest.raises(DataError, match="give uint8 arrays"):
        epoch(bundle("light", images().float()), 0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"data": {"uri": "s3://data/x/", "task": "text-classification"}},
            "task 'text-classification' has no use",
        ),
        ({"data": {"uri": "s3://data/x/", "task": "detection"}}, "'detection' has no use"),
        ({"fine_tune": {"augment": "light", "epochs": 0}}, "set fine_tune.epochs to 1 or more"),
    ],
)
def test_refuses_augmentation_that_would_change_nothing(changes: dict[str, object], says: str):
    spec = {
        "model": {"uri": "s3://zoo/x/"},
        "data": {"uri": "s3://data/x/"},
        "goal": {"sparsity": 0.5},
        "fine_tune": {"augment": "light"},
    }

    with pytest.raises(ValueError, match=says):
        JobSpec.model_validate({**spec, **changes})
