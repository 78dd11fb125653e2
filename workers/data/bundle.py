"""A data set: splits of samples, and batches of them on the model's device."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

Transform = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""From stored inputs (uint8 images [N,C,H,W], token ids [N,T]) to what the model takes."""
Augment = Callable[[Mapping[str, Tensor], torch.Generator], dict[str, Tensor]]
"""Random changes to the stored inputs of one training batch, drawn from the generator."""


class Samples(Protocol):
    """The samples of a split, wherever they are."""

    def __len__(self) -> int: ...

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the label of one sample; () for a class number."""

    def take(self, index: Tensor) -> "Samples":
        """The samples at `index`, in its order."""

    def first(self, count: int) -> "Samples":
        """The first `count` samples, or all where there are fewer."""

    def batches(self, size: int, shuffle: torch.Generator | None) -> Iterator["Split"]:
        """Batches of `size`, the last may be short; `shuffle`: random order, the last short one dropped."""


@dataclass(frozen=True)
class Split:
    """Samples in memory: inputs by name, each [N, …], and labels [N, …]."""

    inputs: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the label of one sample; () for a class number."""
        return tuple(self.labels.shape[1:])

    def take(self, index: Tensor) -> "Split":
        """The samples at `index`, in its order."""
        return Split({name: value[index] for name, value in self.inputs.items()}, self.labels[index])

    def first(self, count: int) -> "Split":
        """The first `count` samples, or all where there are fewer."""
        return self.take(torch.arange(min(count, len(self))))

    def batches(self, size: int, shuffle: torch.Generator | None) -> Iterator["Split"]:
        """Batches of `size`, the last may be short; `shuffle`: random order, the last short one dropped."""
        order = torch.arange(len(self)) if shuffle is None else torch.randperm(len(self), generator=shuffle)
        last = len(self) if shuffle is None else len(self) - len(self) % size
        for start in range(0, last, size):
            yield self.take(order[start : start + size])


@dataclass(frozen=True)
class Bundle:
    """What a job learns from and is judged by."""

    train: Samples
    validation: Samples
    transform: Transform
    calibration: Samples | None = None
    """Samples to measure by before a cut, where the data has a split for them."""
    augment: Augment | None = None
    """What is done to batches in random order, and to no others."""

    def judged_by(self, split: Samples) -> "Bundle":
        """The same, with another split to evaluate on."""
        return replace(self, validation=split)

    def batches(
        self, split: Samples, size: int, *, device: torch.device, shuffle: torch.Generator | None = None
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Batches of (inputs, labels) on `device`; `shuffle`: random order, the last short one dropped."""
        for part in split.batches(size, shuffle):
            stored = part.inputs
            if self.augment is not None and shuffle is not None:
                stored = self.augment(stored, shuffle)
            inputs = {name: value.to(device) for name, value in self.transform(stored).items()}
            yield inputs, part.labels.to(device)
