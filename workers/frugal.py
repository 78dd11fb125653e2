"""Jobs that need one copy of the weights: nothing is trained, and the dense model can be read again."""

import torch
from torch import nn

from schemas.job_spec import JobSpec
from schemas.method import SemiStructured, Structured

_ORDERED_BY_WEIGHTS = frozenset({"magnitude", "random"})


def needs_one_copy(spec: JobSpec) -> bool:
    """Whether only zeros are written: no training, no removal of units, no file but safetensors."""
    return (
        spec.recipe is None
        and not spec.trains
        and not isinstance(spec.method, Structured)
        and set(spec.export) == {"safetensors"}
        and spec.quantize.kind == "none"
        and (spec.goal is None or spec.goal.name == "sparsity")
    )


def keeps_dtype(spec: JobSpec) -> bool:
    """Whether half-precision weights stay as they are: they are compared with each other, and no more."""
    permutes = isinstance(spec.method, SemiStructured) and spec.method.permute
    return needs_one_copy(spec) and spec.method.criterion.kind in _ORDERED_BY_WEIGHTS and not permutes


@torch.no_grad()
def let_go(module: nn.Module) -> None:
    """Free the memory of all parameters; `adopt` fills them again."""
    for one in module.parameters():
        one.data = torch.empty(0, dtype=one.dtype, device=one.device)


@torch.no_grad()
def adopt(module: nn.Module, other: nn.Module) -> None:
    """Take over the weights and buffers of `other`, a model of the same make, without a copy of the weights.

    The parameters stay the same objects. ValueError where the two differ.
    """
    for own, theirs in zip(module.parameters(), other.parameters(), strict=True):
        own.data = theirs.data
    for held, given in zip(module.buffers(), other.buffers(), strict=True):
        held.copy_(given)
