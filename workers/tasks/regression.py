"""Regression: one number for each sample."""

import warnings
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor
from torchmetrics import MeanSquaredError, PearsonCorrCoef

from schemas.task import Task
from workers.tasks.kind import Kind, Measure, Measured

if TYPE_CHECKING:
    from workers.models.loaded import LoadedModel

MSE = "mean squared error"
PEARSON = "Pearson's r"


class Regression(Kind):
    """A number for each sample: scores [N, 1], labels [N] float."""

    task = Task.regression

    def loss(self, scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error; there are no classes to smooth."""
        return F.mse_loss(scores.squeeze(-1).float(), labels.float())

    def distillation(self, scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Mean squared distance from the dense model's numbers; a temperature is for classes."""
        return F.mse_loss(scores.float(), wanted.float())

    def measure(self, model: "LoadedModel", device: torch.device) -> Measure:
        """Pearson's correlation, where it is above 0; beside it r itself and the mean squared error."""
        return _OfNumbers(device)


class _OfNumbers:
    def __init__(self, device: torch.device) -> None:
        self._pearson = PearsonCorrCoef().set_dtype(torch.float64).to(device)
        self._error = MeanSquaredError().to(device)

    def update(self, scores: Tensor, labels: Tensor, inputs: Mapping[str, Tensor]) -> None:
        found, wanted = scores.squeeze(-1).double(), labels.double()
        self._pearson.update(found, wanted)
        self._error.update(found, wanted)

    def compute(self) -> Measured:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no correlation is said below
            r = float(self._pearson.compute())
        r = r if isfinite(r) else 0.0  # of one sample, or of numbers that are all the same
        return Measured(min(max(r, 0.0), 1.0), {PEARSON: r, MSE: float(self._error.compute())})
