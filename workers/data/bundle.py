"""A data set in memory: splits of tensors, and batches of them on the model's device."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Transform = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""From stored inputs (uint8 images [N,C,H,W], token ids [N,T]) to what the model takes."""


@dataclass(frozen=True)
class Split:
    """Inputs by name, each [N, …], and labels [N] int64."""

    inputs: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> "Split":
        """The samples at `index`, in its order."""
        return Split({name: value[index] for name, value in self.inputs.items()}, self.labels[index])

    def first(self, count: int) -> "Split":
        """The first `count` samples, or all where there are fewer."""
        return self.take(torch.arange(min(count, len(self))))


@dataclass(frozen=True)
class Bundle:
    """What a job learns from and is judged by."""

    train: Split
    validation: Split
    transform: Transform
    calibration: Split | None = None
    """Samples to measure by before a cut, where the data has a split for them."""

    def judged_by(self, split: Split) -> "Bundle":
        """The same, with another split to evaluate on."""
        return replace(self, validation=split)

    def batches(
        self, split: Split, size: int, *, device: torch.device, shuffle: torch.Generator | None = None
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Batches of (inputs, labels) on `device`; `shuffle`: random order, the last short one dropped."""
        order = torch.arange(len(split)) if shuffle is None else torch.randperm(len(split), generator=shuffle)
        last = len(split) if shuffle is None else len(split) - len(split) % size
        for start in range(0, last, size):
            part = split.take(order[start : start + size])
            inputs = {name: value.to(device) for name, value in self.transform(part.inputs).items()}
            yield inputs, part.labels.to(device)
