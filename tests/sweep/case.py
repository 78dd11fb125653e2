"""What a case of the sweep is: a model with random weights, and inputs that it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from schemas.task import Task
from workers.models.loaded import Batch, LoadedModel

BATCH = 2


@dataclass(frozen=True)
class Case:
    """One architecture."""

    name: str
    """`library/architecture`."""
    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[tuple[int, ...], str]]
    """By argument name: the shape of one sample, and what is in it: `pixels`, `ids` or `ones`."""

    @property
    def library(self) -> str:
        """Where the architecture is from."""
        return self.name.partition("/")[0]

    @property
    def shown(self) -> str:
        """The inputs, for a table."""
        return ", ".join("×".join(map(str, shape)) for shape, kind in self.inputs.values() if kind != "ones")


def load(case: Case) -> LoadedModel:
    """The model in eval mode; every tensor has values that a mistake would show in.

    Layers start with scales of 1 and 0, shifts of 0 and statistics of (0, 1), and a wrong cut
    could change nothing.
    """
    torch.manual_seed(0)
    module = case.build().eval()
    _scatter(module)
    return LoadedModel(
        module=module,
        architecture=case.name,
        task=Task.image_classification,
        classes=0,
        folder=Path(),
        image_size=None,
        image_channels=3,
        call=_by_position if case.library in ("torchvision", "timm") else _by_name,
    )


def batch(case: Case) -> dict[str, Tensor]:
    """`BATCH` samples."""
    generator = torch.Generator().manual_seed(1)
    return {name: _values(shape, kind, generator) for name, (shape, kind) in case.inputs.items()}


def _values(shape: tuple[int, ...], kind: str, generator: torch.Generator) -> Tensor:
    if kind == "ids":
        return torch.randint(5, 100, (BATCH, *shape), generator=generator)
    if kind == "ones":
        return torch.ones(BATCH, *shape, dtype=torch.int64)
    return torch.randn(BATCH, *shape, generator=generator)


@torch.no_grad()
def _scatter(module: nn.Module) -> None:
    for name, value in module.named_parameters():
        if value.ndim == 1 and name.endswith("bias"):
            value.normal_(0, 0.1)
        elif value.ndim == 1 and value.numel() > 1:
            value.uniform_(0.3, 0.9)
        elif value.ndim > 1 and value.std() < 1e-3:
            value.normal_(0, 0.05)
    for name, value in module.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)


def _by_position(module: nn.Module, batch: Batch) -> Tensor:
    return _scores(module(*batch.values()))


def _by_name(module: nn.Module, batch: Batch) -> Tensor:
    return _scores(module(**batch))


def _scores(output: Any) -> Tensor:
    """The logits, whatever holds them: GoogLeNet answers tuples in training, CLIP scores of pairs."""
    for name in ("logits", "logits_per_image", "last_hidden_state"):
        if hasattr(output, name):
            output = getattr(output, name)
            break
    scores: Tensor = output if isinstance(output, Tensor) else output[0]
    return scores
