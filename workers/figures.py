"""Size and arithmetic of a model: parameters, zeros, bytes on disk and compressed, multiply-accumulates."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from schemas.report import LayerFigures, ModelFigures
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.layers import Choice, Layer

_READ_BYTES = 1 << 20
_GZIP_WINDOW = 31  # zlib's largest window, with gzip's header and trailer


def model_figures(
    model: LoadedModel, choice: Choice, *, sample: Batch, file: Path, metric: float
) -> ModelFigures:
    """All figures of `model`, whose weights are in `file` (safetensors); `sample` is a batch of one."""
    parameters = list(model.module.parameters())
    macs, effective = macs_of(model, choice.layers, sample)
    return ModelFigures(
        metric=metric,
        parameters=sum(one.numel() for one in parameters),
        nonzeros=sum(int(one.count_nonzero()) for one in parameters),
        bytes=file.stat().st_size,
        compressed_bytes=gzip_bytes(file),
        macs=macs,
        effective_macs=effective,
    )


def layer_figures(choice: Choice) -> list[LayerFigures]:
    """One entry for each prunable layer, in module order."""
    figures = []
    for layer in choice.layers:
        weights, zeros = layer.weight.numel(), layer.weight.numel() - int(layer.weight.count_nonzero())
        figures.append(
            LayerFigures(
                name=layer.name,
                kind=layer.kind,
                shape=list(layer.weight.shape),
                weights=weights,
                zeros=zeros,
                sparsity=zeros / weights,
                pruned=layer.name not in choice.reasons,
                reason=choice.reasons.get(layer.name),
            )
        )
    return figures


def gzip_bytes(file: Path) -> int:
    """Size of `file` after gzip at level 6, read in pieces."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
    size = 0
    with file.open("rb") as stream:
        while piece := stream.read(_READ_BYTES):
            size += len(packer.compress(piece))
    return size + len(packer.flush())


@torch.no_grad()
def macs_of(
    model: LoadedModel, layers: tuple[Layer, ...], sample: Batch
) -> tuple[int, int] | tuple[None, None]:
    """Multiply-accumulates of one sample: all of them, and those with a non-zero weight.

    Counted by torch (matrix products, convolutions, attention; padding included), halved since it counts a
    multiply-accumulate as two. Each prunable layer's share is scaled by the density of its weight. None where
    torch counts nothing.
    """
    counter = FlopCounterMode(display=False)
    model.module.eval()
    with counter, plain_attention(), no_parameter_needs_gradients(model.module):
        model.logits(sample)
    total = counter.get_total_flops() // 2
    if total == 0:
        return None, None
    by_module = counter.get_flop_counts()
    root = type(model.module).__name__
    idle = 0.0
    for layer in layers:
        path = f"{root}.{layer.name}" if layer.name else root
        macs = sum(by_module.get(path, {}).values()) // 2
        idle += macs * int((layer.weight == 0).sum()) / layer.weight.numel()
    return total, total - round(idle)


@contextmanager
def no_parameter_needs_gradients(module: nn.Module) -> Iterator[None]:
    """While torch follows modules: it stops at a view of a parameter that was made without gradients."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as matrix products: torch does not count its fused operators on a CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
