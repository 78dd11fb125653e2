"""Images with a class for each pixel: pairs of an image and a mask from parquet, or arrays in `.npz`."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from schemas.refs import DataRef
from workers.data.annotated import Size, decode_annotated, encoded_bytes
from workers.data.arrays import to_images
from workers.data.bundle import Bundle, Split
from workers.data.files import SplitFiles
from workers.data.images import MAX_PIXELS, UNREADABLE, Decoder, fitted
from workers.data.memory import Allowance
from workers.data.normalize import Normalize
from workers.data.npz import read_arrays
from workers.data.parquet import open_table
from workers.data.rows import choose, together
from workers.data.splits import needs_parquet, read_splits
from workers.errors import DataError
from workers.loss import IGNORED
from workers.models.folder import PREPROCESSOR, read_json
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import Preprocessing, read_preprocessing

FORMATS = ("PNG", "TIFF", "GIF", "BMP")
"""Formats that keep numbers as they are. JPEG does not."""
VOID = 255
"""A pixel without a class, as ADE20k, Cityscapes and Pascal VOC have it."""
_LARGEST = 2**15 - 1
"""Class numbers are kept in 16 bits: in 64, a mask would take more memory than its image."""


def load_masked(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """The splits with `pixel_values` [N, C, H, W] uint8 and labels [N, H, W] int16, `IGNORED` where 255 says
    that there is no class. Masks are resized as their images are, without mixing numbers.

    A `preprocessor_config.json` with `do_reduce_labels` takes 0 for no class, and 1 for the first one.
    """
    preprocessing = read_preprocessing(model.folder, model.image_channels)
    reader = _Reader(spec, model, preprocessing, Allowance(max_bytes), seed, _reduces(model.folder))
    return read_splits(folder, spec, reader.read, transform=Normalize(preprocessing))


@dataclass(frozen=True)
class _Reader:
    spec: DataRef
    model: LoadedModel
    preprocessing: Preprocessing
    allowance: Allowance
    seed: int
    reduces: bool

    def read(self, files: SplitFiles, limit: int | None) -> Split:
        """One split; with `limit` so many of its samples, in the order of the files."""
        return self._from_npz(files, limit) if files.is_npz else self._from_parquet(files, limit)

    def _from_parquet(self, files: SplitFiles, limit: int | None) -> Split:
        needs_parquet(files, self.spec.task)
        image, label = self.spec.input_name, self.spec.label_name
        table = open_table(files, [image, label])
        chosen = choose(table.rows, limit, self.seed)
        rows = np.arange(table.rows) if chosen is None else chosen
        masks = _Masks(len(rows), self.allowance, table.where(label))
        images = decode_annotated(
            together(table, [image, label], chosen),
            len(rows),
            Decoder(self.preprocessing, self.model.image_channels, table.where(image)),
            self.allowance,
            annotate=MaskDecoder(self.preprocessing, table.where(label)),
            keep=masks.keep,
        )
        return self._split(images, masks.stacked, rows, table.where(label))

    def _from_npz(self, files: SplitFiles, limit: int | None) -> Split:
        path, image, label = files.paths[0], self.spec.input_name, self.spec.label_name
        arrays = read_arrays(path, required=[image, label], optional=[], allowance=self.allowance)
        chosen = choose(len(arrays[label]), limit, self.seed)
        rows = np.arange(len(arrays[label])) if chosen is None else chosen
        pixels, masks = arrays[image][rows], arrays[label][rows]
        where = f"{path.name}: the array '{label}'"
        if masks.dtype.kind not in "iu" or masks.ndim != 3 or masks.shape[1:] != pixels.shape[1:3]:
            raise DataError(
                f"{where} is {masks.dtype} {list(masks.shape)}, and the images are {list(pixels.shape)}: "
                "give a class number for each pixel, as integers [N,H,W]"
            )
        for row, mask in zip(rows, masks, strict=True):
            _check_numbers(mask, f"{where}: row {row}")
        images = to_images(
            pixels,
            preprocessing=self.preprocessing,
            channels=self.model.image_channels,
            where=f"{path.name}: the array '{image}'",
            allowance=self.allowance,
        )
        self.allowance.take(2 * len(images) * images.shape[2] * images.shape[3], where)
        return self._split(images, _fitted(masks, images, self.preprocessing), rows, where)

    def _split(self, images: Tensor, masks: np.ndarray, rows: np.ndarray, where: str) -> Split:
        for row, mask in zip(rows, masks, strict=True):
            _to_classes(mask, self.reduces)
            bad = mask[(mask != IGNORED) & ((mask < 0) | (mask >= self.model.classes))]
            if bad.size:
                found = int(bad[0]) + int(self.reduces)
                raise DataError(
                    f"{where}: row {row} has a pixel of class {found}, but the model's head has the "
                    f"{self.model.classes} classes {int(self.reduces)} to "
                    f"{self.model.classes - 1 + int(self.reduces)}, and {VOID} stands for none: correct the "
                    "masks, or give a model with more classes"
                )
        if not any((mask != IGNORED).any() for mask in masks):
            raise DataError(f"{where}: no pixel has a class: give masks with class numbers")
        return Split({"pixel_values": images}, torch.from_numpy(masks))


@dataclass(frozen=True)
class MaskDecoder:
    """Turns the bytes of one mask into class numbers [H, W]: grey values, or places in a palette."""

    preprocessing: Preprocessing
    where: str

    def __call__(self, row: int, cell: Any, size: Size) -> np.ndarray:
        """Decode one mask, of an image of `size`; DataError names the row."""
        try:
            with Image.open(io.BytesIO(encoded_bytes(cell)), formats=FORMATS) as mask:
                self._check(row, mask, size)
                fitted = fit_mask(mask, self.preprocessing)
                array = np.asarray(fitted)
        except UNREADABLE as error:
            raise DataError(
                f"{self.where}: row {row} is not a readable mask ({error}): give a PNG file of one channel"
            ) from error
        _check_numbers(array, f"{self.where}: row {row}")
        return array.astype(np.int16)

    def _check(self, row: int, mask: Image.Image, size: Size) -> None:
        if mask.width * mask.height > MAX_PIXELS:
            raise DataError(
                f"{self.where}: row {row} has {mask.width} x {mask.height} pixels; at most {MAX_PIXELS:,}"
            )
        if mask.mode not in ("1", "L", "P", "I", "I;16"):
            raise DataError(
                f"{self.where}: row {row} is an image of the mode {mask.mode}: give masks of one channel "
                "that hold class numbers"
            )
        if mask.size != size:
            raise DataError(
                f"{self.where}: row {row} is {mask.height} x {mask.width}, its image {size[1]} x {size[0]}: "
                "give masks of their images' sizes"
            )


def fit_mask(mask: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The mask as the image is resized and cut, each pixel with the number of the nearest one."""
    size, crop = preprocessing.size, preprocessing.crop
    if size is None or size == (mask.height, mask.width):
        return mask
    nearest = Image.Resampling.NEAREST
    if crop is None:
        return mask.resize((size[1], size[0]), nearest)
    return fitted(mask, preprocessing, nearest)


