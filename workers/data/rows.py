"""Which rows of a split are used, and their columns side by side."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from workers.data.parquet import Table


def choose(rows: int, limit: int | None, seed: int) -> np.ndarray | None:
    """Row numbers in order, drawn with the seed; None: all rows."""
    if limit is None or limit >= rows:
        return None
    drawn: np.ndarray = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:limit].numpy()
    return np.sort(drawn)


def together(
    table: Table, columns: Sequence[str], chosen: np.ndarray | None, *, at_a_time: int = 256
) -> Iterator[list[tuple[int, tuple[Any, ...]]]]:
    """Chunks of (row number, one value of each of `columns`), in order; with `chosen` only those rows."""
    streams = [chain.from_iterable(table.column(name, chosen)) for name in columns]
    chunk = []
    for cells in zip(*streams, strict=True):
        chunk.append((cells[0][0], tuple(value for _, value in cells)))
        if len(chunk) == at_a_time:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
