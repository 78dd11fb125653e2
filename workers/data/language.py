"""From texts to blocks of tokens, which a language model predicts: the next one, or those that are hidden."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.refs import DataRef
from schemas.task import Task
from workers.data.bundle import Bundle, Split
from workers.data.files import SplitFiles
from workers.data.masking import mask_some
from workers.data.memory import Allowance
from workers.data.npz import read_arrays
from workers.data.parquet import Table, open_table
from workers.data.plain_text import pieces
from workers.data.rows import choose
from workers.data.splits import read_splits
from workers.data.text import check_ids, position_limit, text_of
from workers.data.tokenizer import open_tokenizer
from workers.errors import DataError
from workers.loss import IGNORED
from workers.models.loaded import LoadedModel

_BYTES_A_TOKEN = 16
"""An id and a label, both int64."""


def load_language(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """The splits `train`, `validation` and, where it is there, `calibration`, as blocks of tokens.

    Parquet: the texts of a split are one stream, each followed by the tokenizer's end-of-sequence token, cut
    into blocks of `spec.max_length` tokens; what is left over at the end goes. Text files: each is one text.
    `.npz`: the array `input_ids` [N,T] is the blocks. For a masked language model each text, or line of a
    text file, has the special tokens that its tokenizer gives it, and `mask_some` hides some tokens. `seed`
    draws `spec.max_train_samples` blocks. DataError says what is wrong.
    """
    reader = _Reader(spec, model, seed, Allowance(max_bytes))
    return read_splits(folder, spec, reader.read)


def next_tokens(ids: Tensor) -> Tensor:
    """Labels [N,T] of blocks [N,T]: the token after each; the last of a block has none and is ignored."""
    labels = torch.full_like(ids, IGNORED)
    labels[:, :-1] = ids[:, 1:]
    return labels


class _Reader:
    def __init__(self, spec: DataRef, model: LoadedModel, seed: int, allowance: Allowance) -> None:
        self.spec = spec
        self.model = model
        self.seed = seed
        self.allowance = allowance
        self.guesses = spec.task is Task.masked_lm
        self.length = min(spec.max_length, position_limit(model))
        if self.length < 2:
            raise DataError("data.max_length is 1: a block needs two tokens, one to read and one to predict")

    def read(self, files: SplitFiles, limit: int | None) -> Split:
        """One split; with `limit` so many of its blocks."""
        if files.is_npz:
            ids, where = self._from_npz(files.paths[0])
        else:
            ids, where = self._from_texts(files)
        check_ids(ids, self.model, where)
        chosen = choose(len(ids), limit, self.seed)
        if chosen is not None:
            ids = ids[torch.from_numpy(chosen)]
        if self.guesses:
            ids, labels = mask_some(ids, open_tokenizer(self.model.folder), self.seed)
            return Split({"input_ids": ids}, labels)
        return Split({"input_ids": ids}, next_tokens(ids))

    def _from_texts(self, files: SplitFiles) -> tuple[Tensor, str]:
        if files.is_text:
            where = f"the split '{files.split}'"
            stream = self._stream(self._of_files(files, where), where)
        else:
            table = open_table(files, [self.spec.input_name])
            where = table.where(self.spec.input_name)
            stream = self._stream(self._of_rows(table, where), where)
        blocks = len(stream) // self.length
        if blocks == 0:
            raise DataError(
                f"{where} has {len(stream)} tokens, fewer than one block of {self.length}: "
                "lower data.max_length, or give more text"
            )
        ids = stream[: blocks * self.length].astype(np.int64).reshape(blocks, self.length)
        return torch.from_numpy(ids), where

    def _stream(self, pieces: Iterable[list[list[int]]], where: str) -> np.ndarray:
        """All texts as one array of tokens, int32."""
        arrays: list[np.ndarray] = [np.empty(0, np.int32)]
        for piece in pieces:
            new = [np.asarray(one, np.int32) for one in piece]
            self.allowance.take(sum(map(len, new)) * _BYTES_A_TOKEN, f"{where}: blocks of tokens")
            arrays += new
        return np.concatenate(arrays)

    def _of_rows(self, table: Table, where: str) -> Iterator[list[list[int]]]:
        tokenizer, end = self._tokenizer()
        for chunk in table.column(self.spec.input_name):
            texts = [text_of(row, value, where) for row, value in chunk]
            encoded = tokenizer(texts, add_special_tokens=self.guesses, verbose=False)["input_ids"]
            yield [one + end for one in encoded]

    def _of_files(self, files: SplitFiles, where: str) -> Iterator[list[list[int]]]:
        tokenizer, end = self._tokenizer()
        for path in files.paths:
            for piece in pieces(path):
                texts = [line for line in piece.splitlines() if line.strip()] if self.guesses else [piece]
                if texts:
                    yield tokenizer(texts, add_special_tokens=self.guesses, verbose=False)["input_ids"]
            yield [end]

    def _tokenizer(self) -> tuple[Any, list[int]]:
        """The tokenizer, and what comes after each text; one of a masked model ends texts by itself."""
        tokenizer = open_tokenizer(self.model.folder)
        has_none = self.guesses or tokenizer.eos_token_id is None
        return tokenizer, [] if has_none else [tokenizer.eos_token_id]

    def _from_npz(self, path: Path) -> tuple[Tensor, str]:
        ids = read_arrays(path, required=["input_ids"], optional=[], allowance=self.allowance)["input_ids"]
        where = f"{path.name}: the array 'input_ids'"
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape[1] < 2:
            raise DataError(
                f"{where} is {ids.dtype} {list(ids.shape)}: give integers [N,T], blocks of two tokens or more"
            )
        self.allowance.take(ids.size * _BYTES_A_TOKEN, where)
        return torch.from_numpy(ids.astype(np.int64)), where
