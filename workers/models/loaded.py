"""A model in memory, the same to all that work on it whatever library it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from schemas.task import Task
from workers.tasks.kind import Kind
from workers.tasks.registry import kind_of

Batch = Mapping[str, Tensor]
"""Inputs by argument name, on the model's device: `pixel_values` [N,C,H,W] float, or `input_ids` and
`attention_mask` [N,T] int64."""


@dataclass
class LoadedModel:
    """The module in eval mode and float32, and what is needed to feed it, save it and load it back."""

    module: nn.Module
    architecture: str
    """`library/ClassName`, for example `transformers/ResNetForImageClassification`."""
    task: Task
    classes: int
    folder: Path
    """The folder it was loaded from: its config and tokenizer files travel with the result."""
    image_size: tuple[int, int] | None
    """Height and width that the model's own config states; None: it takes images as they are."""
    image_channels: int
    call: Callable[[nn.Module, Batch], Tensor]
    plugin: Kind | None = None
    """An operator's own task, in the place of the built-in one."""

    @property
    def kind(self) -> Kind:
        """What its task means: loss and metric."""
        return self.plugin or kind_of(self.task)

    def logits(self, batch: Batch) -> Tensor:
        """Scores of one batch, samples first: of a classifier [N, classes], of a language model
        [N, T, vocabulary]."""
        return self.call(self.module, batch)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device
