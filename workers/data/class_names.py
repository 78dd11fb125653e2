"""The names of classes, by which a data set and a model that number them differently agree."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow
import pyarrow.parquet

from workers.errors import DataError
from workers.models.folder import listed, read_config

_METADATA = b"huggingface"
"""Key in a parquet file's schema under which the `datasets` library keeps its features, as JSON."""
_PLACEHOLDER = re.compile(r"LABEL_\d+$")
"""What transformers calls a class that nobody named."""


def class_names(paths: Sequence[Path | IO[bytes]], column: str) -> list[str] | None:
    """The classes of `column` in the order of their numbers, as the parquet files say; None: they do not.

    A column of lists says it of what is in the lists. DataError where two files differ.
    """
    found = [_names_in(path, column) for path in paths]
    for path, names in zip(paths, found, strict=True):
        if names != found[0]:
            raise DataError(
                f"{path.name} names other classes of '{column}' than {paths[0].name}: "
                "write all files of the split with one order of classes"
            )
    return found[0] if found else None


def label2id_of(folder: Path) -> dict[str, int]:
    """The model's classes by name: `label2id` of config.json, or `id2label`, or timm's `label_names`, or
    nothing."""
    config = read_config(folder)
    named = config.get("label2id")
    if not isinstance(named, dict):
        by_number = config.get("id2label")
        entries = config.get("label_names")
        listed_names = entries if isinstance(entries, list) else []
        by_number = by_number if isinstance(by_number, dict) else dict(enumerate(listed_names))
        named = {name: number for number, name in by_number.items()}
    return {str(name): int(number) for name, number in named.items() if _is_number(number)}


def renumbering(names: Sequence[str], label2id: Mapping[str, int], *, where: str) -> np.ndarray | None:
    """The model's number for each class of the data set, [classes] int64; None: nobody named the model's.

    Names are compared without case, spaces, underscores and hyphens. DataError where the model does not know
    one of them: numbers alone would say something else.
    """
    if all(_PLACEHOLDER.match(name) for name in label2id):
        return None
    if all(name in label2id for name in names):
        return np.array([label2id[name] for name in names], np.int64)
    known = {_plain(name): number for name, number in label2id.items()}
    unknown = [name for name in names if _plain(name) not in known]
    if unknown or len(known) != len(label2id):
        raise DataError(
            f"{where} has the class {listed(map(repr, unknown or names))}, which the model does not know; it "
            f"has {listed(map(repr, label2id))}: write the data set's names in id2label and label2id of "
            "config.json, in the order of the model's outputs"
        )
    return np.array([known[_plain(name)] for name in names], np.int64)


def _names_in(path: Path | IO[bytes], column: str) -> list[str] | None:
    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        features = json.loads(metadata.get(_METADATA, b"{}"))["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError, OSError, pyarrow.ArrowException):
        return None  # another writer's metadata; that the file can be read at all is checked elsewhere
    named = [names for names in _class_labels(features.get(column) if isinstance(features, dict) else None)]
    return named[0] if named else None


def _class_labels(feature: Any) -> Iterator[list[str]]:
    """Of a feature, or of what its lists and structs hold: `[{…}]`, `feature` of a Sequence or List."""
    if isinstance(feature, list):
        for inner in feature:
            yield from _class_labels(inner)
    elif isinstance(feature, dict):
        names = feature.get("names")
        if feature.get("_type") == "ClassLabel" and isinstance(names, list):
            yield [str(name) for name in names]
        else:
            for inner in feature.values():
                yield from _class_labels(inner)


def _is_number(value: object) -> bool:
    """Whether it can be the number of a class."""
    if isinstance(value, str):
        return value.isdecimal() and len(value) < 10
    return isinstance(value, int) and 0 <= value < 2**31


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
