"""Criteria for whole units: one score for each unit of a group; the smallest go.

Every function streams: one tensor at a time, reduced to one number for each position of an axis at once.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.criteria import BnScale, Fisher, GeometricMedian, Magnitude, Taylor, UnitCriterion
from workers.errors import PreflightError
from workers.pruning.calibration import Calibration
from workers.pruning.structured.graph import Axis, Group
from workers.pruning.structured.masked import is_scale

Scores = dict[str, NDArray[np.float64]]
"""By group name, [size]."""
Reduce = Callable[[Tensor, tuple[int, ...]], Tensor]
"""From a tensor and the dimensions to sum over to one number for each position of the remaining one."""

PIECE = 2**20
"""Weights that are held a second time."""
DISTANCES = 2**22
"""Distances between filters that are held at a time: 16 MiB."""


def unit_scores(
    module: nn.Module,
    groups: Sequence[Group],
    criterion: UnitCriterion,
    *,
    seed: int,
    number: int,
    calibration: Calibration | None,
) -> Scores:
    """The scores of `criterion` for round `number`. Raises PreflightError where it has nothing to go by."""
    if isinstance(criterion, Magnitude):
        return magnitude(module, groups, norm=criterion.norm)
    if isinstance(criterion, BnScale):
        return bn_scale(module, groups)
    if isinstance(criterion, GeometricMedian):
        return geometric_median(module, groups)
    if isinstance(criterion, Taylor | Fisher):
        if calibration is None:
            raise PreflightError(
                f"criterion '{criterion.kind}' needs gradients, and there are no samples to take them from: "
                "use criterion 'magnitude'"
            )
        measure = taylor if isinstance(criterion, Taylor) else fisher
        return measure(module, groups, calibration, samples=criterion.samples)
    return random(groups, seed=seed, number=number)


@torch.no_grad()
def magnitude(module: nn.Module, groups: Sequence[Group], *, norm: int) -> Scores:
    """L1 or L2 norm of all weights that a unit touches: the rows that make it, the columns that read it,
    biases and scales (Li et al. 2017 for filters; Fang et al. 2023 for groups). Buffers are no weights.

    The reduction runs in float32 inside torch, the sum over tensors in float64; no tensor is copied whole.
    """

    def reduce(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
        return _powers(tensor, dims, norm)

    sums = _summed(_weights(module), groups, reduce)
    return sums if norm == 1 else {name: np.sqrt(values) for name, values in sums.items()}


def random(groups: Sequence[Group], *, seed: int, number: int) -> Scores:
    """Uniform in [0, 1), the same for one seed, round and group name: the control."""
    return {
        group.name: np.random.default_rng([seed, number, zlib.crc32(group.name.encode())]).random(group.size)
        for group in groups
    }


@torch.no_grad()
def bn_scale(module: nn.Module, groups: Sequence[Group]) -> Scores:
    """Sum of |scale| of the norms that a unit passes (Liu et al. 2017, Network Slimming).

    Raises PreflightError where a group passes none: its units could not be compared.
    """
    weights = _weights(module)
    scores: Scores = {}
    for group in groups:
        scales = [axis for axis in group.axes if axis.tensor in weights and is_scale(axis)]
        if not scales:
            raise PreflightError(
                f"criterion 'bn_scale' reads scales of batch norms, and '{group.name}' has none behind it: "
                "exclude it, or use criterion 'magnitude'"
            )
        scores[group.name] = _on_units(
            group, ((axis, weights[axis.tensor].detach().abs()) for axis in scales)
        )
    return scores


@torch.no_grad()
def geometric_median(module: nn.Module, groups: Sequence[Group]) -> Scores:
    """Sum of Euclidean distances from a unit's filter to all others of its group (He et al. 2019, FPGM).

    A filter is everything that makes the unit: its rows in each `out` tensor of two dimensions or more, as
    one vector. Holds a copy of these tensors of one group, and `DISTANCES` distances at a time.
    """
    weights = _weights(module)
    return {group.name: _distances(group, weights) for group in groups}


def _distances(group: Group, weights: Mapping[str, Tensor]) -> NDArray[np.float64]:
    filters = [
        _filters(axis, weights[axis.tensor], group.size)
        for axis in group.axes
        if axis.role == "out" and axis.tensor in weights and weights[axis.tensor].ndim > 1
    ]
    if not filters:
        raise PreflightError(
            f"criterion 'fpgm' compares filters, and '{group.name}' has none: "
            "exclude it, or use criterion 'magnitude'"
        )
    sums = np.zeros(group.size)
    step = max(1, DISTANCES // group.size)
    for start in range(0, group.size, step):
        squares = torch.zeros(min(step, group.size - start), group.size, device=filters[0].device)
        for rows in filters:
            squares += torch.cdist(rows[start : start + step], rows).square_()
        sums[start : start + step] = squares.sqrt_().double().sum(dim=1).cpu().numpy()
    return sums


def _filters(axis: Axis, tensor: Tensor, size: int) -> Tensor:
    """[size, all weights of a unit's rows]; units with fewer rows than others are filled up with zeros."""
    rows = tensor.movedim(axis.dim, 0).flatten(1)
    mine = np.flatnonzero(axis.units >= 0)
    order = mine[np.argsort(axis.units[mine], kind="stable")]
    units = axis.units[order]
    counts = np.bincount(units, minlength=size)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    filters = rows.new_zeros(size, int(counts.max()), rows.shape[1], dtype=torch.float32)
    index = [torch.from_numpy(part).to(rows.device) for part in (units, rank, order)]
    filters[index[0], index[1]] = rows[index[2]].float()
    return filters.flatten(1)


def taylor(module: nn.Module, groups: Sequence[Group], calibration: Calibration, *, samples: int) -> Scores:
    """Σ over batches of |Σ gradient · weight| over all weights that a unit touches, scales and shifts of
    norms among them (Molchanov et al. 2019): to first order, the change of the loss when the unit goes.

    In training mode a convolution before a batch norm has Σ gradient · weight = 0, since its scale does not
    matter there: the norm's own parameters must count.
    """
    totals = _zeros(groups)
    for products in _gradients(module, calibration, samples):
        sums = _summed(products, groups, _plain_sum)
        for name, values in sums.items():
            totals[name] += np.abs(values)
    return _useful(totals, "taylor")


def fisher(module: nn.Module, groups: Sequence[Group], calibration: Calibration, *, samples: int) -> Scores:
    """Σ over batches of Σ (gradient · weight)² over all weights that a unit touches: half of it, over the
    number of batches, is the loss's change by the empirical Fisher matrix's diagonal (Theis et al. 2018).

    The gradient is that of a batch's mean loss; all batches count the same.
    """
    totals = _zeros(groups)
    for products in _gradients(module, calibration, samples):
        sums = _summed(products, groups, _square_sum)
        for name, values in sums.items():
            totals[name] += values
    return _useful(totals, "fisher")


def normalised(scores: Scores) -> Scores:
    """Each group's scores divided by their mean, so that groups compare: layers differ in scale for reasons
    that do not matter (fan-in, a norm behind them). So do Molchanov et al. (2017) and DepGraph (2023)."""
    return {name: values / mean if (mean := values.mean()) > 0 else values for name, values in scores.items()}


def _gradients(module: nn.Module, calibration: Calibration, samples: int) -> Iterable[dict[str, Tensor]]:
    """For each batch: gradient · weight by name. In eval mode; flags are as before afterwards."""
    wanted = {parameter: parameter.requires_grad for parameter in module.parameters()}
    was_training = module.training
    module.eval().requires_grad_(True)
    module.zero_grad(set_to_none=True)
    try:
        for inputs, labels in calibration.batches(samples):
            torch.autograd.backward(calibration.loss(inputs, labels))
            for parameter in wanted:
                if parameter.grad is not None:
                    parameter.grad.mul_(parameter.detach())
            yield {
                name: parameter.grad
                for name, parameter in module.named_parameters(remove_duplicate=False)
                if parameter.grad is not None
            }
            module.zero_grad(set_to_none=True)
    finally:
        module.train(was_training)
        module.zero_grad(set_to_none=True)
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)


