"""The splits of a data folder, each read by one function."""

from collections.abc import Callable
from pathlib import Path

from schemas.refs import DataRef
from schemas.task import Task
from workers.data.bundle import Bundle, Split, Transform
from workers.data.files import SplitFiles, find_optional_split, find_split
from workers.data.normalize import as_they_are
from workers.errors import DataError

ReadSplit = Callable[[SplitFiles, int | None], Split]
"""From the files of a split and the most samples to take, or None for all, to the split."""


def read_splits(
    folder: Path, spec: DataRef, read: ReadSplit, *, transform: Transform = as_they_are
) -> Bundle:
    """`train`, at most `spec.max_train_samples` of it and empty where it is not there, `validation`, and
    `calibration` where it is there."""
    train_files, validation_files = find_optional_split(folder, "train"), find_split(folder, "validation")
    train = read(train_files, spec.max_train_samples) if train_files else None
    validation = read(validation_files, None)
    calibration = find_optional_split(folder, "calibration")
    return Bundle(
        validation.first(0) if train is None else train,
        validation,
        transform,
        None if calibration is None else read(calibration, None),
    )


def needs_parquet(files: SplitFiles, task: Task) -> None:
    """DataError where a split is neither parquet nor anything else that `task` can be read from."""
    if files.is_npz or files.is_text:
        raise DataError(
            f"task '{task}' reads parquet files, and the split '{files.split}' is {files.paths[0].name}: "
            f"give {files.split}.parquet"
        )
