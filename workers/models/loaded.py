"""A model in memory, the same to all that work on it whatever library it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from schemas.task import Task
from workers.onnx_model.module import OnnxModule
from workers.tasks.kind import Kind
from workers.tasks.registry import kind_of

Batch = Mapping[str, Tensor]
"""Inputs by argument name, on the model's device: `pixel_values` [N,C,H,W] float, or `input_ids` and
`attention_mask` [N,T] int64."""

HALF = (torch.bfloat16, torch.float16)


@dataclass
class LoadedModel:
    """The module in eval mode, and what is needed to feed it, save it and load it back."""

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
    notes: tuple[str, ...] = ()
    """For the report: what is to be known of the file."""
    plugin: Kind | None = None
    """What the task means for this model alone, or an operator's own task; None: the built-in one."""

    @property
    def kind(self) -> Kind:
        """What its task means: loss and metric."""
        return self.plugin or kind_of(self.task)

    def logits(self, batch: Batch) -> Tensor:
        """Scores of one batch, samples first: of a classifier [N, classes], of a language model
        [N, T, vocabulary]; each kind of task says what they are."""
        dtype = next(self.module.parameters()).dtype
        if dtype not in HALF or isinstance(self.module, OnnxModule):  # whose file states what it takes
            return self.call(self.module, batch)
        inputs = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()
        }
        return self.call(self.module, inputs).float()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device
