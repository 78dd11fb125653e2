"""Tiny segmentation and detection models, and pictures of a bright square that they can be asked about.

A square is of one of `CLASSES` classes, by its colour; class 0 of a mask is the ground.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file
from transformers import (
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    YolosConfig,
    YolosForObjectDetection,
)

from tests import tiny

CLASSES = 3
SIDE = 64
FILE_SIDE = 48
"""Sides of the image files, which readers resize."""


def segformer(folder: Path, *, seed: int = 0, **preprocessor: Any) -> Path:
    """SegFormer with 2 stages and about 14,000 weights."""
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=CLASSES,
    )
    return of_transformers(folder, SegformerForSemanticSegmentation, config, seed=seed, **preprocessor)


def yolos(folder: Path, *, seed: int = 0) -> Path:
    """YOLOS with 2 layers, 8 queries and about 19,000 weights."""
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[SIDE, SIDE],
        patch_size=16,
        num_detection_tokens=8,
        num_labels=CLASSES,
    )
    return of_transformers(folder, YolosForObjectDetection, config, seed=seed)


def of_transformers(
    folder: Path, model_class: type[PreTrainedModel], config: Any, *, seed: int = 0, **preprocessor: Any
) -> Path:
    """A model of transformers with random weights, for images of `SIDE` x `SIDE`."""
    torch.manual_seed(seed)
    model_class(config).save_pretrained(folder)
    tiny.preprocessor(folder, 3, size={"height": SIDE, "width": SIDE}, **preprocessor)
    return folder


def of_torchvision(folder: Path, architecture: str, *, side: int = SIDE, seed: int = 0, **build: Any) -> Path:
    """A segmentation model or detector of torchvision with random weights."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = torchvision.models.get_model(
        architecture, weights=None, weights_backbone=None, num_classes=CLASSES, **build
    )
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "library_name": "torchvision",
        "architecture": architecture,
        "num_classes": CLASSES,
        "input_size": [3, side, side],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def pictures(samples: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Images [N, S, S, 3] uint8, masks [N, S, S] uint8, and the square of each as the hub stores objects."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 80, (samples, FILE_SIDE, FILE_SIDE, 3)).astype(np.uint8)
    masks = np.zeros((samples, FILE_SIDE, FILE_SIDE), np.uint8)
    objects = []
    for image, mask in zip(images, masks, strict=True):
        number = int(random.integers(1, CLASSES))
        side = int(random.integers(12, 28))
        left, top = (int(one) for one in random.integers(0, FILE_SIDE - side, 2))
        image[top : top + side, left : left + side, number] += 150
        mask[top : top + side, left : left + side] = number
        objects.append({"bbox": [[float(left), float(top), float(side), float(side)]], "category": [number]})
    return images, masks, objects


def mask_parquet(folder: Path, *, train: int = 8, validation: int = 4) -> Path:
    """`train.parquet` and `validation.parquet` with PNG images and PNG masks."""
    for split, samples, seed in (("train", train, 1), ("validation", validation, 2)):
        images, masks, _ = pictures(samples, seed=seed)
        tiny.write_parquet(folder / f"{split}.parquet", image=cells(images), label=cells(masks))
    return folder


def mask_npz(folder: Path, *, train: int = 8, validation: int = 4) -> Path:
    """The same as arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, samples, seed in (("train", train, 1), ("validation", validation, 2)):
        images, masks, _ = pictures(samples, seed=seed)
        np.savez(folder / f"{split}.npz", image=images, label=masks)
    return folder


def box_parquet(folder: Path, *, train: int = 8, validation: int = 4) -> Path:
    """`train.parquet` and `validation.parquet` with PNG images and boxes."""
    for split, samples, seed in (("train", train, 1), ("validation", validation, 2)):
        images, _, objects = pictures(samples, seed=seed)
        tiny.write_parquet(folder / f"{split}.parquet", image=cells(images), objects=objects)
    return folder


def cells(images: np.ndarray) -> list[dict[str, Any]]:
    """Images as the hub stores them."""
    return [{"bytes": tiny.png(image), "path": f"{row}.png"} for row, image in enumerate(images)]
