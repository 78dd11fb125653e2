"""Sentences as lists of words, with a class for each word."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schemas.refs import DataRef
from workers.data.bundle import Bundle, Split
from workers.data.class_names import class_names, label2id_of, renumbering
from workers.data.files import SplitFiles
from workers.data.labels import to_classes
from workers.data.memory import Allowance
from workers.data.parquet import Table, open_table
from workers.data.rows import choose, together
from workers.data.splits import needs_parquet, read_splits
from workers.data.text import (
    check_ids,
    load_fast_tokenizer,
    longest_input,
    padded,
    padded_inputs,
    text_of,
)
from workers.errors import DataError
from workers.loss import IGNORED
from workers.models.loaded import LoadedModel


def load_tokens(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """Splits of parquet files with a list of words and a list of their classes, numbers or names.

    A word's class is the label of its first token; its other tokens are `IGNORED`. Words beyond
    `spec.max_length` tokens are cut. DataError names the row that is wrong.
    """
    reader = _Reader(spec, model, seed, Allowance(max_bytes))
    return read_splits(folder, spec, reader.read)


class _Reader:
    def __init__(self, spec: DataRef, model: LoadedModel, seed: int, allowance: Allowance) -> None:
        self.spec = spec
        self.model = model
        self.seed = seed
        self.allowance = allowance
        self.tokenizer = load_fast_tokenizer(model)
        if getattr(self.tokenizer, "add_prefix_space", None) is False:
            # a byte-level tokenizer takes words one by one only with the space that is before each
            self.tokenizer = load_fast_tokenizer(model, add_prefix_space=True)
        self.length = longest_input(self.tokenizer, model, spec.max_length)
        self.label2id = label2id_of(model.folder)

    def read(self, files: SplitFiles, limit: int | None) -> Split:
        """One split; with `limit` so many of its sentences."""
        needs_parquet(files, self.spec.task)
        names = [self.spec.input_name, self.spec.label_name]
        table = open_table(files, names)
        where = table.where(names[0])
        order = self._order(table)
        ids: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for chunk in together(table, names, choose(table.rows, limit, self.seed)):
            sentences = [_words(row, cells[0], where) for row, cells in chunk]
            classes = [self._classes(row, cells, order, table.where(names[1])) for row, cells in chunk]
            encoded = self.tokenizer(
                sentences, is_split_into_words=True, truncation=True, max_length=self.length
            )
            for encoding, of_words in zip(encoded.encodings, classes, strict=True):
                of_tokens = first_pieces(encoding.word_ids, of_words)
                if (of_tokens != IGNORED).any():  # an empty sentence has nothing to learn from
                    ids.append(np.asarray(encoding.ids, np.int32))
                    labels.append(of_tokens)
        if not ids:
            raise DataError(f"{where} has no words: give sentences")
        inputs = padded_inputs({"input_ids": ids}, self.tokenizer, where=where, allowance=self.allowance)
        check_ids(inputs["input_ids"], self.model, where)
        left = self.tokenizer.padding_side == "left"
        length = inputs["input_ids"].shape[1]
        return Split(inputs, padded(labels, length, fill=IGNORED, left=left))

    def _order(self, table: Table) -> np.ndarray | None:
        names = class_names(table.files.paths, self.spec.label_name)
        where = table.where(self.spec.label_name)
        return None if names is None else renumbering(names, self.label2id, where=where)

    def _classes(self, row: int, cells: tuple[Any, ...], order: np.ndarray | None, where: str) -> np.ndarray:
        words, tags = cells
        if not isinstance(tags, list) or len(tags) != len(words):
            found = f"{len(tags)} classes" if isinstance(tags, list) else repr(tags)
            raise DataError(f"{where}: row {row} has {len(words)} words and {found}: give one for each word")
        if not tags:
            return np.empty(0, np.int64)
        classes = to_classes(
            tags,
            classes=self.model.classes,
            label2id=self.label2id,
            where=f"{where}: row {row}: the list",
            order=order,
        )
        numbers: np.ndarray = classes.numpy()
        return numbers


def first_pieces(word_ids: Sequence[int | None], classes: np.ndarray) -> np.ndarray:
    """Labels [T] of the tokens of a sentence: a word's class for its first token, else `IGNORED`."""
    labels = np.full(len(word_ids), IGNORED, np.int64)
    before = None
    for token, word in enumerate(word_ids):
        if word is not None and word != before:
            labels[token] = classes[word]
        before = word
    return labels


def _words(row: int, value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise DataError(
            f"{where}: row {row} holds {type(value).__name__} where a list of words should be: "
            "give the words of each sentence as a list"
        )
    return [text_of(row, word, where) for word in value]
