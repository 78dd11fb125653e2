"""What moves the weights: optimizer, learning rate, precision."""

from collections.abc import Sequence
from math import cos, pi

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from schemas.fine_tune import FineTune, LrSchedule, Sgd


def optimizer_for(parameters: Sequence[nn.Parameter], spec: FineTune) -> Optimizer:
    """A fresh optimizer; biases and the weights of normalization layers (one dimension) do not decay."""
    settings = spec.optimizer
    groups = [
        {"params": [one for one in parameters if one.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.dim() <= 1], "weight_decay": 0.0},
    ]
    if isinstance(settings, Sgd):
        return SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    return AdamW(groups, lr=settings.lr)


def lr_factor(schedule: LrSchedule, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at `step` (from 0) of a round of `steps`.

    With `rewind` r the round runs through the schedule from its share r to its end (Renda et al. 2020).
    """
    at = schedule.rewind * steps + (1 - schedule.rewind) * step
    warmup = round(schedule.warmup * steps)
    if at < warmup:
        return (at + 1) / (warmup + 1)
    if schedule.kind == "cosine":
        return 0.5 * (1 + cos(pi * (at - warmup) / max(1, steps - warmup)))
    if schedule.kind == "step":
        return 1.0 if at < steps / 2 else 0.1 if at < steps * 3 / 4 else 0.01
    return 1.0


def mixed_precision(spec: FineTune, device: torch.device) -> torch.dtype | None:
    """The dtype that CUDA computes in; None: float32, always so on a CPU."""
    if device.type != "cuda" or spec.precision == "fp32":
        return None
    if spec.precision == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if spec.precision == "bf16" else torch.float16
