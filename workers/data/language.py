"""From texts to blocks of tokens, each of which a causal language model predicts from those before it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.refs import DataRef
from workers.data.bundle import Bundle, Split
from workers.data.files import SplitFiles, find_optional_split, find_split
from workers.data.memory import Allowance
from workers.data.normalize import as_they_are
from workers.data.npz import read_arrays
from workers.data.parquet import open_table
from workers.data.text import check_ids, position_limit
from workers.data.tokenizer import open_tokenizer
from workers.errors import DataError
from workers.loss import IGNORED
from workers.models.loaded import LoadedModel

_BYTES_A_TOKEN = 16
"""An id and a label, both int64."""


def load_language(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """The splits `train`, `validation` and, where it is there, `calibration`, as blocks of tokens.

    Parquet: the texts of a split are one stream, each followed by the tokenizer's end-of-sequence token, cut
    into blocks of `spec.max_length` tokens; what is left over at the end goes. `.npz`: the array `input_ids`
    [N,T] is the blocks. `seed` draws `spec.max_train_samples` blocks. DataError says what is wrong.
    """
    reader = _Reader(spec, model, Allowance(max_bytes))
    train = reader.read(find_split(folder, "train"))
    validation = reader.read(find_split(folder, "validation"))
    calibration = find_optional_split(folder, "calibration")
    return Bundle(
        _drawn(train, spec.max_train_samples, seed),
        validation,
        as_they_are,
        None if calibration is None else reader.read(calibration),
    )


def next_tokens(ids: Tensor) -> Tensor:
    """Labels [N,T] of blocks [N,T]: the token after each; the last of a block has none and is ignored."""
    labels = torch.full_like(ids, IGNORED)
    labels[:, :-1] = ids[:, 1:]
    return labels


class _Reader:
    def __init__(self, spec: DataRef, model: LoadedModel, allowance: Allowance) -> None:
        self.spec = spec
        self.model = model
        self.allowance = allowance
        self.length = min(spec.max_length, position_limit(model))
        if self.length < 2:
            raise DataError("data.max_length is 1: a block needs two tokens, one to read and one to predict")

    def read(self, files: SplitFiles) -> Split:
        """One split."""
        if files.is_npz:
            ids, where = self._from_npz(files.paths[0])
        else:
            ids, where = self._from_parquet(files)
        check_ids(ids, self.model, where)
        return Split({"input_ids": ids}, next_tokens(ids))

    def _from_parquet(self, files: SplitFiles) -> tuple[Tensor, str]:
        table = open_table(files, [self.spec.input_name])
        where = table.where(self.spec.input_name)
        stream = self._stream(table.column(self.spec.input_name), where)
        blocks = len(stream) // self.length
        if blocks == 0:
            raise DataError(
                f"{where} has {len(stream)} tokens, fewer than one block of {self.length}: "
                "lower data.max_length, or give more text"
            )
        ids = stream[: blocks * self.length].astype(np.int64).reshape(blocks, self.length)
        return torch.from_numpy(ids), where

    def _stream(self, chunks: Iterable[list[tuple[int, Any]]], where: str) -> np.ndarray:
        """All texts as one array of tokens, int32."""
        tokenizer = open_tokenizer(self.model.folder)
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        pieces: list[np.ndarray] = []
        for chunk in chunks:
            texts = [_text(row, value, where) for row, value in chunk]
            encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            new = [np.asarray(one + end, np.int32) for one in encoded]
            self.allowance.take(sum(map(len, new)) * _BYTES_A_TOKEN, f"{where}: blocks of tokens")
            pieces += new
        return np.concatenate(pieces)

    def _from_npz(self, path: Path) -> tuple[Tensor, str]:
        ids = read_arrays(path, required=["input_ids"], optional=[], allowance=self.allowance)["input_ids"]
        where = f"{path.name}: the array 'input_ids'"
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape[1] < 2:
            raise DataError(
                f"{where} is {ids.dtype} {list(ids.shape)}: give integers [N,T], blocks of two tokens or more"
            )
        self.allowance.take(ids.size * _BYTES_A_TOKEN, where)
        return torch.from_numpy(ids.astype(np.int64)), where


def _text(row: int, value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise DataError(f"{where}: row {row} holds {type(value).__name__} where a text should be: remove the row")


def _drawn(split: Split, limit: int | None, seed: int) -> Split:
    """At most `limit` blocks in their order, drawn with the seed; None: all."""
    if limit is None or limit >= len(split):
        return split
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:limit]
    return split.take(chosen.sort().values)
