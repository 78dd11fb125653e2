"""Dependency analysis: which positions of which tensors of a model must go together."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from workers.figures import plain_attention
from workers.pruning.structured.graph import DependencyGraph
from workers.pruning.structured.groups import graph_of
from workers.pruning.structured.parameters import parameter_table
from workers.pruning.structured.rehearsal import Shapes, settle, shapes_of
from workers.pruning.structured.tracer import Tracer, named

_CACHES = frozenset({"past_key_values", "mems", "cache_params"})
_STOPS = (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, AssertionError)
"""What a forward raises on tensors without data."""


def trace(module: nn.Module, run: Callable[[nn.Module], object]) -> DependencyGraph:
    """All groups of `module` that may lose units: what `follow` finds, less what a rehearsed cut shows to be
    fixed by the model's code.

    `run` makes one forward with an example batch of at least two. The module is as before afterwards.
    Whatever `run` raises on real tensors passes through.
    """
    graph, shapes = _followed(module, run)
    return settle(module, run, graph, shapes)


def follow(module: nn.Module, run: Callable[[nn.Module], object]) -> DependencyGraph:
    """All groups that the operators of one forward show. What cannot be followed keeps its size, with the
    reason.

    Runs in evaluation mode on tensors without data (no arithmetic, no memory); where the model's code looks
    at values, again on real ones.
    """
    return _followed(module, run)[0]


def _followed(module: nn.Module, run: Callable[[nn.Module], object]) -> tuple[DependencyGraph, Shapes]:
    with _unchanged(module), torch.no_grad(), plain_attention():
        module.eval()
        try:
            tracer, shapes = _forward(module, run, fake=True)
        except _STOPS:
            tracer, shapes = _forward(module, run, fake=False)
    return graph_of(tracer.table, tracer.units.resolve()), shapes


def _forward(module: nn.Module, run: Callable[[nn.Module], object], *, fake: bool) -> tuple[Tracer, Shapes]:
    tracer = Tracer(parameter_table(module), shapes_only=fake)
    with ExitStack() as stack:
        stack.enter_context(named(module, tracer.modules))
        if fake:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(tracer)
        outputs = [run(module)]
        if fake and _idle(tracer):
            outputs += _trained(module, run)
    tracer.freeze_outputs(_plain(outputs))
    return tracer, shapes_of(outputs[0])


def _idle(tracer: Tracer) -> bool:
    """Whether some parameters met no operator: GoogLeNet has classifiers that only run in training."""
    met = {axis.tensor for axis in tracer.table.axes if axis.role is not None}
    return any(axis.tensor not in met for axis in tracer.table.axes if axis.learned and axis.rank > 1)


def _trained(module: nn.Module, run: Callable[[nn.Module], object]) -> list[object]:
    """What the model answers in training mode; nothing where the example is too small for that."""
    module.train()
    try:
        return [run(module)]
    except _STOPS:
        return []
    finally:
        module.eval()


def _plain(value: Any) -> Any:
    """Nested lists of the tensors in a result; key-value caches are not results."""
    if isinstance(value, Mapping):
        return [_plain(each) for key, each in value.items() if key not in _CACHES]
    if is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, each.name)) for each in fields(value) if each.name not in _CACHES]
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Put back every attribute that a forward may set: modes, caches, buffers, and the hooks by which
    transformers collects hidden states: it would add them again in the next forward, and find each twice."""
    saved = [
        (each, dict(each.__dict__), [dict(table) for table in _tables(each)]) for each in module.modules()
    ]
    try:
        yield
    finally:
        for each, attributes, tables in saved:
            each.__dict__.clear()
            each.__dict__.update(attributes)
            for table, before in zip(_tables(each), tables, strict=True):
                table.clear()
                table.update(before)


def _tables(module: nn.Module) -> tuple[dict[Any, Any], ...]:
    return module._buffers, module._parameters, module._modules, module._forward_hooks
