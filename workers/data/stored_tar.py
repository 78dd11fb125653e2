"""WebDataset shards as a split: an image and a class for each key."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workers.data.decoding import Cell
from workers.data.labels import to_labels
from workers.data.shards import Shard, one_ahead
from workers.data.stored import Group
from workers.data.tar import Member, groups_of
from workers.errors import DataError
from workers.models.loaded import LoadedModel

IMAGES = ("jpg", "jpeg", "png")
_MAX_IMAGE = 256 * 2**20
_MAX_LABEL = 2**20
_ROWS = 256
"""Samples of a group."""


@dataclass(frozen=True)
class _Index:
    """Where the images of a shard are: [rows, 2] offsets and sizes, and their names, one a line."""

    places: np.ndarray
    names: str


@dataclass(frozen=True)
class TarRows:
    """All samples of a split in tar files."""

    where: str
    shards: Sequence[Shard]
    groups: Sequence[Group]
    labels: Tensor
    indexes: Sequence[_Index]
    firsts: Sequence[int]
    """Row number of the first sample of each shard."""

    def read(self, path: Path, groups: Sequence[Group], wanted: np.ndarray) -> Iterator[Cell]:
        """The images of these groups of one shard, which lies at `path`, where `wanted` [rows] says so."""
        if not groups:
            return
        shard = groups[0].shard
        index, first = self.indexes[shard], self.firsts[shard]
        names = index.names.split("\n")
        with path.open("rb") as file:
            for group in groups:
                for row in range(group.first, group.first + group.rows):
                    if wanted[row]:
                        offset, size = map(int, index.places[row - first])
                        name = f"{row} ({self.shards[shard].name}: {names[row - first]})"
                        yield Cell(row, name, os.pread(file.fileno(), size, offset))


def open_tars(
    shards: Sequence[Shard], split: str, model: LoadedModel, *, image: str | None, label: str | None
) -> TarRows:
    """Go through all shards once: where each image is, and its class, checked.

    `image` and `label` are the extensions to use (`image` may name a field of `json` for the label); None:
    what is there of `jpg`, `jpeg`, `png`, and of `cls`, `json` with the field `label`, `txt`. DataError names
    shard and member.
    """
    reader = _Reader(split, model, IMAGES if image is None else (image.lower(),), label)
    groups, labels, indexes, firsts, total = [], [], [], [], 0
    with one_ahead(shards) as paths:
        for number, (shard, path) in enumerate(zip(shards, paths, strict=True)):
            index, classes = reader.index(path, shard.name)
            count = len(classes)
            firsts.append(total)
            groups += [
                Group(number, one, total + start, min(_ROWS, count - start))
                for one, start in enumerate(range(0, count, _ROWS))
            ]
            indexes.append(index)
            labels.append(classes)
            total += count
    if total == 0:
        raise DataError(f"the split '{split}' is empty ({len(shards)} tar files without samples)")
    where = f"the images of the split '{split}'"
    return TarRows(where, shards, groups, torch.cat(labels), indexes, firsts)


@dataclass(frozen=True)
class _Reader:
    split: str
    model: LoadedModel
    images: tuple[str, ...]
    label: str | None

    def index(self, path: Path, shard: str) -> tuple[_Index, Tensor]:
        places, names, values, labelled = [], [], list[object](), list[str]()
        with path.open("rb") as file:
            for key, sample in groups_of(path, shard):
                image = self._image(sample, key, shard)
                places.append((image.offset, image.bytes))
                names.append(image.name.replace("\n", " "))
                member, value = self._label(file.fileno(), sample, key, shard)
                values.append(value)
                labelled.append(member)
        index = _Index(np.array(places, np.int64).reshape(-1, 2), "\n".join(names))
        return index, self._checked(values, labelled, shard)

    def _image(self, sample: dict[str, Member], key: str, shard: str) -> Member:
        found = [sample[kind] for kind in self.images if kind in sample]
        if len(found) != 1:
            what = "no image" if not found else "more than one image"
            raise DataError(
                f"{shard}: the sample '{key}' has {what} (its members: {', '.join(sample)}): give one of "
                f"{', '.join(f'{key}.{kind}' for kind in self.images)}, or set data.input_column"
            )
        if not 0 < found[0].bytes <= _MAX_IMAGE:
            raise DataError(f"{shard}: '{found[0].name}' has {found[0].bytes:,} bytes: remove or replace it")
        return found[0]

    def _label(self, file: int, sample: dict[str, Member], key: str, shard: str) -> tuple[str, object]:
        """The member and its value: a number or the name of a class."""
        kinds = [self.label.lower()] if self.label in sample else ["cls", "json", "txt"]
        member = next((sample[kind] for kind in kinds if kind in sample), None)
        if member is None:
            raise DataError(
                f"{shard}: the sample '{key}' has no label (its members: {', '.join(sample)}): give "
                f"{key}.cls with a class number, {key}.txt with its name, or {key}.json with the field "
                f"'{self.label or 'label'}'"
            )
        if member.bytes > _MAX_LABEL:
            raise DataError(
                f"{shard}: '{member.name}' has {member.bytes:,} bytes; a label has at most {_MAX_LABEL:,}"
            )
        text = os.pread(file, member.bytes, member.offset).decode(errors="replace").strip()
        value = self._field(text, member, shard) if member.kind == "json" else text
        is_number = isinstance(value, str) and value.removeprefix("-").isdecimal() and len(value) < 19
        return member.name, int(value) if is_number else value  # type: ignore[call-overload]

    def _field(self, text: str, member: Member, shard: str) -> object:
        name = self.label if self.label not in (None, "json") else "label"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{shard}: '{member.name}' is not valid JSON ({error}): write it again"
            ) from error
        value = value.get(name) if isinstance(value, dict) else value
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DataError(
                f"{shard}: '{member.name}' has no class number or name as '{name}': set data.label_column"
            )
        return value

    def _checked(self, values: list[object], members: list[str], shard: str) -> Tensor:
        where = f"the labels of {shard}"
        if not values:
            return torch.zeros(0, dtype=torch.int64)
        try:
            return to_labels(values, model=self.model, where=where)
        except DataError:
            for name, value in zip(members, values, strict=True):
                to_labels([value], model=self.model, where=f"{shard}: '{name}'")
            raise
