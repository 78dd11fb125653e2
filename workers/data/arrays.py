"""From the arrays of an `.npz` file to the inputs of a model."""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from workers.data.memory import Allowance
from workers.data.text import check_ids
from workers.errors import DataError
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import Preprocessing


def to_images(
    array: np.ndarray, *, preprocessing: Preprocessing, channels: int, where: str, allowance: Allowance
) -> Tensor:
    """[N,H,W] or [N,H,W,C] to [N,C,H,W]: uint8 is resized as the model says, floats are already normalized.

    DataError for another type or shape, NaN, or more memory than is allowed.
    """
    if array.ndim not in (3, 4):
        raise DataError(f"{where} has the shape {list(array.shape)}: give [N,H,W] or [N,H,W,C]")
    images = torch.from_numpy(array[..., None] if array.ndim == 3 else array).permute(0, 3, 1, 2)
    if array.dtype.kind == "f":
        images = _checked_floats(images, preprocessing.size, where)
    elif array.dtype != np.uint8:
        raise DataError(
            f"{where} holds {array.dtype} values: give uint8 from 0 to 255, or normalized float32"
        )
    if images.shape[1] not in (1, channels):
        raise DataError(
            f"{where} has {images.shape[1]} channels, the model takes {channels}: "
            "give [N,H,W,C] with the channels last"
        )
    if images.shape[1] != channels or preprocessing.size not in (None, tuple(images.shape[2:])):
        height, width = preprocessing.size or images.shape[2:]
        size = len(images) * channels * height * width * images.element_size()
        allowance.take(size, f"{where} at {height} x {width} x {channels}")
        images = _fit(images, preprocessing).expand(-1, channels, -1, -1)
    return images.contiguous()


def to_tokens(arrays: dict[str, np.ndarray], model: LoadedModel, where: str) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` [N,T] as int64; without a mask every token counts."""
    ids = arrays["input_ids"]
    mask = arrays.get("attention_mask", np.ones(ids.shape, np.int64))
    for name, array in (("input_ids", ids), ("attention_mask", mask)):
        if array.ndim != 2 or array.dtype.kind not in "iub" or array.shape != ids.shape:
            raise DataError(
                f"{where}: '{name}' is {array.dtype} {list(array.shape)}: "
                "give integers [N,T], both of one shape"
            )
    tokens = torch.from_numpy(ids.astype(np.int64))
    check_ids(tokens, model, where)
    return {"input_ids": tokens, "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def _checked_floats(images: Tensor, size: tuple[int, int] | None, where: str) -> Tensor:
    images = images.to(torch.float32)
    bad = (~torch.isfinite(images)).flatten(1).any(dim=1).nonzero()
    if len(bad):
        raise DataError(f"{where}: row {int(bad[0])} holds NaN or infinity: remove or correct it")
    if size not in (None, tuple(images.shape[2:])):
        raise DataError(
            f"{where} is {images.shape[2]} x {images.shape[3]}, the model takes {size}: "
            "floats are not resized"
        )
    return images


def _fit(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    size = preprocessing.size
    if size is None or size == tuple(images.shape[2:]):
        return images
    bilinear = InterpolationMode.BILINEAR
    grown: Tensor = resize(images, list(preprocessing.resized(*images.shape[2:])), bilinear, antialias=True)
    top, left = preprocessing.corner(*grown.shape[2:])
    return grown[..., top : top + size[0], left : left + size[1]]
