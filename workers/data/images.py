"""From encoded images to one uint8 tensor, as the model's own preprocessing says."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from workers.data.memory import Allowance
from workers.errors import DataError
from workers.models.preprocessing import Preprocessing

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 50_000_000
"""A 60 kB file can unpack to gigabytes of pixels; photographs have fewer than these."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# What Pillow's PNG and JPEG readers raise on damaged files
_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Decoder:
    """Turns the bytes of one image into an array [C,H,W] uint8."""

    preprocessing: Preprocessing
    channels: int
    where: str

    def __call__(self, cell: tuple[int, Any]) -> np.ndarray:
        """Decode a (row, value) pair, the value bytes or `{"bytes": …}`; DataError names the row."""
        row, value = cell
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(encoded, bytes) or not encoded:
            raise DataError(
                f"{self.where}: row {row} holds no image: give the bytes of a PNG or JPEG file, as a binary "
                "column or as struct{bytes, path}"
            )
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                self._check(row, image)
                array = np.asarray(self._fit(image.convert(_MODES[self.channels])))
        except _UNREADABLE as error:
            raise DataError(
                f"{self.where}: row {row} is not a readable PNG or JPEG image ({error}): remove or replace it"
            ) from error
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def _check(self, row: int, image: Image.Image) -> None:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{self.where}: row {row} has {width} x {height} pixels; at most {MAX_PIXELS:,}")
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{self.where}: row {row} has more than 8 bits a channel: give 8-bit images")

    def _fit(self, image: Image.Image) -> Image.Image:
        size, crop = self.preprocessing.size, self.preprocessing.crop
        if size is None or size == (image.height, image.width):
            return image
        filter_ = Image.Resampling(self.preprocessing.resample)
        if crop is None:
            return image.resize((size[1], size[0]), filter_)
        return ImageOps.fit(image, (size[1], size[0]), filter_, bleed=(1 - crop) / 2)


def decode(
    chunks: Iterable[list[tuple[int, Any]]], count: int, decoder: Decoder, allowance: Allowance
) -> Tensor:
    """`count` images as one tensor [N,C,H,W] uint8; the memory is counted before it is taken."""
    if decoder.channels not in _MODES:
        raise DataError(
            f"the model takes {decoder.channels} channels: give arrays in .npz files instead of images"
        )
    stacked = np.empty((0, 0, 0, 0), np.uint8)
    position = 0
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow decodes outside the interpreter lock
        for chunk in chunks:
            for (row, _), array in zip(chunk, pool.map(decoder, chunk), strict=True):
                if position == 0:
                    allowance.take(count * array.nbytes, f"{decoder.where}: {count:,} images")
                    stacked = np.empty((count, *array.shape), np.uint8)
                _check_shape(row, array, stacked, decoder.where)
                stacked[position] = array
                position += 1
    assert position == count
    return torch.from_numpy(stacked)


def _check_shape(row: int, array: np.ndarray, stacked: np.ndarray, where: str) -> None:
    if array.shape != stacked.shape[1:]:
        raise DataError(
            f"{where}: row {row} is {array.shape[1]} x {array.shape[2]}, the first image is "
            f"{stacked.shape[2]} x {stacked.shape[3]}, and the model states no size: set 'size' in "
            "preprocessor_config.json, or give images of one size"
        )
