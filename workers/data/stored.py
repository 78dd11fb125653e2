"""Images and their labels in shards, read group by group: what parquet and tar files have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from workers.data.decoding import Cell
from workers.data.shards import Shard


@dataclass(frozen=True)
class Group:
    """Neighbouring samples of one shard that are read together."""

    shard: int
    number: int
    """In its shard, from 0."""
    first: int
    """Row number of its first sample, counted over the whole split."""
    rows: int


class Stored(Protocol):
    """A split whose labels are known and whose images are read when they are needed."""

    @property
    def where(self) -> str:
        """The split and its column, for messages."""

    @property
    def shards(self) -> Sequence[Shard]:
        """In the order of the rows."""

    @property
    def groups(self) -> Sequence[Group]:
        """In the order of the rows, all of them."""

    @property
    def labels(self) -> Tensor:
        """Of all rows."""

    def read(self, path: Path, groups: Sequence[Group], wanted: np.ndarray) -> Iterator[Cell]:
        """The images of these groups of one shard, which lies at `path`, where `wanted` [rows] says so."""
