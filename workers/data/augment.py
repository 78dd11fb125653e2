"""Random changes to the images of training batches, by torchvision."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2

from schemas.fine_tune import AugmentName
from workers.data.bundle import Augment
from workers.errors import DataError

_BILINEAR = v2.InterpolationMode.BILINEAR


def augmentation(name: AugmentName) -> Augment | None:
    """What a preset does to a batch with uint8 `pixel_values` [N,C,H,W]: each image has draws of its own,
    which come from the batch's generator alone. None: nothing.

    light: shifts by up to an eighth, flips. standard: crops of 35 to 100 % of the area, flips, one random
    operation (TrivialAugment, Müller and Hutter 2021). strong: crops of 8 to 100 % (Szegedy et al. 2015),
    flips, two random operations (RandAugment, Cubuk et al. 2020), random erasing (Zhong et al. 2020).
    """
    return None if name == "none" else partial(_augment, name)


def _augment(
    name: AugmentName, inputs: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    images = inputs["pixel_values"]
    if images.dtype != torch.uint8:
        raise DataError(
            "fine_tune.augment changes images of 0 to 255, and these are normalized floats: give uint8 "
            "arrays, or set fine_tune.augment to 'none'"
        )
    transform = _transform(name, images.shape[-2], images.shape[-1])
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's own state
        torch.manual_seed(seed)
        return {**inputs, "pixel_values": torch.stack([transform(image) for image in images])}


def _transform(name: AugmentName, height: int, width: int) -> v2.Transform:
    size = (height, width)
    if name == "light":
        padding = [max(1, width // 8), max(1, height // 8)]
        shift = v2.RandomCrop(size, padding=padding, padding_mode="reflect")
        return v2.Compose([shift, v2.RandomHorizontalFlip()])
    if name == "standard":
        crop = v2.RandomResizedCrop(size, scale=(0.35, 1.0), interpolation=_BILINEAR, antialias=True)
        return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()])
    crop = v2.RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=_BILINEAR, antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.RandAugment(), v2.RandomErasing(p=0.25)])
