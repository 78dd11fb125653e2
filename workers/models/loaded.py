"""A model in memory, the same to all that work on it whatever library it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from schemas.job_spec import Task

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

    def logits(self, batch: Batch) -> Tensor:
        """Scores [N, classes] of one batch; of a language model [N, T, vocabulary]."""
        return self.call(self.module, batch)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device
