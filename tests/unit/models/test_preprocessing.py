"""What a model's own files say about its images."""

import json

import pytest

from tests import tiny
from workers.errors import ModelError
from workers.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, read_preprocessing


def with_preprocessor(folder, **stated):
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    return folder


@pytest.mark.parametrize(
    ("stated", "size", "crop"),
    [
        ({"size": {"height": 20, "width": 30}}, (20, 30), None),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224), 0.875),
        ({"size": 224}, (224, 224), 1.0),
        (
            {
                "size": {"shortest_edge": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
            },
            (224, 224),
            0.875,
        ),
        ({"size": {"height": 20, "width": 20}, "do_resize": False}, None, None),
        ({}, None, 1.0),
    ],
)
def test_reads_every_way_in_which_the_hub_writes_a_size(tmp_path, stated, size, crop):
    preprocessing = read_preprocessing(with_preprocessor(tmp_path, **stated), 3)

    assert (preprocessing.size, preprocessing.crop) == (size, crop)


def test_position_embeddings_decide_the_size(tmp_path):
    folder = tiny.vit(tmp_path)
    tiny.preprocessor(folder, 1, size={"height": 99, "width": 99})

    assert read_preprocessing(folder, 1).size == (tiny.SIDE, tiny.SIDE)


def test_without_a_preprocessor_three_channels_are_those_of_imagenet(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    three, one = read_preprocessing(tmp_path, 3), read_preprocessing(tmp_path, 1)

    assert (three.mean, three.std, three.scale) == (IMAGENET_MEAN, IMAGENET_STD, 1 / 255)
    assert (one.mean, one.std) == ((0.5,), (0.5,))


def test_a_step_that_is_switched_off_is_not_done(tmp_path):
    folder = with_preprocessor(tmp_path, do_rescale=False, do_normalize=False, image_mean=[9], image_std=[9])

    preprocessing = read_preprocessing(folder, 1)

    assert (preprocessing.scale, preprocessing.mean, preprocessing.std) == (1.0, (0.0,), (1.0,))


def test_reads_the_config_of_torchvision(tmp_path):
    preprocessing = read_preprocessing(tiny.torchvision_folder(tmp_path, side=32), 3)

    assert (preprocessing.size, preprocessing.mean) == ((32, 32), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"image_mean": [0.1, 0.2]}, "'image_mean' is [0.1, 0.2], but the model takes 3 channels"),
        ({"image_std": [0, 1, 1]}, "must be above zero"),
        ({"size": {"height": "big"}}, "as an image size"),
        ({"size": {"height": -1, "width": 4}}, "as an image size"),
        ({"rescale_factor": "x"}, "'rescale_factor' is 'x'"),
        ({"resample": 77}, "'resample' is 77"),
    ],
)
def test_refuses_what_it_cannot_use(tmp_path, stated, told):
    folder = with_preprocessor(tmp_path, **stated)

    with pytest.raises(ModelError) as caught:
        read_preprocessing(folder, 3)

    assert str(caught.value).startswith("preprocessor_config.json: ")
    assert told in str(caught.value)
