"""Questions, texts and where in them the answers are, as SQuAD has them: windows of tokens."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.refs import DataRef
from workers.data.bundle import Bundle, Split
from workers.data.files import SplitFiles
from workers.data.memory import Allowance
from workers.data.parquet import open_table
from workers.data.rows import choose, together
from workers.data.splits import needs_parquet, read_splits
from workers.data.text import check_ids, load_fast_tokenizer, longest_input, padded_inputs, text_of
from workers.errors import DataError
from workers.models.loaded import LoadedModel
from workers.tasks.answers import NO_ANSWER, Window, pack

CONTEXT = "context"
"""The column of the texts."""
_OVERLAP = 3
"""A window begins with the last third of the one before, so that an answer is whole in one of them."""
_OUTSIDE = -1


def load_answers(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """Splits of parquet files with a question, a `context`, and `answers` {text, answer_start}.

    A text that is too long for `spec.max_length` becomes several samples; `spec.max_train_samples` counts
    questions. A question without answers is one that the text does not answer. DataError names the row where
    an answer is not where it says.
    """
    reader = _Reader(spec, model, seed, Allowance(max_bytes))
    return read_splits(folder, spec, reader.read)


@dataclass(frozen=True)
class _Asked:
    """One row; `spans` are the answers' first characters and those after their last."""

    row: int
    question: str
    context: str
    spans: tuple[tuple[int, int], ...]

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self.context[start:end] for start, end in self.spans) or NO_ANSWER


class _Reader:
    def __init__(self, spec: DataRef, model: LoadedModel, seed: int, allowance: Allowance) -> None:
        self.spec = spec
        self.model = model
        self.seed = seed
        self.allowance = allowance
        self.tokenizer = load_fast_tokenizer(model)
        self.length = longest_input(self.tokenizer, model, spec.max_length)
        self.left = self.tokenizer.padding_side == "left"
        takes = inspect.signature(model.module.forward).parameters
        names = self.tokenizer.model_input_names
        self.has_types = "token_type_ids" in names and "token_type_ids" in takes

    def read(self, files: SplitFiles, limit: int | None) -> Split:
        """One split; with `limit` the windows of so many questions."""
        needs_parquet(files, self.spec.task)
        names = [self.spec.input_name, CONTEXT, self.spec.label_name]
        table = open_table(files, names)
        where = table.where(self.spec.input_name)
        ids: list[np.ndarray] = []
        types: list[np.ndarray] = []
        windows: list[Window] = []
        for chunk in together(table, names, choose(table.rows, limit, self.seed)):
            asked = [_asked(row, cells, files.split, names) for row, cells in chunk]
            for encoding, one in self._encodings(asked, where):
                ids.append(np.asarray(encoding.ids, np.int32))
                types.append(np.asarray(encoding.type_ids, np.int8))
                windows.append(self._window(encoding, one))
        columns = {"input_ids": ids} | ({"token_type_ids": types} if self.has_types else {})
        inputs = padded_inputs(columns, self.tokenizer, where=where, allowance=self.allowance)
        check_ids(inputs["input_ids"], self.model, where)
        labels = pack(windows, inputs["input_ids"].shape[1], left=self.left)
        self.allowance.take(labels.nbytes, f"{where}: {len(windows):,} windows with their texts")
        return Split(inputs, labels)

    def _encodings(self, asked: Sequence[_Asked], where: str) -> Iterator[tuple[Any, _Asked]]:
        """The windows of some rows, each with its row; XLNet and others that pad on the left read the text
        before the question."""
        stride = self.length // _OVERLAP
        questions, contexts = [one.question.lstrip() for one in asked], [one.context for one in asked]
        self._check_room(asked, stride, where)
        encoded = self.tokenizer(
            *((contexts, questions) if self.left else (questions, contexts)),
            truncation="only_first" if self.left else "only_second",
            max_length=self.length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for encoding, number in zip(encoded.encodings, encoded["overflow_to_sample_mapping"], strict=True):
            yield encoding, asked[number]

    def _check_room(self, asked: Sequence[_Asked], stride: int, where: str) -> None:
        specials = self.tokenizer.num_special_tokens_to_add(pair=True)
        room = self.length - stride - specials - 1
        questions = self.tokenizer([one.question.lstrip() for one in asked], add_special_tokens=False)
        for one, ids in zip(asked, questions["input_ids"], strict=True):
            if len(ids) > room:
                raise DataError(
                    f"{where}: row {one.row}: the question has {len(ids)} tokens, which leaves too few of "
                    f"{self.length} for the text: raise data.max_length, or shorten the question"
                )

    def _window(self, encoding: Any, asked: _Asked) -> Window:
        of_text = np.array(encoding.sequence_ids, object) == (0 if self.left else 1)
        offsets = np.asarray(encoding.offsets, np.int32).reshape(-1, 2).T.copy()
        places = np.flatnonzero(of_text & (offsets[1] > offsets[0]))
        offsets[:, ~np.isin(np.arange(len(of_text)), places)] = _OUTSIDE
        class_id = self.tokenizer.cls_token_id
        class_token = encoding.ids.index(class_id) if class_id in encoding.ids else 0
        first = last = class_token
        begin = end = 0
        if len(places):
            begin, end = int(offsets[0, places[0]]), int(offsets[1, places[-1]])
            if asked.spans and begin <= asked.spans[0][0] and asked.spans[0][1] <= end:
                first = int(places[np.searchsorted(offsets[0, places], asked.spans[0][0], side="right") - 1])
                last = int(places[np.searchsorted(offsets[1, places], asked.spans[0][1], side="left")])
            offsets[:, places] -= begin
        text = asked.context[begin:end].replace("\0", " ")
        return Window(first, last, asked.row, class_token, offsets, text, asked.answers)


def _asked(row: int, cells: tuple[Any, ...], split: str, names: Sequence[str]) -> _Asked:
    question, context, answers = cells
    inside = f"column '{{}}' of the split '{split}'"
    asked = text_of(row, question, inside.format(names[0]))
    text = text_of(row, context, inside.format(names[1]))
    return _Asked(row, asked, text, _spans(row, text, answers, inside.format(names[2])))


def _spans(row: int, text: str, answers: Any, where: str) -> tuple[tuple[int, int], ...]:
    try:
        texts, starts = list(answers["text"]), list(answers["answer_start"])
        pairs = [(int(start), str(one)) for start, one in zip(starts, texts, strict=True)]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{where}: row {row} is no struct of the lists text and answer_start, of one length: "
            "write answers as SQuAD has them"
        ) from error
    for start, one in pairs:
        if not one or text[start : start + len(one)] != one:
            raise DataError(
                f"{where}: row {row}: the text does not have {one[:50]!r} at character {start}: correct "
                "answer_start, or remove the row"
            )
    return tuple((start, start + len(one)) for start, one in pairs)
