"""Question answering: which words of a text are the answer.

A long text is read in windows, so a question has a sample for each window, and its answer is the best of all.
What the metric needs to know of a window travels in its labels (`Window`), since labels are one tensor.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchmetrics.text import SQuAD

from schemas.task import Task
from workers.loss import cross_entropy
from workers.tasks.kind import Kind, Measure, Measured

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel

EXACT = "exact match"
LONGEST_ANSWER = 30
"""Tokens, as in the library's own evaluation of SQuAD."""
NO_ANSWER = ("",)
_NUMBERS = 5
_NOWHERE = -1


@dataclass(frozen=True)
class Window:
    """A part of a text that a model reads beside the question."""

    start: int
    """The answer's first token; the class token's where the answer is not in the window."""
    end: int
    """The answer's last token."""
    question: int
    """The number of the question: windows of one text have one."""
    class_token: int
    """What a model points at that sees no answer."""
    offsets: np.ndarray
    """[2, T] int32: in `text`, the first character of each token and the one after its last; -1: a token that
    is not of the text."""
    text: str
    answers: tuple[str, ...]
    """All that count as right; one empty text: the question has none."""
    may_have_none: bool = False
    """Whether the split has questions without an answer; `pack` finds out."""


def pack(windows: Sequence[Window], length: int, *, left: bool) -> Tensor:
    """Labels [N, …] int32 of windows that were padded to `length` tokens, on the left or on the right.

    Start, end, question, class token, whether there may be no answer, offsets, and text and answers as
    code points that end with 0.
    """
    texts = [_code_points(one.text + "\0" + json.dumps(one.answers)) for one in windows]
    some_have_none = any(one.answers == NO_ANSWER for one in windows)
    packed = np.zeros((len(windows), _NUMBERS + 2 * length + max(map(len, texts))), np.int32)
    for row, one, text in zip(packed, windows, texts, strict=True):
        tokens = one.offsets.shape[1]
        shift = length - tokens if left else 0
        offsets = np.full((2, length), _NOWHERE, np.int32)
        offsets[:, shift : shift + tokens] = one.offsets
        places = (one.start + shift, one.end + shift, one.question, one.class_token + shift, some_have_none)
        row[:_NUMBERS] = places
        row[_NUMBERS : _NUMBERS + 2 * length] = offsets.ravel()
        row[_NUMBERS + 2 * length :][: len(text)] = text
    return torch.from_numpy(packed)


def unpack(row: np.ndarray, length: int) -> Window:
    """The window that `pack` made `row` of."""
    start, end, question, class_token, may_have_none = row[:_NUMBERS].tolist()
    text, _, answers = _text(row[_NUMBERS + 2 * length :]).partition("\0")
    offsets = row[_NUMBERS : _NUMBERS + 2 * length].reshape(2, length)
    return Window(
        start, end, question, class_token, offsets, text, tuple(json.loads(answers)), bool(may_have_none)
    )


class QuestionAnswering(Kind):
    """First and last token of an answer: scores [N, 2, T], labels [N, …] of packed windows."""

    task = Task.question_answering

    def loss(self, scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean of the cross-entropies of the first and of the last token."""
        return cross_entropy(scores, labels[:, :2].long(), label_smoothing=label_smoothing)

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """F1 of words as SQuAD counts them; beside it the share of answers that are exactly right."""
        return _OfAnswers()


@dataclass(frozen=True)
class _Best:
    score: float
    text: str
    none: float
    """Score of "no answer", the least of all windows."""
    window: Window


class _OfAnswers:
    def __init__(self) -> None:
        self._best: dict[int, _Best] = {}

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        scores = scores.float().cpu()
        windows = [unpack(row, scores.shape[-1]) for row in labels.cpu().numpy()]
        places = torch.from_numpy(np.stack([one.offsets[0] for one in windows])) != _NOWHERE
        values, starts, ends = best_spans(scores, places)
        for number, window in enumerate(windows):
            first, last = int(starts[number]), int(ends[number])
            found = window.text[window.offsets[0, first] : window.offsets[1, last]]
            none = float(scores[number, :, window.class_token].sum())
            self._keep(_Best(float(values[number]), found, none, window))

    def _keep(self, new: _Best) -> None:
        old = self._best.setdefault(new.window.question, new)
        better = new if new.score > old.score else old
        none = min(old.none, new.none)
        self._best[new.window.question] = _Best(better.score, better.text, none, better.window)

    def compute(self) -> Measured:
        squad = SQuAD()
        found, right = [], []
        for question, best in self._best.items():
            is_none = best.window.may_have_none and best.none > best.score
            answers = list(best.window.answers)
            found.append({"id": str(question), "prediction_text": "" if is_none else best.text})
            right.append(
                {"id": str(question), "answers": {"text": answers, "answer_start": [0] * len(answers)}}
            )
        squad.update(found, right)
        figures = {name: float(value) / 100 for name, value in squad.compute().items()}
        return Measured(figures["f1"], {EXACT: figures["exact_match"]})


def best_spans(scores: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, first and last token, each [N], of the best answer of at most `LONGEST_ANSWER` tokens.

    `scores` [N, 2, T]; `places` [N, T] bool: tokens that an answer may begin or end with.
    """
    start = scores[:, 0].masked_fill(~places, -torch.inf)
    end = scores[:, 1].masked_fill(~places, -torch.inf)
    samples, tokens = start.shape
    best = torch.full((samples,), -torch.inf)
    first, last = torch.zeros(samples, dtype=torch.int64), torch.zeros(samples, dtype=torch.int64)
    for more in range(min(LONGEST_ANSWER, tokens)):
        values, at = (start[:, : tokens - more] + end[:, more:]).max(dim=1)
        better = values > best
        best = torch.where(better, values, best)
        first = torch.where(better, at, first)
        last = torch.where(better, at + more, last)
    return best, first, last


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.int32)


def _text(code_points: np.ndarray) -> str:
    text = code_points.astype("<i4").tobytes().decode("utf-32-le", errors="surrogatepass")
    return text.rstrip("\0")
