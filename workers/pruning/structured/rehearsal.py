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


def settle(module: nn.Module, run: Run, graph: DependencyGraph, shapes: Shapes) -> DependencyGraph:
    """The graph without the groups that `module`, run as in `trace`, cannot lose units of; they are frozen.

    `shapes` are those of the dense model's outputs, which must stay.
    Rehearses a cut of all groups. Where that fails, groups are tried by pattern of name
    (`layers.#.attn`) and bisected within it. Nothing is computed, and copies have no data, unless the model's
    code looks at values. `module` stays as it is.
    """
    stage = _Stage(module, run, graph, shapes)
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

    def __init__(self, module: nn.Module, run: Run, graph: DependencyGraph, shapes: Shapes) -> None:
        self.module, self.run, self.graph, self.expected = module, run, graph, shapes
        self.ways = [_on_meta, _fake, _real]
        self.sure = False

    def trouble(self, groups: Sequence[Group]) -> str | None:
        """What goes wrong when `groups` lose units; None: nothing.

        A hidden size is what widths are derived from most often: the others are tried without it first.
        """
        others = [group for group in groups if group.kind != "hidden"]
        for some in (others, groups) if 0 < len(others) < len(groups) else (groups,):
            if (reason := self._tried(uneven(some))) is not None:
                return reason
        return None

    def _tried(self, removal: Removal) -> str | None:
        try:
            found = self._shapes(removal)
        except _BROKEN as error:
            if len(self.ways) > 1 and not self._runs_dense():
                del self.ways[0]
                return self._tried(removal)
            return f"the code of the model fixes this width ({_told(error)})"
        return None if found == self.expected else "without some of its units the outputs have another shape"

    def _runs_dense(self) -> bool:
        """Whether the model's code takes such copies at all; asked once, after something broke."""
        if self.sure:
            return True
        try:
            self._shapes({})
        except _BROKEN:
            return False
        self.sure = True
        return True

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

    @torch.no_grad()
    def _shapes(self, removal: Removal) -> Shapes:
        """Shapes of the outputs after `removal`."""
        with ExitStack() as stack:
            copied = self.ways[0](self.module, stack).eval()
            if removal:
                remove(copied, self.graph, removal)
            return shapes_of(self.run(copied))


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


def shapes_of(output: Any) -> Shapes:
    """Shapes of all tensors in an output, by the order of its fields; caches are no results."""
    if hasattr(output, "keys"):
        output = [output[key] for key in output.keys() if "past" not in key and "cache" not in key]  # noqa: SIM118
    return [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _by_pattern(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups of one kind whose names differ in numbers only."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.kind, re.sub(r"\d+", "#", group.name)), []).append(group)
    return list(found.values())


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_SHOWN].rstrip(".")
