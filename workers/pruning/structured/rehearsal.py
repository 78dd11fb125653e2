"""A cut tried on a copy without data: what the code of a model cannot do without keeps its size.

Some modules work out a width from their input (`reshape(B, N, 3, heads, C // heads)`), or from a constant. No
operator shows that; a forward pass after the cut does.
"""

import copy
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from workers.errors import PreflightError
from workers.pruning.structured.graph import DependencyGraph, Group, Removal
from workers.pruning.structured.surgery import remove

Run = Callable[[nn.Module], object]
Shapes = list[tuple[int, ...]]

SHARES = (0.5, 0.25, 0.75)
"""Of a group, in turn: a width that the code derives from another one shows when they shrink differently."""
_SHOWN = 200
# What a forward, or a cut that a module cannot take, raises
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    PreflightError,
    RuntimeError,
    TypeError,
    ValueError,
)


def settle(module: nn.Module, run: Run, graph: DependencyGraph) -> DependencyGraph:
    """The graph without the groups that `module`, run as in `trace`, cannot lose units of; they are frozen.

    Rehearses a cut of all groups. Where that fails, groups are tried by pattern of name
    (`layers.#.attn`) and bisected within it. Nothing is computed, and copies have no data, unless the model's
    code looks at values. `module` stays as it is.
    """
    stage = _Stage(module, run, graph)
    if not graph.groups or stage.trouble(graph.groups) is None:
        return graph
    reasons: dict[str, str] = {}
    safe: list[Group] = []
    for pattern in _by_pattern(graph.groups):
        reasons |= stage.culprits(pattern)
    for group in graph.groups:
        if group.name not in reasons:
            safe.append(group)
    if safe and stage.trouble(safe) is not None:
        safe = stage.grown(safe, reasons)
    return DependencyGraph(groups=tuple(safe), frozen=graph.frozen | reasons)


class _Stage:
    """A model and its forward, to cut copies of: on the meta device, where the model's code takes that."""

    def __init__(self, module: nn.Module, run: Run, graph: DependencyGraph) -> None:
        self.module, self.run, self.graph = module, run, graph
        self.copied: Callable[[nn.Module, ExitStack], nn.Module] = _on_meta
        self.expected = self._first_that_runs((_on_meta, _fake, _real))

    def trouble(self, groups: Sequence[Group]) -> str | None:
        """What goes wrong when `groups` lose units; None: nothing.

        A hidden size is what widths are derived from most often: the others are tried without it first.
        """
        others = [group for group in groups if group.kind != "hidden"]
        for some in (others, groups) if 0 < len(others) < len(groups) else (groups,):
            try:
                found = self._shapes(uneven(some))
            except _BROKEN as error:
                return f"the code of the model fixes this width ({_told(error)})"
            if found != self.expected:
                return "without some of its units the outputs have another shape"
        return None

    def culprits(self, groups: Sequence[Group]) -> dict[str, str]:
        """The groups that cause trouble by themselves, with what it is."""
        reason = self.trouble(groups)
        if reason is None:
            return {}
        # where the ends fail the whole pattern does: layers of one kind, not one odd one
        if len(groups) <= 2 or (self.trouble(groups[:1]) and self.trouble(groups[-1:])):
            if len(groups) == 2 and not all(self.trouble([group]) for group in groups):
                return self.culprits(groups[:1]) | self.culprits(groups[1:])
            return {group.name: reason for group in groups}
        middle = len(groups) // 2
        return self.culprits(groups[:middle]) | self.culprits(groups[middle:])

    def grown(self, groups: Sequence[Group], reasons: dict[str, str]) -> list[Group]:
        """As many patterns as go together, in order; the others join `reasons`."""
        safe: list[Group] = []
        for pattern in _by_pattern(groups):
            reason = self.trouble([*safe, *pattern])
            if reason is None:
                safe.extend(pattern)
            else:
                reasons.update({group.name: reason for group in pattern})
        return safe

    def _first_that_runs(self, ways: Sequence[Callable[[nn.Module, ExitStack], nn.Module]]) -> Shapes:
        for self.copied in ways[:-1]:
            try:
                return self._shapes({})
            except _BROKEN:
                continue
        self.copied = ways[-1]
        return self._shapes({})

    @torch.no_grad()
    def _shapes(self, removal: Removal) -> Shapes:
        """Shapes of the outputs after `removal`."""
        with ExitStack() as stack:
            copied = self.copied(self.module, stack).eval()
            if removal:
                remove(copied, self.graph, removal)
            outputs = tree_leaves(_plain(self.run(copied)))
        return [tuple(leaf.shape) for leaf in outputs if isinstance(leaf, Tensor)]


def _on_meta(module: nn.Module, stack: ExitStack) -> nn.Module:
    """Tensors without data that torch's own kernels work out: a sixth of the time of the next."""
    copied = _with_tensors(module, lambda tensor: tensor.detach().to("meta"))
    hook = copied.register_forward_pre_hook(_inputs_to_meta, with_kwargs=True)
    stack.callback(hook.remove)
    return copied


def _fake(module: nn.Module, stack: ExitStack) -> nn.Module:
    """Tensors without data that say which device they are on, for code that makes tensors of its own."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    stack.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.CRITICAL)  # it prints what a cut breaks
    mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
    return _with_tensors(module, lambda tensor: mode.from_tensor(tensor.detach()))


def _real(module: nn.Module, stack: ExitStack) -> nn.Module:
    """A copy with data, for code that looks at values."""
    del stack
    return copy.deepcopy(module)


def _with_tensors(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        new = convert(tensor)
        memo[id(tensor)] = nn.Parameter(new, requires_grad=False) if isinstance(tensor, nn.Parameter) else new
    return copy.deepcopy(module, memo)


def _inputs_to_meta(module: nn.Module, args: Any, kwargs: Any) -> Any:
    del module
    return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))


def uneven(groups: Iterable[Group]) -> Removal:
    """The last units of each group, a share in turn: at least one goes, and one stays."""
    removal = {}
    for number, group in enumerate(groups):
        gone = min(max(1, int(SHARES[number % len(SHARES)] * group.size)), group.size - 1)
        if gone:
            removal[group.name] = np.arange(group.size - gone, group.size)
    return removal


def _plain(value: Any) -> Any:
    """Of an output with names only what it holds: caches are no results."""
    if hasattr(value, "keys"):
        return [value[key] for key in value.keys() if "past" not in key and "cache" not in key]  # noqa: SIM118
    return value


def _by_pattern(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups of one kind whose names differ in numbers only."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.kind, re.sub(r"\d+", "#", group.name)), []).append(group)
    return list(found.values())


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_SHOWN].rstrip(".")
