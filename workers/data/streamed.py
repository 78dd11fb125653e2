"""A split of images that does not lie in memory: read from its shards, decoded on the way."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, islice
from math import prod

import numpy as np
import torch
from torch import Tensor

from workers.data.bundle import Split
from workers.data.decoding import Cell, Job, Pool
from workers.data.memory import Allowance
from workers.data.rows import choose
from workers.data.shards import one_ahead
from workers.data.shuffle import random_of, shuffled
from workers.data.stored import Group, Stored

MOST_TAKEN = 2 * 2**30
"""Bytes that samples to measure by may take."""
_DECODE_AT_A_TIME = 256


@dataclass(eq=False)
class StreamedSplit:
    """Samples with uint8 `pixel_values`, of which `rows` are used (sorted row numbers of `stored`).

    Without `shuffle` the order is that of the rows. With it, shards come in random order, within a shard its
    groups of rows, and samples go through a shuffle buffer: the same generator gives the same order, and each
    sample comes once. `take` reads what it was asked for into memory, and keeps what it read last.
    """

    stored: Stored
    rows: np.ndarray
    pool: Pool
    max_taken: int
    """Bytes that `take` may take."""
    _last: tuple[Tensor, Split] | None = field(default=None, init=False, repr=False)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """[C,H,W] of each image, which is that of the first one."""
        cells = self._cells(self.stored.groups, self._wanted(self.rows[:1]))
        return tuple(self.pool.decode_here(Job(self.stored.where, list(cells))).shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the label of one sample; () for a class number."""
        return ()

    def take(self, index: Tensor) -> Split:
        """The samples at `index`, in its order, in memory. DataError where they take more than is allowed."""
        if self._last is None or not torch.equal(self._last[0], index):
            self._last = (index.clone(), self._read(index))
        return self._last[1]

    def first(self, count: int) -> Split:
        """The first `count` samples, or all where there are fewer, in memory."""
        return self.take(torch.arange(min(count, len(self))))

    def batches(self, size: int, shuffle: torch.Generator | None) -> Iterator[Split]:
        """Batches of `size`, the last may be short; `shuffle`: random order, the last short one dropped."""
        wanted = self._wanted(self.rows)
        if shuffle is None:
            cells = self._cells(self.stored.groups, wanted)
        else:
            random = random_of(shuffle)
            cells = shuffled(self._cells(self._mixed(random), wanted), random, size_of=_size)
        jobs = _batched(cells, size, last=shuffle is None)
        rows: deque[list[int]] = deque()
        for images in self.pool.decode(self._told(jobs, rows)):
            yield Split({"pixel_values": images}, self.stored.labels[rows.popleft()])

    def _told(self, jobs: Iterable[list[Cell]], rows: deque[list[int]]) -> Iterator[Job]:
        """The jobs; the rows of each are put into `rows`, since batches come back in order."""
        for cells in jobs:
            rows.append([cell.row for cell in cells])
            yield Job(self.stored.where, cells, self.shape)

    def _mixed(self, random: np.random.Generator) -> list[Group]:
        by_shard = [list(groups) for _, groups in groupby(self.stored.groups, lambda group: group.shard)]
        shards = [by_shard[number] for number in random.permutation(len(by_shard))]
        return [groups[number] for groups in shards for number in random.permutation(len(groups))]

    def _wanted(self, rows: np.ndarray) -> np.ndarray:
        wanted = np.zeros(len(self.stored.labels), np.bool_)
        wanted[rows] = True
        return wanted

    def _cells(self, groups: Iterable[Group], wanted: np.ndarray) -> Iterator[Cell]:
        """The images of `groups` in their order, those of one shard side by side."""
        needed = [group for group in groups if wanted[group.first : group.first + group.rows].any()]
        by_shard = [list(found) for _, found in groupby(needed, lambda group: group.shard)]
        shards = [self.stored.shards[found[0].shard] for found in by_shard]
        with one_ahead(shards) as paths:
            for path, found in zip(paths, by_shard, strict=True):
                yield from self.stored.read(path, found, wanted)

    def _read(self, index: Tensor) -> Split:
        rows = self.rows[index.numpy()]
        labels = self.stored.labels[torch.from_numpy(rows)]
        distinct, places = np.unique(rows, return_inverse=True)
        needed = len(distinct) * prod(self.shape)
        Allowance(self.max_taken).take(needed, f"{self.stored.where}: {len(distinct):,} images at once")
        images = torch.empty((len(distinct), *self.shape), dtype=torch.uint8)
        cells = self._cells(self.stored.groups, self._wanted(distinct))
        for start, chunk in enumerate(_batched(cells, _DECODE_AT_A_TIME, last=True)):
            found = self.pool.decode_here(Job(self.stored.where, chunk, self.shape))
            images[start * _DECODE_AT_A_TIME :][: len(found)] = found
        in_order = np.array_equal(places, np.arange(len(rows)))
        return Split({"pixel_values": images if in_order else images[torch.from_numpy(places)]}, labels)


def stream(
    stored: Stored, pool: Pool, *, limit: int | None, seed: int, stream_bytes: int, allowance: Allowance
) -> StreamedSplit | Split:
    """The split, or with `limit` so many of its samples, drawn as from any other; in memory where its images
    have at most `stream_bytes` once they are decoded, and are counted against `allowance` then."""
    total = len(stored.labels)
    chosen = choose(total, limit, seed)
    rows = np.arange(total) if chosen is None else chosen
    split = StreamedSplit(stored, rows, pool, max_taken=max(stream_bytes, MOST_TAKEN))
    needed = len(split) * prod(split.shape)
    if needed > stream_bytes:
        return split
    allowance.take(needed, f"{stored.where}: {len(split):,} images")
    return split.first(len(split))


def _size(cell: Cell) -> int:
    return len(cell.encoded or b"")


def _batched(cells: Iterator[Cell], size: int, *, last: bool) -> Iterator[list[Cell]]:
    while chunk := list(islice(cells, size)):
        if len(chunk) == size or last:
            yield chunk
