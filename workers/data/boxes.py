"""Images with boxes around objects, from parquet as the hub's data sets have them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.refs import DataRef
from workers.data.annotated import Size, decode_annotated
from workers.data.bundle import Bundle, Split
from workers.data.class_names import class_names, label2id_of, renumbering
from workers.data.files import SplitFiles
from workers.data.images import Decoder
from workers.data.memory import Allowance
from workers.data.normalize import Normalize
from workers.data.parquet import open_table
from workers.data.rows import choose, together
from workers.data.splits import needs_parquet, read_splits
from workers.errors import DataError
from workers.models.folder import listed
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import Preprocessing, read_preprocessing
from workers.tasks.detection import NO_OBJECT, Detection

BOXES = ("bbox", "bboxes", "boxes")
CATEGORIES = ("category", "categories", "category_id", "label", "labels")
"""Names in the column of objects, as the hub's data sets have them."""
CROWD = "iscrowd"
MAX_OBJECTS = 1000
"""Of one image: the labels of a split have as many rows for each image as the fullest one."""
_BEYOND = 0.1
"""Share of a side by which a box may leave its image; labels of people do, by a few pixels."""

Rows = list[tuple[float, float, float, float, float]]
"""A class, then centre, width and height as shares of the image."""


def load_boxes(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """The splits with `pixel_values` [N, C, H, W] uint8 and labels [N, M, 5] as `Detection` takes them.

    A cell of the label column is `{bbox: [[x, y, width, height], …], category: [class, …]}` in pixels of the
    image file, or a list of such objects; with `iscrowd`, where that is there. Images are squeezed to the
    model's size, and boxes with them. Boxes without area are left out.
    """
    preprocessing = replace(read_preprocessing(model.folder, model.image_channels), crop=None)
    kind = model.kind
    if not isinstance(kind, Detection):
        raise DataError("data.task 'detection': the model's own task does not take boxes: give another task")
    reader = _Reader(spec, model, kind, preprocessing, Allowance(max_bytes), seed)
    return read_splits(folder, spec, reader.read, transform=Normalize(preprocessing))


@dataclass(frozen=True)
class _Reader:
    spec: DataRef
    model: LoadedModel
    kind: Detection
    preprocessing: Preprocessing
    allowance: Allowance
    seed: int

    def read(self, files: SplitFiles, limit: int | None) -> Split:
        """One split; with `limit` so many of its samples, in the order of the files."""
        needs_parquet(files, self.spec.task)
        image, label = self.spec.input_name, self.spec.label_name
        table = open_table(files, [image, label])
        chosen = choose(table.rows, limit, self.seed)
        count = table.rows if chosen is None else len(chosen)
        where = table.where(label)
        parser = _Parser(self.model, self.kind, where, class_names(files.paths, label))
        found: list[Rows] = []
        images = decode_annotated(
            together(table, [image, label], chosen),
            count,
            Decoder(self.preprocessing, self.model.image_channels, table.where(image)),
            self.allowance,
            annotate=parser,
            keep=lambda _, rows: found.append(rows),
        )
        if not any(found):
            raise DataError(f"{where}: no image has an object: give boxes and their classes")
        most = max(map(len, found))
        self.allowance.take(count * most * 5 * 4, f"{where}: {most} objects for each of {count:,} images")
        return Split({"pixel_values": images}, _padded(found, most))


def _padded(found: Sequence[Rows], most: int) -> torch.Tensor:
    labels = torch.zeros(len(found), most, 5)
    labels[..., 0] = NO_OBJECT
    for place, rows in zip(labels, found, strict=True):
        if rows:
            place[: len(rows)] = torch.tensor(rows)
    return labels


class _Parser:
    """From one cell of objects to rows of labels; DataError names the row of the data."""

    def __init__(self, model: LoadedModel, kind: Detection, where: str, names: list[str] | None) -> None:
        self._where = where
        self._classes = model.classes
        self._first, self._offset = kind.first_class, kind.class_offset
        self._by_name = label2id_of(model.folder)
        self._order = None if names is None else renumbering(names, self._by_name, where=where)

    def __call__(self, row: int, cell: Any, size: Size) -> Rows:
        where = f"{self._where}: row {row}"
        boxes, categories, crowds = _columns(cell, where)
        if len(boxes) > MAX_OBJECTS:
            raise DataError(f"{where} has {len(boxes)} objects; at most {MAX_OBJECTS} are read")
        rows = []
        for box, category, crowd in zip(boxes, categories, crowds, strict=True):
            number = self._class(category, where)
            shares = _shares(box, size, where)
            if shares is not None:
                rows.append((float(-2 - number if crowd else number), *shares))
        return rows

    def _class(self, category: object, where: str) -> int:
        if isinstance(category, str) and category in self._by_name:
            number = self._by_name[category]
        elif isinstance(category, int) and not isinstance(category, bool):
            number = self._renumbered(category, where)
        else:
            raise DataError(
                f"{where} has an object of class {category!r}: give class numbers, or names that label2id of "
                "config.json has"
            )
        if not self._first <= number < self._classes:
            hint = " (class 0 is the background: 'class_offset': 1 in config.json makes room for it)"
            raise DataError(
                f"{where} has an object of class {category}, but the model's head has the classes "
                f"{self._first} to {self._classes - 1}{hint if self._first else ''}: correct the labels, or "
                "give a model with more classes"
            )
        return number

    def _renumbered(self, category: int, where: str) -> int:
        if self._order is None:
            return category + self._offset
        if not 0 <= category < len(self._order):
            raise DataError(
                f"{where} has an object of class {category}; the data set names {len(self._order)}"
            )
        return int(self._order[category]) + self._offset


def _columns(cell: Any, where: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Boxes, classes and crowds of an image, whichever of the two ways they are stored in."""
    if isinstance(cell, list) and all(isinstance(one, dict) for one in cell):
        keys = {key for one in cell for key in one}
        cell = {key: [one.get(key) for one in cell] for key in keys}
        if not cell:
            return [], [], []
    if not isinstance(cell, dict):
        raise DataError(f"{where} holds {type(cell).__name__}: give {{bbox: [[x, y, width, height], …], …}}")
    boxes, categories = (_one_of(cell, keys, where) for keys in (BOXES, CATEGORIES))
    crowds = cell.get(CROWD)
    if crowds is None:
        crowds = [0] * len(boxes)
    if not len(boxes) == len(categories) == len(crowds):
        raise DataError(f"{where} has {len(boxes)} boxes and {len(categories)} classes: give one each")
    return boxes, categories, crowds


def _one_of(cell: dict[str, Any], keys: Sequence[str], where: str) -> list[Any]:
    for key in keys:
        if isinstance(cell.get(key), list):
            return list(cell[key])
    raise DataError(f"{where} has no list '{keys[0]}' (it has {listed(map(repr, cell), 12)}): give one")


def _shares(box: Any, size: Size, where: str) -> tuple[float, float, float, float] | None:
    """Centre, width and height as shares of the image, cut at its edges; None for a box without area."""
    values = np.asarray(box, dtype=np.float64) if _four_numbers(box) else None
    if values is None:
        raise DataError(f"{where} has the box {box!r}: give [x, y, width, height] in pixels")
    corners = np.concatenate([values[:2], values[:2] + values[2:]])
    limits = np.array([*size, *size], np.float64)
    margin = 1 + _BEYOND * limits
    if (corners < -margin).any() or (corners > limits + margin).any():
        raise DataError(
            f"{where} has the box {[round(float(one), 2) for one in values]}, which leaves its image of "
            f"{size[0]} x {size[1]} pixels: give [x, y, width, height] in pixels of the image"
        )
    left, top, right, bottom = np.clip(corners, 0, limits) / limits
    if right <= left or bottom <= top:
        return None
    return float((left + right) / 2), float((top + bottom) / 2), float(right - left), float(bottom - top)


def _four_numbers(box: Any) -> bool:
    return (
        isinstance(box, list | tuple)
        and len(box) == 4
        and all(isinstance(one, int | float) and math.isfinite(one) for one in box)
    )
