"""SparseGPT: layer by layer, what stays is solved anew to give the same outputs (Frantar, Alistarh 2023)."""

from collections.abc import Mapping, Sequence

import torch

from workers.errors import ModelError, PreflightError
from workers.pruning.calibration import Calibration
from workers.pruning.layers import Layer
from workers.pruning.nm import eligible
from workers.pruning.second_order.factor import Inverse, invert
from workers.pruning.second_order.hessian import SUPPORTED, HessianSum, as_columns, write_columns
from workers.pruning.second_order.reconstruct import prune_to_pattern, prune_to_share
from workers.pruning.second_order.walk import Walk

_NAMES_SHOWN = 3


@torch.no_grad()
def sparsegpt(
    layers: Sequence[Layer],
    calibration: Calibration,
    *,
    samples: int,
    block: int,
    damp: float,
    shares: Mapping[str, float],
    nm: tuple[int, int] | None,
) -> list[str]:
    """Prune `layers` in place, each to its share of zeros, or all to `nm`; returns notes for the report.

    Exactly round(share · N) weights of each layer are zero afterwards, more only where there were more; what
    is zero stays zero. A layer's Hessian is X Xᵀ of what it reads once all layers before it are pruned;
    layers that read the same tensor share it. There is one Hessian at a time, so the extra memory is
    3 c² + 2.5 c · o floats for the widest layer (c inputs, o outputs; a convolution's c counts its kernel
    positions), beside what `Walk` keeps. `damp` is a share of the mean of the Hessian's diagonal.

    Raises PreflightError for kinds of layers that it cannot solve, ModelError for Hessians that no damping
    makes regular, ValueError where a layer cannot take `nm` or has no share.
    """
    _refuse_unsolvable(layers, nm)
    walk = Walk(layers, calibration, samples)
    notes: list[str] = []
    poor: list[str] = []
    for stage in walk.stages:
        first = stage.layers[0]
        hessian = HessianSum(first)
        for inputs, mask in walk.inputs(stage):
            hessian.add(inputs, mask)
        if hessian.total is None:
            raise ModelError(
                f"no calibration sample reaches layer '{first.name}' once layers before it are pruned"
            )
        if hessian.rows < hessian.total.shape[-1]:
            poor += [layer.name for layer in stage.layers]
        inverse, said = invert(hessian.total, damp, name=first.name)
        notes += said
        del hessian
        for layer in stage.layers:
            _prune(layer, inverse, shares, nm, block)
    for layer in walk.unreached:
        _prune(layer, _identity(layer), shares, nm, layer.weight.numel())
    return notes + _said_of(poor, [layer.name for layer in walk.unreached])


def _prune(
    layer: Layer, inverse: Inverse, shares: Mapping[str, float], nm: tuple[int, int] | None, block: int
) -> None:
    columns = as_columns(layer)
    if nm is None:
        prune_to_share(columns, inverse, round(shares[layer.name] * columns.numel()), block=block)
    else:
        prune_to_pattern(columns, inverse, *nm, block=block)
    if not bool(columns.sum().isfinite()):
        raise ModelError(f"SparseGPT's solution for layer '{layer.name}' is not finite: use a larger damp")
    write_columns(layer, columns)


def _identity(layer: Layer) -> Inverse:
    """Of a layer without inputs: every weight counts by its magnitude alone."""
    groups, columns, _ = as_columns(layer).shape
    eye = torch.eye(columns, device=layer.weight.device).expand(groups, -1, -1)
    return Inverse(eye, torch.ones((groups, columns), device=layer.weight.device))


def _refuse_unsolvable(layers: Sequence[Layer], nm: tuple[int, int] | None) -> None:
    unsolvable = [layer for layer in layers if layer.kind not in SUPPORTED]
    if unsolvable:
        raise PreflightError(
            f"'sparsegpt' cannot solve {unsolvable[0].kind} layers ({_names(unsolvable)}): list them "
            "in method.exclude, or use another criterion"
        )
    reasons = [f"{layer.name}: {reason}" for layer in layers if nm and (reason := eligible(layer, *nm))]
    if reasons:
        raise ValueError("; ".join(reasons))


def _names(layers: Sequence[Layer]) -> str:
    return _shown([layer.name for layer in layers])


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _said_of(poor: Sequence[str], unreached: Sequence[str]) -> list[str]:
    notes = []
    if poor:
        notes.append(
            f"The samples give fewer input rows than these layers have inputs, so that their Hessians are "
            f"singular but for the damping: {_shown(poor)}. More samples help."
        )
    if unreached:
        notes.append(
            f"No calibration sample reaches these layers; they were cut by magnitude: {_shown(unreached)}."
        )
    return notes
