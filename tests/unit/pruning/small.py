"""A small convolutional network, a data set it can learn, and both as the worker sees them."""

from pathlib import Path

import torch
from torch import nn

from schemas.task import Task
from workers.data.bundle import Bundle, Split
from workers.models.loaded import LoadedModel

CLASSES = 3


def small_module(seed: int = 0) -> nn.Sequential:
    """Two convolutions and a linear layer: 1,872 prunable weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 24, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(24, CLASSES),
    )


def loaded(module: nn.Module) -> LoadedModel:
    """The module as the loader would hand it over."""
    module.eval()
    return LoadedModel(
        module=module,
        architecture="test/Small",
        task=Task.image_classification,
        classes=CLASSES,
        folder=Path(),
        image_size=None,
        image_channels=1,
        call=lambda part, batch: part(batch["pixel_values"]),
    )


def small_bundle(train: int = 96, validation: int = 40) -> Bundle:
    """Noise around one brightness for each class."""
    generator = torch.Generator().manual_seed(7)

    def split(size: int) -> Split:
        labels = torch.arange(size) % CLASSES
        images = torch.randn(size, 1, 6, 6, generator=generator) * 0.3 + labels.view(-1, 1, 1, 1)
        return Split({"pixel_values": images}, labels)

    return Bundle(split(train), split(validation), dict)
