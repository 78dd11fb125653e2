"""The memory that a job takes at least: by its spec and the size of its weights, without activations."""

from math import ceil

from schemas.fine_tune import FineTune, Sgd
from schemas.job_spec import JobSpec
from schemas.method import SemiStructured, Structured

MARGIN = 0.1
"""Share of what a job needs that may be missing before it is refused: for weights of a file that the model
does not use."""

_ORDERED_BY_WEIGHTS = frozenset({"magnitude", "random"})
_LOADED = 3
"""Copies while the spec is tried: the model, the dense one that it is compared with, one that is cut."""


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


def copies(spec: JobSpec) -> float:
    """How many times the weights' bytes a job takes at its peak, at least.

    Beside the models themselves these are gradients, the optimizer's states and an average of the weights.
    Structured pruning makes the model that is trained smaller: by how much is known before for a goal in
    parameters only; for others its training counts as nothing.
    """
    if needs_one_copy(spec):
        return 1.0
    if not spec.trains:
        return float(_LOADED)
    trained = 1 + _beside_weights(spec.fine_tune)
    preflight = _LOADED - 1 + _kept(spec, spec.rounds_in_all()) * trained
    first_round = 1 + _kept(spec, 1) * trained
    return max(_LOADED, preflight, first_round)


def memory_needed(spec: JobSpec, weight_bytes: int) -> int:
    """Bytes on the device at the job's peak, at least; `weight_bytes` in the dtype that it computes in."""
    return ceil(copies(spec) * weight_bytes)


def fits(needed: int, available: int) -> bool:
    """Whether a job may be tried; False only where it is short of memory by more than the margin."""
    return needed * (1 - MARGIN) <= available


def remedy(spec: JobSpec) -> str:
    """What lets this job do with less, in words."""
    ways = ["take a worker with more memory"]
    if spec.trains:
        ways.append("set fine_tune.epochs to 0, which needs no gradients and no optimizer")
        if not isinstance(spec.fine_tune.optimizer, Sgd):
            ways.append("use fine_tune.optimizer 'sgd'")
    elif not needs_one_copy(spec):
        ways.append("write zeros only (a goal in sparsity, export: [safetensors]), which needs one copy")
    elif not keeps_dtype(spec):
        ways.append("use criterion 'magnitude', which leaves weights in half precision as they are")
    else:
        ways.append("give the weights in float16 or bfloat16")
    return ", or ".join(ways)


def in_gb(count: float) -> str:
    """Bytes in decimal gigabytes."""
    return f"{count / 1e9:,.2f} GB"


def _beside_weights(fine_tune: FineTune) -> int:
    """Numbers for each weight while it is trained: gradient, states of the optimizer, average."""
    optimizer = fine_tune.optimizer
    states = int(optimizer.momentum > 0) if isinstance(optimizer, Sgd) else 2
    return 1 + states + int(fine_tune.average is not None)


def _kept(spec: JobSpec, number: int) -> float:
    """The share of the parameters that round `number` leaves to be trained; 0 where nobody knows it yet."""
    if spec.recipe is not None:
        return 0.0
    if not isinstance(spec.method, Structured):
        return 1.0
    by_parameters = spec.goal is not None and spec.goal.name == "params"
    return 1 - spec.removed_after(number) if by_parameters else 0.0