class _Masks:
    """The masks of a split, one array that is taken once the first mask is there."""

    def __init__(self, count: int, allowance: Allowance, where: str) -> None:
        self.stacked = np.empty((count, 0, 0), np.int16)
        self._allowance = allowance
        self._where = where

    def keep(self, position: int, mask: np.ndarray) -> None:
        """Masks are of their images' sizes, which are all the same."""
        if position == 0:
            count = len(self.stacked)
            self._allowance.take(count * mask.nbytes, f"{self._where}: {count:,} masks")
            self.stacked = np.empty((count, *mask.shape), np.int16)
        self.stacked[position] = mask


def _fitted(masks: np.ndarray, images: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    height, width = images.shape[2:]
    fitted = np.empty((len(masks), height, width), np.int16)
    for row, mask in enumerate(masks):
        fitted[row] = np.asarray(fit_mask(Image.fromarray(mask.astype(np.int32), "I"), preprocessing))
    return fitted


def _check_numbers(mask: np.ndarray, where: str) -> None:
    """DataError for what 16 bits would wrap around to another class."""
    for number in (mask.min(initial=0), mask.max(initial=0)):
        if not 0 <= number <= _LARGEST:
            raise DataError(f"{where} has a pixel of class {number}: give numbers from 0 to {_LARGEST}")


def _to_classes(mask: np.ndarray, reduces: bool) -> None:
    """In place: no class to `IGNORED`, and with `reduces` one less for the others."""
    void = mask == VOID
    if reduces:
        void |= mask == 0
        mask -= 1
    mask[void] = IGNORED


def _reduces(folder: Path) -> bool:
    stated = read_json(folder, PREPROCESSOR) or {}
    # the older of the two names is in the files of BEiT and SegFormer on the hub
    return bool(stated.get("do_reduce_labels", stated.get("reduce_labels", False)))
