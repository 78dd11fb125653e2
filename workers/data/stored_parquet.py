"""Parquet shards as a split of images: labels first, images when they are needed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from torch import Tensor

from workers.data.class_names import class_names
from workers.data.decoding import Cell
from workers.data.labels import to_labels
from workers.data.parquet import BROKEN, MAX_ROWS, broken, refuse_missing
from workers.data.shards import Shard
from workers.data.stored import Group
from workers.errors import DataError
from workers.models.loaded import LoadedModel

_ROWS_AT_A_TIME = 128
_FOOTERS = 8
"""Shards whose footers and labels are read at a time: each is a few small requests."""


@dataclass(frozen=True)
class ParquetRows:
    """All rows of a split; a group is a row group."""

    where: str
    shards: Sequence[Shard]
    groups: Sequence[Group]
    labels: Tensor
    column: str

    def read(self, path: Path, groups: Sequence[Group], wanted: np.ndarray) -> Iterator[Cell]:
        """The images of these groups of one shard, which lies at `path`, where `wanted` [rows] says so."""
        name = self.shards[groups[0].shard].name if groups else path.name
        with _opened(path, name) as file:
            for group in groups:
                row = group.first
                for batch in file.iter_batches(
                    _ROWS_AT_A_TIME, row_groups=[group.number], columns=[self.column], use_threads=False
                ):
                    kept = np.flatnonzero(wanted[row : row + len(batch)])
                    values = _encoded(batch.column(0), kept)
                    for number, encoded in zip((kept + row).tolist(), values, strict=True):
                        yield Cell(number, str(number), encoded)
                    row += len(batch)


def open_parquet(
    shards: Sequence[Shard], split: str, model: LoadedModel, *, image: str, label: str
) -> ParquetRows:
    """Read footers and labels of all shards, not the images. DataError names the file or the row."""
    with ThreadPoolExecutor(_FOOTERS) as threads:
        read = list(threads.map(lambda shard: _labels(shard, image, label), shards))
    groups, total = [], 0
    for number, (sizes, _) in enumerate(read):
        for one, rows in enumerate(sizes):
            groups.append(Group(number, one, total, rows))
            total += rows
    if total == 0:
        raise DataError(f"the split '{split}' is empty ({len(shards)} parquet files without rows)")
    where = f"column '{label}' of the split '{split}'"
    values = [value for _, found in read for value in found]
    names = class_names([shard.peek() for shard in shards], label)
    labels = to_labels(values, model=model, where=where, names=names)
    return ParquetRows(f"column '{image}' of the split '{split}'", shards, groups, labels, image)


def _labels(shard: Shard, image: str, label: str) -> tuple[list[int], list[Any]]:
    """Rows of each row group, and the labels of all."""
    with shard.peek() as stream, _opened(stream, shard.name) as file:
        refuse_missing(file.schema_arrow.names, (image, label), shard.name)
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        if sum(sizes) > MAX_ROWS:
            raise DataError(f"{shard.name} has {sum(sizes):,} rows; at most {MAX_ROWS:,} are read")
        values = file.read(columns=[label], use_threads=False).column(0).to_pylist()
        if len(values) != sum(sizes):
            raise broken(shard.name, ValueError(f"{len(values):,} labels in {sum(sizes):,} rows"))
        return sizes, values


def _encoded(column: pyarrow.Array, kept: np.ndarray) -> list[Any]:
    """The bytes of an image column, be it binary or struct{bytes, path}."""
    if pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    wanted = column if len(kept) == len(column) else column.take(pyarrow.array(kept))
    values: list[Any] = wanted.to_pylist()
    return values


@contextmanager
def _opened(source: Any, name: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    try:
        with pyarrow.parquet.ParquetFile(source, memory_map=isinstance(source, Path)) as file:
            yield file
    except BROKEN as error:
        raise broken(name, error) from error
