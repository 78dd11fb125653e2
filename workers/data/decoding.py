"""Images decoded in processes of their own, by the DataLoader of torch, in the order they are asked for."""

import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workers.data.images import Decoder, check_shape
from workers.errors import DataError, OutOfMemory
from workers.process import die_with_parent

_AHEAD = 2
"""Batches that each process has before it."""
_SHARED = "/dev/shm"  # noqa: S108 - where torch hands tensors from one process to another


class Cell(NamedTuple):
    """One encoded image."""

    row: int
    """In its split, from 0."""
    name: str
    """What to call it in a message."""
    encoded: bytes | None


class Job(NamedTuple):
    """The images of one batch."""

    where: str
    """The split and its column, for messages."""
    cells: Sequence[Cell]
    shape: tuple[int, ...] | None = None
    """[C,H,W] that all images must have; None: that of the first one."""


class Pool:
    """Decodes batches in `processes` processes; they start with the first batch and end with this process."""

    def __init__(self, decoder: Decoder, processes: int) -> None:
        self.decoder = decoder
        self._processes = processes
        self._jobs = _Jobs()
        self._loader: DataLoader[Tensor] | None = None
        self._busy = False

    def decode(self, jobs: Iterable[Job]) -> Iterator[Tensor]:
        """For each job its images, [N,C,H,W] uint8, in order. DataError names the image that is damaged.

        While another iteration is not over, or shared memory is scarce, this process decodes itself.
        """
        if self._busy or not self._has_room():
            yield from map(self.decode_here, jobs)
            return
        self._busy = True
        try:
            yield from self._elsewhere(jobs)
        finally:
            self._busy = False

    def decode_here(self, job: Job) -> Tensor:
        """One batch, in threads of this process."""
        with ThreadPoolExecutor(self._processes) as threads:  # Pillow decodes outside the interpreter lock
            decoder = replace(self.decoder, where=job.where)
            arrays = list(threads.map(lambda cell: decoder((cell.name, cell.encoded)), job.cells))
        return _stacked(job, arrays)

    def _elsewhere(self, jobs: Iterable[Job]) -> Iterator[Tensor]:
        self._jobs.waiting = iter(jobs)
        try:
            for found in self._open():
                if isinstance(found, str):
                    raise DataError(found)
                yield found
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            self._loader = None
            raise OutOfMemory(
                "a process that decodes images was killed, most likely for want of memory: lower "
                "fine_tune.batch_size, or SECATEUR_THREADS, of which each decodes"
            ) from error

    def _open(self) -> DataLoader[Tensor]:
        if self._loader is None:
            # a fork would copy the locks of other threads, a spawn would import torch once a process
            context = get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._loader = DataLoader(
                _Decoding(self.decoder),
                batch_sampler=self._jobs,  # type: ignore[arg-type]
                num_workers=self._processes,
                collate_fn=_as_it_is,
                multiprocessing_context=context,
                prefetch_factor=_AHEAD,
                persistent_workers=True,
                worker_init_fn=_begin,
            )
        return self._loader

    def _has_room(self) -> bool:
        with suppress(OSError):
            return shutil.disk_usage(_SHARED).free > 2**30
        return False


class _Jobs:
    """What the DataLoader takes for a sampler of batches: it hands over images instead of numbers."""

    def __init__(self) -> None:
        self.waiting: Iterator[Job] = iter(())

    def __iter__(self) -> Iterator[Job]:
        return self.waiting


class _Decoding(Dataset[Tensor]):
    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __getitems__(self, job: Job) -> Tensor | str:
        """The images of one batch, or what is wrong with one of them: an exception would lose its class."""
        decoder = replace(self._decoder, where=job.where)
        try:
            return _stacked(job, [decoder((cell.name, cell.encoded)) for cell in job.cells])
        except DataError as error:
            return str(error)


def _stacked(job: Job, arrays: Sequence[np.ndarray]) -> Tensor:
    images = np.empty((len(arrays), *(job.shape or arrays[0].shape)), np.uint8)
    for cell, array, image in zip(job.cells, arrays, images, strict=True):
        check_shape(cell.name, array.shape, image.shape, job.where)
        image[:] = array
    return torch.from_numpy(images)


def _as_it_is(found: Any) -> Any:
    return found


def _begin(_: int) -> None:
    """The server that forks the processes ends with the process that has the job, and they end with it."""
    die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
