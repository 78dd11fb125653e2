"""Sounds with one class each, as the model's own feature extractor gives them to the model."""

import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from transformers import AutoFeatureExtractor

from schemas.refs import DataRef
from workers.data.bundle import Bundle, Split
from workers.data.class_names import class_names
from workers.data.files import SplitFiles
from workers.data.labels import to_labels
from workers.data.memory import Allowance
from workers.data.npz import read_arrays
from workers.data.parquet import open_table
from workers.data.rows import choose, together
from workers.data.splits import read_splits
from workers.errors import DataError, ModelError
from workers.models.folder import PREPROCESSOR, names_in, read_json
from workers.models.loaded import LoadedModel

_MAGIC = ((b"RIFF", 0), (b"WAVE", 8)), ((b"fLaC", 0),)
"""How a WAV and a FLAC file begin; libsndfile reads more, with code that is tried less."""
MAX_RATE = 1_000_000
MAX_CHANNELS = 8
"""A header may state a thousand, each of which takes memory."""
_BAD_VALUES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
"""What the library's extractors raise on settings that make no sense."""


def load_audio(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """Splits of parquet files with WAV or FLAC files, or of `.npz` arrays [N, samples] of floats, which have
    the model's own sampling rate. Sounds longer than `spec.max_seconds` are cut; shorter ones are padded to
    the longest of their split. DataError names the row that is wrong.
    """
    reader = _Reader(spec, model, seed, Allowance(max_bytes))
    return read_splits(folder, spec, reader.read)


def open_extractor(folder: Path) -> Any:
    """The feature extractor that `preprocessor_config.json` states; ModelError when it is not there, is
    broken, or would run code."""
    if read_json(folder, PREPROCESSOR) is None:
        raise ModelError(
            f"the model folder has no {PREPROCESSOR} (it holds {names_in(folder)}), which states the "
            "sampling rate: add it with feature_extractor.save_pretrained"
        )
    try:
        extractor = AutoFeatureExtractor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (*_BAD_VALUES, OSError, ImportError) as error:
        raise ModelError(
            f"{PREPROCESSOR} is not valid ({error}): save it again with feature_extractor.save_pretrained"
        ) from error
    rate = getattr(extractor, "sampling_rate", None)
    if not isinstance(rate, int) or not 1 <= rate <= MAX_RATE:
        raise ModelError(f"{PREPROCESSOR}: set 'sampling_rate' to the samples a second of the model's sounds")
    return extractor


class _Reader:
    def __init__(self, spec: DataRef, model: LoadedModel, seed: int, allowance: Allowance) -> None:
        self.spec = spec
        self.model = model
        self.seed = seed
        self.allowance = allowance
        self.extractor = open_extractor(model.folder)
        self.longest = round(spec.max_seconds * self.extractor.sampling_rate)
        self.takes = inspect.signature(model.module.forward).parameters.keys()

    def read(self, files: SplitFiles, limit: int | None) -> Split:
        """One split; with `limit` so many of its sounds."""
        where = f"column '{self.spec.input_name}' of the split '{files.split}'"
        found: dict[str, list[np.ndarray]] = {}
        labels: list[Any] = []
        waves = self._from_npz if files.is_npz else self._from_parquet
        for row, wave, label in waves(files, limit, where):
            labels.append(label)
            for name, value in self._features(row, wave, where).items():
                self.allowance.take(value.nbytes, f"{where}: features of sounds")
                found.setdefault(name, []).append(value)
        of_labels = f"column '{self.spec.label_name}' of the split '{files.split}'"
        names = None if files.is_npz else class_names(files.paths, self.spec.label_name)
        return Split(
            {name: self._stacked(values, where) for name, values in found.items()},
            to_labels(labels, model=self.model, where=of_labels, names=names),
        )

    def _from_parquet(
        self, files: SplitFiles, limit: int | None, where: str
    ) -> Iterator[tuple[int, np.ndarray, Any]]:
        columns = [self.spec.input_name, self.spec.label_name]
        table = open_table(files, columns)
        for chunk in together(table, columns, choose(table.rows, limit, self.seed), at_a_time=32):
            for row, (sound, label) in chunk:
                yield row, decode(row, sound, self.extractor.sampling_rate, self.longest, where), label

    def _from_npz(
        self, files: SplitFiles, limit: int | None, where: str
    ) -> Iterator[tuple[int, np.ndarray, Any]]:
        names = [self.spec.input_name, self.spec.label_name]
        arrays = read_arrays(files.paths[0], required=names, optional=[], allowance=self.allowance)
        sounds, labels = (arrays[name] for name in names)
        if sounds.ndim != 2 or sounds.dtype.kind != "f":
            raise DataError(
                f"{files.paths[0].name}: the array '{names[0]}' is {sounds.dtype} {list(sounds.shape)}: give "
                "floats from -1 to 1, [N, samples]"
            )
        chosen = choose(len(sounds), limit, self.seed)
        for row in range(len(sounds)) if chosen is None else chosen.tolist():
            yield row, _checked(row, sounds[row, : self.longest].astype(np.float32), where), labels[row]

    def _features(self, row: int, wave: np.ndarray, where: str) -> dict[str, np.ndarray]:
        """The model's inputs of one sound, without the axis of samples."""
        try:
            found = self.extractor(wave, sampling_rate=self.extractor.sampling_rate, return_tensors="np")
        except _BAD_VALUES as error:
            raise DataError(f"{where}: row {row} gives no features ({error}): remove the row") from error
        return {name: value[0] for name, value in found.items() if name in self.takes}

    def _stacked(self, values: list[np.ndarray], where: str) -> Tensor:
        """[N, …], padded at the end of the first axis: time, of raw sound and of features that vary."""
        longest = max(len(one) for one in values)
        size = len(values) * longest * values[0][:1].nbytes
        self.allowance.take(size, f"{where}: {len(values):,} sounds, padded to {longest}")
        filled = np.zeros((len(values), longest, *values[0].shape[1:]), values[0].dtype)
        for row, one in zip(filled, values, strict=True):
            row[: len(one)] = one
        return torch.from_numpy(filled if filled.dtype.kind == "f" else filled.astype(np.int64))


def decode(row: int, value: Any, rate: int, longest: int, where: str) -> np.ndarray:
    """The first `longest` samples [L] float32 of a WAV or FLAC file, channels averaged.

    `value` is its bytes, or `{"bytes": …}`. DataError names a row that is neither, or has another rate.
    """
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes) or not any(
        all(encoded[at : at + len(magic)] == magic for magic, at in one) for one in _MAGIC
    ):
        raise DataError(
            f"{where}: row {row} holds no WAV or FLAC file: give its bytes, as a binary column or as "
            "struct{bytes, path}"
        )
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            _check_header(row, file.samplerate, file.channels, rate, where)
            wave = file.read(longest, dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(
            f"{where}: row {row} is not a readable sound ({error}): remove or replace it"
        ) from error
    return _checked(row, wave, where)


def _check_header(row: int, found: int, channels: int, rate: int, where: str) -> None:
    if found != rate:
        raise DataError(
            f"{where}: row {row} has {found} samples a second, the model takes {rate}: "
            f"resample the sounds to {rate} first"
        )
    if channels > MAX_CHANNELS:
        raise DataError(f"{where}: row {row} has {channels} channels: give at most {MAX_CHANNELS}")


def _checked(row: int, wave: np.ndarray, where: str) -> np.ndarray:
    if not len(wave) or not np.isfinite(wave).all():
        raise DataError(f"{where}: row {row} is empty, or holds NaN or infinity: remove or correct it")
    return wave
