"""Images or texts with one class each, from parquet or `.npz`, every sample checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.refs import DataRef
from workers.data.arrays import to_images, to_tokens
from workers.data.bundle import Bundle, Split
from workers.data.class_names import class_names
from workers.data.files import SplitFiles, find_optional_split, find_split
from workers.data.images import Decoder, decode
from workers.data.labels import to_labels
from workers.data.memory import Allowance
from workers.data.normalize import Normalize, as_they_are
from workers.data.npz import read_arrays
from workers.data.parquet import open_table
from workers.data.rows import choose
from workers.data.text import check_ids, tokenize
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import Preprocessing, read_preprocessing


def load_labelled(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """Whole samples with a class each: images or texts, from parquet or `.npz`."""
    reader = LabelledReader(spec, model, Allowance(max_bytes))
    train_files, validation_files = find_optional_split(folder, "train"), find_split(folder, "validation")
    train = reader.read(train_files, spec.max_train_samples, seed) if train_files else None
    validation = reader.read(validation_files, None, seed)
    calibration_files = find_optional_split(folder, "calibration")
    return Bundle(
        validation.first(0) if train is None else train,
        validation,
        as_they_are if reader.preprocessing is None else Normalize(reader.preprocessing),
        None if calibration_files is None else reader.read(calibration_files, None, seed),
    )


class LabelledReader:
    """Reads the splits of one data set into memory, within an allowance of bytes for all of them."""

    def __init__(self, spec: DataRef, model: LoadedModel, allowance: Allowance) -> None:
        self.spec = spec
        self.model = model
        self.allowance = allowance
        self.preprocessing: Preprocessing | None = None
        if model.image_channels:
            stated = read_preprocessing(model.folder, model.image_channels)
            self.preprocessing = replace(stated, size=stated.size or model.image_size)

    def read(self, files: SplitFiles, limit: int | None, seed: int) -> Split:
        """One split; with `limit` so many of its samples, in the order of the files."""
        return self._from_npz(files, limit, seed) if files.is_npz else self._from_parquet(files, limit, seed)

    def _from_parquet(self, files: SplitFiles, limit: int | None, seed: int) -> Split:
        table = open_table(files, [self.spec.input_name, self.spec.label_name])
        labels_of = [value for chunk in table.column(self.spec.label_name) for _, value in chunk]
        labels = self._labels(labels_of, files)
        chosen = choose(table.rows, limit, seed)
        chunks = table.column(self.spec.input_name, chosen)
        where = table.where(self.spec.input_name)
        if self.preprocessing is None:
            inputs = tokenize(
                chunks,
                model=self.model,
                max_length=self.spec.max_length,
                where=where,
                allowance=self.allowance,
            )
            check_ids(inputs["input_ids"], self.model, where)
        else:
            decoder = Decoder(self.preprocessing, self.model.image_channels, where)
            count = table.rows if chosen is None else len(chosen)
            inputs = {"pixel_values": decode(chunks, count, decoder, self.allowance)}
        return Split(inputs, labels if chosen is None else labels[torch.from_numpy(chosen)])

    def _from_npz(self, files: SplitFiles, limit: int | None, seed: int) -> Split:
        path, label_column = files.paths[0], self.spec.label_name
        name = "input_ids" if self.preprocessing is None else self.spec.input_name
        arrays = read_arrays(
            path,
            required=[name, label_column],
            optional=["attention_mask"] if self.preprocessing is None else [],
            allowance=self.allowance,
        )
        labels = self._labels(arrays.pop(label_column), files)
        chosen = choose(len(labels), limit, seed)
        if chosen is not None:
            arrays = {key: array[chosen] for key, array in arrays.items()}
            labels = labels[torch.from_numpy(chosen)]
        return Split(self._inputs_of(arrays, name, path), labels)

    def _inputs_of(self, arrays: dict[str, np.ndarray], name: str, path: Path) -> dict[str, Tensor]:
        where = f"{path.name}: the array '{name}'"
        if self.preprocessing is None:
            return to_tokens(arrays, self.model, where)
        images = to_images(
            arrays[name],
            preprocessing=self.preprocessing,
            channels=self.model.image_channels,
            where=where,
            allowance=self.allowance,
        )
        return {"pixel_values": images}

    def _labels(self, values: Any, files: SplitFiles) -> Tensor:
        where = f"column '{self.spec.label_name}' of the split '{files.split}'"
        names = None if files.is_npz else class_names(files.paths, self.spec.label_name)
        return to_labels(values, model=self.model, where=where, names=names)
