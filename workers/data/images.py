"""From encoded images to one uint8 tensor, as the model's own preprocessing says."""

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from workers.data.memory import Allowance
from workers.errors import DataError
from workers.models.preprocessing import Preprocessing

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 50_000_000
"""A 60 kB file can unpack to gigabytes of pixels; photographs have fewer than these."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What Pillow's readers raise on damaged files."""


@dataclass(frozen=True)
class Decoder:
    """Turns the bytes of one image into an array [C,H,W] uint8."""

    preprocessing: Preprocessing
    channels: int
    where: str

    def __call__(self, cell: tuple[int | str, Any]) -> np.ndarray:
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
                mode = _MODES[self.channels]
                array = np.asarray(self._fit(image if image.mode == mode else image.convert(mode)))
        except UNREADABLE as error:
            raise DataError(
                f"{self.where}: row {row} is not a readable PNG or JPEG image ({error}): remove or replace it"
            ) from error
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def _check(self, row: int | str, image: Image.Image) -> None:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{self.where}: row {row} has {width} x {height} pixels; at most {MAX_PIXELS:,}")
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{self.where}: row {row} has more than 8 bits a channel: give 8-bit images")

    def _fit(self, image: Image.Image) -> Image.Image:
        return fitted(image, self.preprocessing, Image.Resampling(self.preprocessing.resample))


def fitted(image: Image.Image, preprocessing: Preprocessing, filter_: Image.Resampling) -> Image.Image:
    """The image at the model's size: resized, and the centre cut out, as the model's own library does it."""
    size = preprocessing.size
    if size is None or (size == (image.height, image.width) and preprocessing.crop in (None, 1.0)):
        return image
    height, width = preprocessing.resized(image.height, image.width)
    grown = image.resize((width, height), filter_)
    if (height, width) == size:
        return grown
    top, left = preprocessing.corner(height, width)
    return grown.crop((left, top, left + size[1], top + size[0]))


def decode(
    chunks: Iterable[list[tuple[int, Any]]], count: int, decoder: Decoder, allowance: Allowance
) -> Tensor:
    """`count` images as one tensor [N,C,H,W] uint8; the memory is counted before it is taken."""
    refuse_channels(decoder.channels)
    stacked = np.empty((0, 0, 0, 0), np.uint8)
    position = 0
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow decodes outside the interpreter lock
        for chunk in chunks:
            for (row, _), array in zip(chunk, pool.map(decoder, chunk), strict=True):
                if position == 0:
                    allowance.take(count * array.nbytes, f"{decoder.where}: {count:,} images")
                    stacked = np.empty((count, *array.shape), np.uint8)
                check_shape(row, array.shape, stacked.shape[1:], decoder.where)
                stacked[position] = array
                position += 1
    assert position == count
    return torch.from_numpy(stacked)


def refuse_channels(channels: int) -> None:
    """DataError where no image file has so many channels."""
    if channels not in _MODES:
        raise DataError(f"the model takes {channels} channels: give arrays in .npz files instead of images")


def check_shape(row: int | str, found: Sequence[int], first: Sequence[int], where: str) -> None:
    """DataError where an image [C,H,W] is not of the shape of the first one."""
    if tuple(found) != tuple(first):
        raise DataError(
            f"{where}: row {row} is {found[1]} x {found[2]}, the first image is {first[1]} x {first[2]}, and "
            "the model states no size: set 'size' in preprocessor_config.json, or give images of one size"
        )
