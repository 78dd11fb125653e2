"""One forward, operator by operator: what meets what."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from workers.pruning.structured.op import Op, Unfollowed, tensors_in
from workers.pruning.structured.parameters import ParameterTable
from workers.pruning.structured.rules import rule_for
from workers.pruning.structured.units import Units


def _like(x: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    statistics = x.new_empty(0)
    return torch.ops.aten.empty_like.default(x), statistics, statistics


def _rows(x: torch.Tensor, weight: torch.Tensor, *_: Any) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[-1])


_SHAPES: dict[str, Callable[..., Any]] = {
    # Without data torch would decompose these: half of the time on densenet121.
    "native_batch_norm": _like,
    "native_layer_norm": _like,
    "native_group_norm": _like,
    # Torch allows half precision only.
    "_grouped_mm": _rows,
}


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the units of parameters through every operator that runs under it."""

    def __init__(self, table: ParameterTable, *, shapes_only: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.shapes_only = shapes_only
        self.units = Units(table.size)
        self.modules: list[str] = []
        """Names of the modules that are running, outermost first."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operator, then note what it did."""
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        short = _SHAPES.get(name) if self.shapes_only else None
        out = short(*args) if short else func(*args, **kwargs)
        op = Op(name=name, args=args, kwargs=kwargs, out=out, units=self.units, table=self.table)
        for tensor in op.tensors():
            op.settle(tensor)
        if next(tensors_in(out), None) is not None and any(op.known(tensor) for tensor in op.tensors()):
            self.units.where = f"{name} in {self.modules[-1]}" if self.modules and self.modules[-1] else name
            self._follow(func, op)
        return out

    def _follow(self, func: Any, op: Op) -> None:
        rule = rule_for(func)
        try:
            if rule is None:
                raise Unfollowed
            rule(op)
        except Unfollowed:
            self.freeze(op.tensors(), op, "no rule follows this operator")
            for tensor in tensors_in(op.out):
                op.label(tensor, (), weight=False)

    def freeze(self, tensors: Iterable[torch.Tensor], op: Op, reason: str) -> None:
        """Everything that `tensors` are made of keeps its size."""
        for tensor in tensors:
            for ids in op.operand(tensor).arrays:
                self.units.freeze(ids, reason)

    def freeze_outputs(self, value: Any) -> None:
        """What the model answers keeps its size."""
        self.units.where = ""
        op = Op("output", (), {}, None, self.units, self.table)
        for tensor in tensors_in(value):
            op.settle(tensor)
        self.freeze(tensors_in(value), op, "the model's output")


@contextmanager
def named(module: nn.Module, running: list[str]) -> Iterator[None]:
    """While inside, `running` holds the names of the modules of `module` whose forward runs."""
    names = {id(each): name for name, each in module.named_modules()}

    def enter(each: nn.Module, args: Any) -> None:
        running.append(names.get(id(each), ""))

    def leave(each: nn.Module, args: Any, out: Any) -> None:
        running.pop()

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
