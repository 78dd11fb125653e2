"""Labels as class numbers, each one checked against the model's head."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from workers.errors import DataError
from workers.models.folder import listed


def to_classes(
    values: Sequence[object] | np.ndarray, *, classes: int, label2id: Mapping[str, int], where: str
) -> Tensor:
    """Labels [N] int64 in 0..classes-1. Strings go through `label2id`; DataError names the first bad row.

    `where` names the column and the split, for the message.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{where} has the shape {list(array.shape)}: give one class number a sample")
    if array.dtype.kind in "OUS":
        array = _from_objects(list(values), label2id, where)
    if array.dtype.kind not in "iub":
        raise DataError(f"{where} holds {array.dtype} values: give class numbers as integers")
    bad = np.flatnonzero((array < 0) | (array >= classes))
    if bad.size:
        row = int(bad[0])
        raise DataError(
            f"{where}: row {row} is {array[row]}, but the model's head has the {classes} classes "
            f"0 to {classes - 1}: correct the labels, or give a model with more classes"
        )
    return torch.from_numpy(array.astype(np.int64))


def _from_objects(values: list[object], label2id: Mapping[str, int], where: str) -> np.ndarray:
    numbers = np.empty(len(values), np.int64)
    for row, value in enumerate(values):
        if isinstance(value, str) and value in label2id:
            numbers[row] = label2id[value]
        elif isinstance(value, int):
            numbers[row] = value
        else:
            raise DataError(f"{where}: row {row} is {value!r}{_remedy(value, label2id)}")
    return numbers


def _remedy(value: object, label2id: Mapping[str, int]) -> str:
    if value is None:
        return ": every sample needs a label"
    known = f"knows {listed(label2id)}" if label2id else "has no label2id"
    return f", and the model's config.json {known}: give class numbers, or these names in config.label2id"