def _summed(tensors: Mapping[str, Tensor], groups: Sequence[Group], reduce: Reduce) -> Scores:
    """Each tensor reduced once along each axis that a group names, then added up by unit."""
    cache: dict[tuple[int, int], Tensor] = {}

    def reduced(axis: Axis) -> Tensor:
        tensor = tensors[axis.tensor]
        key = id(tensor), axis.dim
        if key not in cache:
            cache[key] = reduce(tensor, tuple(dim for dim in range(tensor.ndim) if dim != axis.dim))
        return cache[key]

    def once(group: Group) -> list[Axis]:
        # a tensor that two modules share counts once
        axes = {(id(tensors[axis.tensor]), axis.dim): axis for axis in group.axes if axis.tensor in tensors}
        return list(axes.values())

    return {group.name: _on_units(group, ((axis, reduced(axis)) for axis in once(group))) for group in groups}


def _on_units(group: Group, values: Iterable[tuple[Axis, Tensor]]) -> NDArray[np.float64]:
    """Add up [positions] values of each axis by the unit that they belong to: [size]."""
    sums = np.zeros(group.size + 1)  # the last takes what is of no unit of this group
    for axis, vector in values:
        sums += np.bincount(axis.units % (group.size + 1), vector.double().cpu().numpy(), group.size + 1)
    return sums[: group.size]


def _plain_sum(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    return tensor.sum(dim=dims) if dims else tensor


def _square_sum(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    return _powers(tensor, dims, 2)


def _powers(tensor: Tensor, dims: tuple[int, ...], norm: int) -> Tensor:
    """Σ |tensor|^norm over `dims`: [positions of the dimension that is left].

    `vector_norm` over the first dimension takes 5.3 ms for 512 x 512 x 3 x 3, and 2.0 ms piece by piece.
    """
    if not dims:
        return tensor.abs() ** norm
    if 0 not in dims:
        norms: Tensor = torch.linalg.vector_norm(tensor, ord=norm, dim=dims)
        return norms.pow_(norm)
    inner = tuple(dim for dim in dims if dim)
    sums = torch.zeros((), device=tensor.device)
    for piece in torch.split(tensor, max(1, PIECE * len(tensor) // tensor.numel())):
        powers = piece.abs() if norm == 1 else piece.float().square()
        sums = sums + (powers.sum(dim=inner, dtype=torch.float32) if inner else powers).sum(dim=0)
    return sums


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False))


def _zeros(groups: Sequence[Group]) -> Scores:
    return {group.name: np.zeros(group.size) for group in groups}


def _useful(scores: Scores, criterion: str) -> Scores:
    """Raises PreflightError where gradients are NaN or vanish: an order made of them would be chance."""
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise PreflightError(
            f"criterion '{criterion}': gradients are NaN or infinite on the calibration samples: "
            "use criterion 'magnitude', or give a model that was trained in a stable way"
        )
    if not any(values.any() for values in scores.values()):
        raise PreflightError(
            f"criterion '{criterion}': all gradients are zero on the calibration samples: "
            "use criterion 'magnitude'"
        )
    return scores
