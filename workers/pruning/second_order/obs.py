"""Optimal brain surgeon in blocks (Hassibi, Stork 1993; Singh, Alistarh 2020; Kurtic et al. 2022)."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from workers.errors import ModelError, PreflightError
from workers.pruning.calibration import Calibration
from workers.pruning.layers import Layer
from workers.pruning.scores.score import flat_weights, stored
from workers.pruning.scoring import cut_together
from workers.pruning.second_order.fisher import Blocks, bytes_of, empirical_fisher, in_blocks

STATE_BYTES = 2 << 30  # of blocks at once; layers that need more take turns, each with passes of its own
_AT_ONCE = 1 << 22  # numbers of blocks that are factorised at once
_NOTES_SHOWN = 3
_MOST_DAMP = 1e6  # times the damp that was asked for


@torch.no_grad()
def obs(
    groups: Sequence[tuple[Sequence[Layer], int]],
    calibration: Calibration,
    *,
    samples: int,
    block: int,
    damp: float,
) -> list[str]:
    """Zero exactly k weights of each group (layers, k) in place and move the others; returns notes.

    Those go whose removal alone costs least, w² / (2 [F⁻¹]_ii), F the empirical Fisher matrix of `samples`
    samples in blocks of `block` weights, plus `damp` on its diagonal. Then, in each block, what stays moves
    to where the quadratic model of the loss is least, for all that go together: δ_K = F_KK⁻¹ F_KQ w_Q.
    Weights that are zero stay zero and count first. Where blocks are singular the damp grows tenfold, and a
    note says so.

    Memory: N · block · 5 bytes for N weights, at most `STATE_BYTES` at once (layers take turns where all need
    more, and each turn takes two passes over the samples), and 9 bytes a weight. Raises PreflightError where
    gradients vanish or are not finite, ModelError for blocks that no damping makes regular.
    """
    layers = [layer for members, _ in groups for layer in members]
    turns = _turns(layers, block)

    def fishers() -> Iterator[tuple[list[Layer], Blocks]]:
        for turn in turns:
            yield turn, empirical_fisher(turn, calibration, samples=samples, block=block)

    kept = list(fishers()) if len(turns) == 1 else None
    costs, notes = _costs(kept or fishers(), damp)
    dense = {layer.name: flat_weights(layer.weight).clone() for layer in layers}
    for members, k in groups:
        cut_together(members, k, scores={layer.name: stored(costs[layer.name]) for layer in members})
    del costs
    gone = {layer.name: flat_weights(layer.weight) == 0 for layer in layers}
    for layer in layers:  # gradients are those of the dense model, until all is known
        flat_weights(layer.weight).copy_(dense[layer.name])
    for turn, blocks in kept or fishers():
        for layer in turn:
            name = layer.name
            dense[name] = compensated(dense[name], gone[name], blocks[name], damp, name=name)
    for layer in layers:
        flat_weights(layer.weight).copy_(dense[layer.name])
    return notes


def _costs(fishers: Iterable[tuple[list[Layer], Blocks]], damp: float) -> tuple[dict[str, Tensor], list[str]]:
    """What each weight's removal costs, by layer name, and notes."""
    costs: dict[str, Tensor] = {}
    notes: list[str] = []
    any_gradient = False
    for turn, blocks in fishers:
        any_gradient |= any(bool(one.any()) for one in blocks.values())
        for layer in turn:
            flat = flat_weights(layer.weight)
            costs[layer.name], said = saliency(flat, blocks[layer.name], damp, name=layer.name)
            notes += said
    if not any_gradient:
        raise PreflightError(
            "the gradient of the loss vanishes in every pruned layer on the calibration samples: give more "
            "or harder samples (method.criterion.samples), or use method.criterion 'magnitude'"
        )
    if len(notes) > _NOTES_SHOWN:
        notes[_NOTES_SHOWN:] = [f"The same in {len(notes) - _NOTES_SHOWN} more layers."]
    return costs, notes


def _turns(layers: Sequence[Layer], block: int) -> list[list[Layer]]:
    """Runs of layers whose blocks fit into `STATE_BYTES`; a layer that does not has a turn of its own."""
    turns: list[list[Layer]] = []
    used = 0
    for layer in layers:
        size = bytes_of(layer, block)
        if not turns or used + size > STATE_BYTES:
            turns.append([])
            used = 0
        turns[-1].append(layer)
        used += size
    return turns


def saliency(flat: Tensor, fisher: Tensor, damp: float, *, name: str) -> tuple[Tensor, list[str]]:
    """What the removal of each weight of `flat` [n] costs [n], once the others of its block make up for it.

    `fisher` [b, block, block]. A weight that is zero costs −1. And notes.
    """
    block = fisher.shape[-1]
    weights = in_blocks(flat.float(), block)
    costs = torch.empty_like(weights)
    most = damp
    eye = torch.eye(block, device=fisher.device)
    for part in _parts(len(fisher), block):
        lower, used = _factor(fisher[part], damp, name)
        inverse = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
        costs[part] = weights[part].square() / (2 * inverse.square().sum(dim=-2))
        most = max(most, used)
    costs.masked_fill_(weights == 0, -1.0)
    notes = [f"{name}: blocks are singular; damp was raised from {damp:g} to {most:g}"] if most > damp else []
    return costs.view(-1)[: len(flat)].clone(), notes


def compensated(flat: Tensor, gone: Tensor, fisher: Tensor, damp: float, *, name: str) -> Tensor:
    """`flat` [n] without the weights that are `gone` [n], the others moved to make up for them."""
    block = fisher.shape[-1]
    weights, goes = in_blocks(flat.float(), block), in_blocks(gone.to(torch.uint8), block).bool()
    moved = torch.empty_like(weights)
    for part in _parts(len(fisher), block):
        stays = ~goes[part]
        both = stays[:, :, None] & stays[:, None, :]
        pull = fisher[part] @ weights[part].where(goes[part], 0.0)[:, :, None]
        lower, _ = _factor(fisher[part] * both, damp, name)
        step = torch.cholesky_solve(pull * stays[:, :, None], lower)[:, :, 0]
        moved[part] = (weights[part] + step).where(stays, 0.0)
    return moved.view(-1)[: len(flat)].to(flat.dtype)


def _parts(blocks: int, block: int) -> Iterator[slice]:
    step = max(_AT_ONCE // block**2, 1)
    yield from (slice(start, min(start + step, blocks)) for start in range(0, blocks, step))


def _factor(fisher: Tensor, damp: float, name: str) -> tuple[Tensor, float]:
    """The lower Cholesky factor of damped blocks, and the damp that made them all regular."""
    used = damp
    while used <= damp * _MOST_DAMP:
        damped = fisher.clone()
        damped.diagonal(dim1=-2, dim2=-1).add_(used)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not bool(failed.any()):
            return lower, used
        used *= 10
    raise ModelError(
        f"the Fisher matrix of layer '{name}' is singular even when damped by {used / 10:g}: raise "
        "method.criterion.damp, or use another criterion"
    )
