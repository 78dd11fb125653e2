"""The inputs of one layer after another, of the model as it is by then: earlier layers are pruned already.

Each layer takes one pass over the calibration samples, which stops at the layer. In models made of blocks
that feed each other, what enters the block is kept (samples x hidden numbers, at most `CACHE_BYTES`), so a
pass starts there and the whole costs a few passes over the model; in others it starts at the model's input.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from workers.models.loaded import Batch
from workers.pruning.calibration import Calibration
from workers.pruning.layers import Layer
from workers.pruning.second_order.chain import Block, Links, blocks_of, entering, first_input
from workers.pruning.second_order.hessian import geometry

CACHE_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class Stage:
    """Layers that read the same input (query, key and value), in the order of the forward pass."""

    layers: tuple[Layer, ...]
    calls: int
    """Times that the layer runs in one forward pass."""
    chain: tuple[Block, ...] = ()
    block: int = 0
    """Which block of the chain holds the layers."""


class Walk:
    """Watches a forward pass to learn the order; then gives the inputs of one stage after another."""

    def __init__(self, layers: Sequence[Layer], calibration: Calibration, samples: int) -> None:
        self._calibration = calibration
        self._samples = samples
        self._kept: list[Tensor] = []
        self._kept_of: tuple[tuple[Block, ...], int] | None = None
        self._too_large: set[tuple[Block, ...]] = set()
        order, chains = self._watch(layers)
        self.stages = [_placed(stage, chains) for stage in order]
        """Every layer that any sample reaches."""
        reached = {layer.name for stage in order for layer in stage.layers}
        self.unreached = [layer for layer in layers if layer.name not in reached]

    @torch.no_grad()
    def inputs(self, stage: Stage) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What the stage's layers read, batch by batch, and the batch's attention mask if it has one."""
        chain, at = stage.chain, stage.block
        if at > 0 and not self._keep_inputs_of(chain, at):
            at = 0
        for number, batch in enumerate(self._batches()):
            with entering(chain, at, self._kept[number]) if at > 0 else nullcontext():
                read = self._read(stage.layers[0].module, stage.calls, batch)
            for tensors in read:
                yield tensors[0], batch.get("attention_mask")

    def _batches(self) -> Iterator[Batch]:
        for batch, _labels in self._calibration.batches(self._samples):
            yield batch

    def _keep_inputs_of(self, chain: tuple[Block, ...], at: int) -> bool:
        """Move what is kept to the entry of block `at`: from an earlier block, or from the model's input.

        False where it would take more than `CACHE_BYTES`.
        """
        if chain in self._too_large or self._kept_of == (chain, at):
            return chain not in self._too_large
        same_chain = self._kept_of is not None and self._kept_of[0] is chain
        start = self._kept_of[1] if self._kept_of and same_chain and self._kept_of[1] < at else 0
        kept = self._kept if start else []
        self._kept, self._kept_of = [], None
        for number, batch in enumerate(self._batches()):
            with entering(chain, start, kept[number]) if start else nullcontext():
                ((hidden, *_),) = self._read(chain[at].module, 1, batch)
            kept[number : number + 1] = [hidden]
            if sum(tensor.nbytes for tensor in kept) > CACHE_BYTES:
                self._too_large.add(chain)
                return False
        self._kept, self._kept_of = kept, (chain, at)
        return True

    def _read(self, module: nn.Module, calls: int, batch: Batch) -> list[list[Tensor]]:
        """All tensors that `module` is called with, in a forward pass that stops at the last of its calls."""
        read: list[list[Tensor]] = []

        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read.append([leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)])
            if len(read) == calls:
                raise _Reached

        with module.register_forward_pre_hook(note, with_kwargs=True, prepend=True), suppress(_Reached):
            self._calibration.model.logits(batch)
        return read

    @torch.no_grad()
    def _watch(self, layers: Sequence[Layer]) -> tuple[list[Stage], list[tuple[Block, ...]]]:
        """The stages in the order of the first batch, and the chains. More batches: for layers unseen."""
        order, links = _Order(layers), Links()
        chains: list[tuple[Block, ...]] = []
        model = self._calibration.model
        blocks = blocks_of(model.module, [layer.module for layer in layers])
        for number, batch in enumerate(self._batches()):
            if number == 0:
                with links.watching(blocks), order.watching():
                    model.logits(batch)
                chains = [chain for chain in map(tuple, links.chains()) if self._can_enter(chain, batch)]
            else:
                with order.watching():
                    model.logits(batch)
            if len(order.calls) == len(layers):
                break
        return order.stages(), chains

    def _can_enter(self, chain: tuple[Block, ...], batch: Batch) -> bool:
        """Whether the middle and the last block get the same inputs when those before them do nothing."""
        for at in {len(chain) // 2, len(chain) - 1}:
            module = chain[at].module
            expected = [tensor.clone() for tensor in self._read(module, 1, batch)[0]]
            try:
                with entering(chain, at, expected[0]):
                    ((*given,),) = self._read(module, 1, batch)
            except (RuntimeError, ValueError):  # what a block does not give out is missed elsewhere
                return False
            if len(given) != len(expected) or not all(map(torch.equal, given, expected)):
                return False
        return True


class _Reached(Exception):
    """The forward pass has come to where it was to stop."""


class _Order:
    """Notes in which order layers run, how often, and which read the same tensor one after the other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._groups: list[list[Layer]] = []
        self._last: tuple[Tensor, int, Layer] | None = None
        self.calls: dict[str, int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is open, calls are noted."""
        unseen = [layer for layer in self._layers if layer.name not in self.calls]
        handles = [
            layer.module.register_forward_pre_hook(self._note(layer), with_kwargs=True) for layer in unseen
        ]
        try:
            yield
        finally:
            self._last = None
            for handle in handles:
                handle.remove()

    def _note(self, layer: Layer) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = first_input(args, kwargs)
            assert given is not None, "a layer is fed with a tensor"
            self.calls[layer.name] = self.calls.get(layer.name, 0) + 1
            if self.calls[layer.name] == 1:
                if self._reads_the_same(layer, given):
                    self._groups[-1].append(layer)
                else:
                    self._groups.append([layer])
            self._last = (given, given._version, layer)

        return note

    def _reads_the_same(self, layer: Layer, given: Tensor) -> bool:
        if self._last is None or self._groups[-1][-1] is not self._last[2]:
            return False
        tensor, version, before = self._last
        return tensor is given and version == given._version and geometry(layer) == geometry(before)

    def stages(self) -> list[Stage]:
        """One stage for each group; a layer that runs several times has its own."""
        stages = []
        for group in self._groups:
            if all(self.calls[layer.name] == 1 for layer in group):
                stages.append(Stage(tuple(group), 1))
            else:
                stages += [Stage((layer,), self.calls[layer.name]) for layer in group]
        return stages


def _placed(stage: Stage, chains: Sequence[tuple[Block, ...]]) -> Stage:
    """The stage with the chain and the block that hold its layers, if any."""
    for chain in chains:
        for at, block in enumerate(chain):
            if any(part is stage.layers[0].module for part in block.module.modules()):
                return Stage(stage.layers, stage.calls, chain, at)
    return stage
