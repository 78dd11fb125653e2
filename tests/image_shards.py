"""Image data sets in shards: the same PNG images as parquet files or as WebDataset tars."""

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tests import tiny


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of plain files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add(tar, name, data)
    return path


def members_of(pixels: np.ndarray, labels: Sequence[int], first: int = 0) -> list[tuple[str, bytes]]:
    """`000000.png` and `000000.cls` and so on."""
    members = []
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True), first):
        members += [(f"{number:06}.png", tiny.png(image)), (f"{number:06}.cls", str(label).encode())]
    return members


def image_tars(
    folder: Path, *, samples: int = 90, shards: int = 3, split: str = "train", seed: int = 1
) -> Path:
    """`{split}-000000.tar` and so on; the shards differ in length by one sample or more."""
    pixels, labels = tiny.images(samples, seed=seed)
    for number, rows in enumerate(np.array_split(np.arange(samples), shards)):
        members = members_of(pixels[rows], labels[rows], int(rows[0]))
        write_tar(folder / f"{split}-{number:06}.tar", members)
    return folder


def image_parquets(
    folder: Path, *, samples: int = 90, shards: int = 3, split: str = "train", seed: int = 1
) -> Path:
    """`{split}-00000-of-00003.parquet` and so on, with several row groups each."""
    pixels, labels = tiny.images(samples, seed=seed)
    for number, rows in enumerate(np.array_split(np.arange(samples), shards)):
        cells = [{"bytes": tiny.png(pixels[row]), "path": f"{row}.png"} for row in rows]
        path = folder / f"{split}-{number:05}-of-{shards:05}.parquet"
        tiny.write_parquet(path, image=cells, label=labels[rows])
    return folder
