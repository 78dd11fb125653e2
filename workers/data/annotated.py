"""Images and what is said of places in them, decoded together: the size of the file belongs to both."""

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workers.data.images import Decoder
from workers.data.memory import Allowance
from workers.errors import DataError

Size = tuple[int, int]
"""Width and height of an image file."""
T = TypeVar("T")


def decode_annotated(
    chunks: Iterable[list[tuple[int, tuple[Any, ...]]]],
    count: int,
    image: Decoder,
    allowance: Allowance,
    *,
    annotate: Callable[[int, Any, Size], T],
    keep: Callable[[int, T], None],
) -> Tensor:
    """`count` images as one tensor [N, C, H, W] uint8, from chunks of (row, (image cell, other cell)).

    `annotate(row, other cell, size)` runs in threads, `keep(position, what it gave)` in the order of rows.
    DataError names the row.
    """

    def both(cells: tuple[int, tuple[Any, ...]]) -> tuple[np.ndarray, T]:
        row, (encoded, other) = cells
        return image((row, encoded)), annotate(row, other, _size(encoded))

    stacked = np.empty((0, 0, 0, 0), np.uint8)
    position = 0
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow decodes outside the interpreter lock
        for chunk in chunks:
            for (row, _), (pixels, annotation) in zip(chunk, pool.map(both, chunk), strict=True):
                if position == 0:
                    allowance.take(count * pixels.nbytes, f"{image.where}: {count:,} images")
                    stacked = np.empty((count, *pixels.shape), np.uint8)
                if pixels.shape != stacked.shape[1:]:
                    raise _unequal(row, pixels.shape, stacked.shape[1:], image.where)
                stacked[position] = pixels
                keep(position, annotation)
                position += 1
    return torch.from_numpy(stacked)


def encoded_bytes(cell: Any) -> bytes:
    """The bytes of the file in a cell, b"" for none."""
    value = cell.get("bytes") if isinstance(cell, dict) else cell
    return value if isinstance(value, bytes) else b""


def _size(cell: Any) -> Size:
    with Image.open(io.BytesIO(encoded_bytes(cell))) as header:  # the decoder has read it already
        width, height = header.size
    return width, height


def _unequal(row: int, shape: tuple[int, ...], first: tuple[int, ...], where: str) -> DataError:
    return DataError(
        f"{where}: row {row} is {shape[1]} x {shape[2]}, the first image is {first[1]} x {first[2]}, and the "
        "model states no size: set 'input_size' in a torchvision config.json, 'size' in "
        "preprocessor_config.json, or give images of one size"
    )
