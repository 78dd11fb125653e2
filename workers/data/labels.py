"""Labels as the model's head counts them, each one checked against it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from schemas.task import Task
from workers.data.class_names import label2id_of, renumbering
from workers.errors import DataError
from workers.models.folder import listed
from workers.models.loaded import LoadedModel


def to_labels(
    values: Sequence[object] | np.ndarray,
    *,
    model: LoadedModel,
    where: str,
    names: Sequence[str] | None = None,
) -> Tensor:
    """Labels [N] of whole samples: numbers for regression (float32), else classes of the model (int64).

    `names` are the classes as the data set itself numbers them, by `class_names`. DataError as below.
    """
    if model.task is Task.regression:
        return to_numbers(values, where=where)
    known = label2id_of(model.folder)
    order = None if names is None else renumbering(names, known, where=where)
    return to_classes(values, classes=model.classes, label2id=known, where=where, order=order)


def to_classes(
    values: Sequence[object] | np.ndarray,
    *,
    classes: int,
    label2id: Mapping[str, int],
    where: str,
    order: np.ndarray | None = None,
) -> Tensor:
    """Labels [N] int64 in 0..classes-1. Strings go through `label2id`, and numbers through `order`, where it
    is given: the model's number of each class of the data set.

    `where` names the column and the split, for the message; DataError names the first bad row.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{where} has the shape {list(array.shape)}: give one class number a sample")
    if array.dtype.kind in "OUS":
        array = _from_objects(list(values), label2id, where)
    if array.dtype.kind not in "iub":
        raise DataError(f"{where} holds {array.dtype} values: give class numbers as integers")
    if order is not None:
        _check_range(array, len(order), where, "the data set names")
        array = order[array.astype(np.int64)]
    _check_range(array, classes, where, "the model's head has")
    return torch.from_numpy(array.astype(np.int64))


def to_numbers(values: Sequence[object] | np.ndarray, *, where: str) -> Tensor:
    """Labels [N] float32; DataError names the first row that is no finite number."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        array = np.array([_number(row, value, where) for row, value in enumerate(values)])
    if array.ndim != 1:
        raise DataError(f"{where} has the shape {list(array.shape)}: give one number a sample")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        row = int(bad[0])
        raise DataError(f"{where}: row {row} is {values[row]!r}: give a finite number, or remove the row")
    return torch.from_numpy(numbers)


def _number(row: int, value: object, where: str) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise DataError(f"{where}: row {row} is {value!r}: give a number, or remove the row")


def _check_range(array: np.ndarray, classes: int, where: str, owner: str) -> None:
    bad = np.flatnonzero((array < 0) | (array >= classes))
    if bad.size:
        row = int(bad[0])
        raise DataError(
            f"{where}: row {row} is {array[row]}, but {owner} the {classes} classes "
            f"0 to {classes - 1}: correct the labels, or give a model with more classes"
        )


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
