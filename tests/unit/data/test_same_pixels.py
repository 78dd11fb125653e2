"""Images come out as the model's own library prepares them, pixel by pixel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from transformers import AutoImageProcessor

from tests import tiny
from workers.data.images import Decoder
from workers.data.normalize import Normalize
from workers.models.preprocessing import read_preprocessing

SIDES = [(61, 90), (90, 61), (47, 200), (64, 64)]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CROP = {"do_center_crop": True, "crop_size": {"height": 28, "width": 28}}
PROCESSORS: dict[str, dict[str, Any]] = {
    "squeezed": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 24}},
    "crop_pct": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}},
    "no crop from 384 on": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
    "shortest edge": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32}, **CROP},
    "both sides": {"image_processor_type": "DeiTImageProcessor", "size": {"height": 32, "width": 32}, **CROP},
}


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def ours(folder: Path, image: Image.Image) -> torch.Tensor:
    stated = read_preprocessing(folder, 3)
    pixels = Decoder(stated, 3, "the image")((0, tiny.png(np.asarray(image))))
    return Normalize(stated)({"pixel_values": torch.from_numpy(pixels.copy())[None]})["pixel_values"][0]


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_transformers_gives_the_same(tmp_path: Path, name: str, sides: tuple[int, int]):
    stated = {"do_resize": True, "resample": 3, "do_normalize": True, **IMAGENET, **PROCESSORS[name]}
    if "ConvNext" in stated["image_processor_type"]:
        stated["crop_pct"] = 0.875
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(picture(*sides), return_tensors="pt")

    assert torch.allclose(ours(tmp_path, picture(*sides)), theirs["pixel_values"][0], atol=1e-5)


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize(
    "stated",
    [{"crop_pct": 0.875}, {"crop_pct": 0.95}, {"crop_pct": 1.0}, {"crop_pct": 1.0, "crop_mode": "squash"}],
    ids=str,
)
def test_timm_gives_the_same(tmp_path: Path, stated: dict[str, Any], sides: tuple[int, int]):
    config = {"input_size": [3, 28, 28], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    config |= stated
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": config}))
    theirs = create_transform(**resolve_data_config(pretrained_cfg=config))(picture(*sides))

    assert torch.allclose(ours(tmp_path, picture(*sides)), theirs, atol=1e-5)
