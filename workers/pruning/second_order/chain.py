"""Blocks of a model that feed each other, so that a forward pass can enter in the middle of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def blocks_of(module: nn.Module, holding: Sequence[nn.Module]) -> list[nn.Module]:
    """Children of the outermost lists and sequences in `module` where two or more hold one of `holding`."""
    wanted = set(holding)

    def holds(part: nn.Module) -> bool:
        return any(inner in wanted for inner in part.modules())

    def walk(part: nn.Module) -> Iterator[nn.Module]:
        children = list(part.children())
        is_list = isinstance(part, nn.ModuleList | nn.Sequential)
        if is_list and sum(holds(child) for child in children) > 1:
            yield from children
            return
        for child in children:
            yield from walk(child)

    return list(dict.fromkeys(walk(module)))


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first tensor that a module is called with."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


@dataclass(frozen=True, eq=False)
class Block:
    """One module of a chain."""

    module: nn.Module
    extras: int | None
    """How many times None follows its output in a tuple; None: it gives out a tensor, not a tuple."""

    def wrapped(self, hidden: Tensor) -> Any:
        """`hidden` as the block would give it out."""
        return hidden if self.extras is None else (hidden, *[None] * self.extras)


class Links:
    """Watches one forward pass: which block takes just what another gave out, unchanged."""

    def __init__(self) -> None:
        self._calls: dict[nn.Module, int] = {}
        self._before: dict[nn.Module, nn.Module] = {}
        self._extras: dict[nn.Module, int | None] = {}
        self._last: tuple[nn.Module, Tensor, int] | None = None

    @contextmanager
    def watching(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """While this is open, the calls of `blocks` are noted."""
        handles = [block.register_forward_pre_hook(self._enters, with_kwargs=True) for block in blocks]
        handles += [block.register_forward_hook(self._leaves) for block in blocks]
        try:
            yield
        finally:
            self._last = None
            for handle in handles:
                handle.remove()

    def _enters(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._calls[block] = self._calls.get(block, 0) + 1
        given = first_input(args, kwargs)
        if self._last is not None and self._last[1] is given and self._last[2] == given._version:
            self._before[block] = self._last[0]
        self._last = None

    def _leaves(self, block: nn.Module, _args: tuple[Any, ...], output: object) -> None:
        extras = len(output) - 1 if isinstance(output, tuple) else None
        tensor, *others = output if isinstance(output, tuple) else (output,)
        if isinstance(tensor, Tensor) and all(other is None for other in others):
            self._last = (block, tensor, tensor._version)
            self._extras[block] = extras

    def chains(self) -> list[list[Block]]:
        """Runs of two or more blocks, each called once, each fed by the one before it."""
        found: list[list[nn.Module]] = []
        for block, calls in self._calls.items():
            if calls > 1:
                continue
            if found and found[-1][-1] is self._before.get(block):
                found[-1].append(block)
            else:
                found.append([block])
        return [[Block(part, self._extras.get(part)) for part in chain] for chain in found if len(chain) > 1]


@contextmanager
def entering(chain: Sequence[Block], at: int, hidden: Tensor) -> Iterator[None]:
    """While this is open, block `at` of the chain gets a copy of `hidden`, and those before it do nothing.

    What lies around the blocks (embeddings, masks, positions) runs as always. The copy keeps `hidden` from
    layers that work in place.
    """
    undo = [_replace(block, _zeros_like_input) for block in chain[: at - 1]]
    undo.append(_replace(chain[at - 1], lambda *_args, **_kwargs: hidden.clone()))
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _zeros_like_input(*args: Any, **kwargs: Any) -> Tensor:
    given = first_input(args, kwargs)
    assert given is not None, "a block of a chain is fed with a tensor"
    return torch.zeros_like(given)


def _replace(block: Block, forward: Callable[..., Tensor]) -> Callable[[], None]:
    """Put another forward into the block's module; returns what undoes it."""
    own = vars(block.module).get("forward")

    def instead(*args: Any, **kwargs: Any) -> Any:
        return block.wrapped(forward(*args, **kwargs))

    def restore() -> None:
        del block.module.forward
        if own is not None:
            block.module.forward = own

    block.module.forward = instead
    return restore
