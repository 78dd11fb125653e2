"""Token classification: the class of each word, judged by the entities that the words make up."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from seqeval.metrics import accuracy_score, f1_score
from seqeval.scheme import BILOU
from torch import Tensor

from schemas.task import Task
from workers.loss import IGNORED
from workers.tasks.kind import Kind, Measure, Measured

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel

ACCURACY = "accuracy of words"
_OUTSIDE = "O"
_TAG = re.compile(r"[BIESLU]-.")
"""A place in an entity, and the entity's type: `B-PER`."""


class TokenClassification(Kind):
    """A class for each word: scores [N, T, classes], labels [N, T], `IGNORED` where no word begins."""

    task = Task.token_classification

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """F1 of entities as the `seqeval` package counts them, on the names that the config gives classes."""
        named = getattr(getattr(model.module, "config", None), "id2label", None) or {}
        return _OfEntities([str(named.get(number, number)) for number in range(model.classes)])


class _OfEntities:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = tags_of(names)
        self._right: list[list[str]] = []
        self._found: list[list[str]] = []

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        best, wanted = scores.argmax(dim=-1).cpu(), labels.cpu()
        for right, found in zip(wanted, best, strict=True):
            begins = right != IGNORED
            self._right.append([self._names[number] for number in right[begins].tolist()])
            self._found.append([self._names[number] for number in found[begins].tolist()])

    def compute(self) -> Measured:
        by_scheme = {"mode": "strict", "scheme": BILOU} if _is_bilou(self._names) else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a model finds no entity at all is a figure, not a fault
            f1 = f1_score(self._right, self._found, **by_scheme)
        return Measured(float(f1), {ACCURACY: float(accuracy_score(self._right, self._found))})


def tags_of(names: Sequence[str]) -> list[str]:
    """Names as tags of entities. Where no name begins with a place (`B-`), each word is an entity by itself.

    That holds for parts of speech; the F1 is the accuracy then, but for words that are outside (`O`).
    """
    if any(_TAG.match(name) for name in names):
        return list(names)
    return [name if name == _OUTSIDE else f"B-{name}" for name in names]


def _is_bilou(names: Sequence[str]) -> bool:
    return any(name.startswith(("L-", "U-")) for name in names)
