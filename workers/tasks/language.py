"""Language models: how well they predict the tokens that come.

The metric of a job is the larger the better and lies in [0, 1], so that floors, drops and curves mean for a
language model what they mean for a classifier: it is the geometric mean of the probabilities that the model
gives to the right tokens, which is 1 / perplexity.
"""

from collections.abc import Mapping
from math import exp
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from schemas.task import Task
from workers.loss import IGNORED, cross_entropy
from workers.tasks.kind import Kind, Measure, Measured

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel

TOKENS_AT_A_TIME = 2048
"""Scores take four bytes for each token of the input and of the vocabulary: 400 MB for 49,152 of them."""
PERPLEXITY = "perplexity"


class LanguageModel(Kind):
    """Tokens from tokens: scores [N, T, vocabulary], labels [N, T]; `IGNORED` labels are left out."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """exp(mean log-probability of the tokens that have a label), and perplexity."""
        return _OfTokens()

    def evaluation_batch(self, most: int, label_shape: tuple[int, ...]) -> int:
        """So many samples that their scores fit."""
        return max(1, min(most, TOKENS_AT_A_TIME // label_shape[0]))


class _OfTokens:
    def __init__(self) -> None:
        self._total = torch.zeros((), dtype=torch.float64)
        self._tokens = 0

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        self._total += cross_entropy(scores, labels, reduction="sum").double().cpu()
        self._tokens += int((labels != IGNORED).sum())

    def compute(self) -> Measured:
        probability = exp(-float(self._total) / self._tokens)
        return Measured(probability, {PERPLEXITY: perplexity(probability)})


def perplexity(probability: float) -> float:
    """What people quote: 1 / the mean probability of the right tokens; infinity for 0."""
    return 1 / probability if probability > 0 else float("inf")
