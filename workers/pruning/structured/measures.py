"""What a removal leaves - parameters, bytes, heads, neurons, multiply-accumulates - without the cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from workers.figures import no_parameter_needs_gradients, plain_attention
from workers.models.loaded import Batch, LoadedModel
from workers.pruning.structured.graph import DependencyGraph, Kind, Removal
from workers.pruning.structured.surgery import gone_of, touched

Quantity = Callable[[Removal], int]


@dataclass(frozen=True)
class Sizes:
    """Shapes of all tensors of a model, each once under its first name."""

    shapes: dict[str, tuple[int, ...]]
    itemsizes: dict[str, int]
    parameters: frozenset[str]
    first_names: dict[str, str]
    """Every name of a tensor, also where modules share it, to its first."""

    @classmethod
    def of(cls, module: nn.Module) -> "Sizes":
        """As the model is now."""
        firsts: dict[int, str] = {}
        named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
        parameters = {firsts.setdefault(id(value), name) for name, value in named.items()}
        named |= dict(module.named_buffers(remove_duplicate=False))
        names = {name: firsts.setdefault(id(value), name) for name, value in named.items()}
        unique = {name: value for name, value in named.items() if names[name] == name}
        return cls(
            shapes={name: tuple(value.shape) for name, value in unique.items()},
            itemsizes={name: value.element_size() for name, value in unique.items()},
            parameters=frozenset(parameters),
            first_names=names,
        )

    def after(self, graph: DependencyGraph, removal: Removal) -> dict[str, tuple[int, ...]]:
        """The shapes after the cut."""
        lost: dict[tuple[str, int], NDArray[np.bool_]] = {}
        for group in touched(graph, removal):
            gone = gone_of(group, removal[group.name])
            for axis in group.axes:
                key = self.first_names[axis.tensor], axis.dim
                mine = gone[axis.units]
                lost[key] = lost[key] | mine if key in lost else mine
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        for (name, dim), positions in lost.items():
            shapes[name][dim] -= int(positions.sum())
        return {name: tuple(shape) for name, shape in shapes.items()}


def parameters_after(module: nn.Module, graph: DependencyGraph) -> Quantity:
    """A function from a removal to the parameters that stay; shared ones count once."""
    sizes = Sizes.of(module)

    def count(removal: Removal) -> int:
        shapes = sizes.after(graph, removal)
        return sum(int(np.prod(shapes[name])) for name in sizes.parameters)

    return count


def bytes_after(module: nn.Module, graph: DependencyGraph) -> Quantity:
    """A function from a removal to the bytes of the tensors that stay, buffers too."""
    sizes = Sizes.of(module)

    def count(removal: Removal) -> int:
        shapes = sizes.after(graph, removal)
        return sum(int(np.prod(shape)) * sizes.itemsizes[name] for name, shape in shapes.items())

    return count


def units_after(graph: DependencyGraph, kind: Kind) -> Quantity:
    """A function from a removal to the units of one kind that stay: heads (with grouped queries: groups of
    them) or neurons."""
    total = sum(group.size for group in graph.groups if group.kind == kind)
    names = {group.name for group in graph.groups if group.kind == kind}

    def count(removal: Removal) -> int:
        return total - sum(len(units) for name, units in removal.items() if name in names)

    return count


@dataclass(frozen=True)
class _Product:
    """The multiply-accumulates of one operator: they go with a parameter's size or, of two activations, with
    the heads of the module that multiplied them."""

    macs: int
    parameter: str | None
    module: str


def macs_after(model: LoadedModel, graph: DependencyGraph, sample: Batch) -> Quantity:
    """A function from a removal to the multiply-accumulates of one forward pass of `sample`.

    Needs one forward pass, here. The work of an operator with a parameter goes with the parameter's size, and
    that of two activations (attention) with the heads of its module that stay: exact for convolutions, linear
    layers and attention. Counted by torch's own formulas, padding included.
    """
    sizes = Sizes.of(model.module)
    products = _products(model, sample)
    owners = _heads_by_module(graph)

    def count(removal: Removal) -> int:
        shapes = sizes.after(graph, removal)
        total = 0.0
        for product in products:
            if product.parameter is not None:
                name = product.parameter
                kept = float(np.prod(shapes[name])) / float(np.prod(sizes.shapes[name]))
            else:
                kept = _heads_kept(owners, product.module, removal)
            total += product.macs * kept
        return round(total)

    return count


def _heads_by_module(graph: DependencyGraph) -> list[tuple[str, str, int]]:
    """(module, group, size) for each layer that makes heads."""
    return [
        (axis.tensor.rpartition(".")[0], group.name, group.size)
        for group in graph.groups
        if group.kind == "heads"
        for axis in group.axes
        if axis.role == "out"
    ]


def _heads_kept(owners: Sequence[tuple[str, str, int]], module: str, removal: Removal) -> float:
    for layer, group, size in owners:
        if layer == module or layer.startswith(f"{module}.") or not module:
            return 1 - len(removal.get(group, ())) / size
    return 1.0


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operator that multiplies, the parameter that it reads and the module that runs."""

    def __init__(self, module: nn.Module, tracker: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[_Product] = []
        self._tracker = tracker
        self._root = type(module).__name__
        self._names = {
            value.untyped_storage().data_ptr(): name
            for name, value in reversed(list(module.named_parameters()))
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            # the last match: of addmm(bias, input, weight) the weight
            found = [
                self._names[pointer]
                for value in args
                if isinstance(value, Tensor) and value.ndim > 1
                if (pointer := value.untyped_storage().data_ptr()) in self._names
            ]
            flops = formula(*args, **(kwargs or {}), out_val=output)
            self.products.append(_Product(flops // 2, found[-1] if found else None, self._module()))
        return output

    def _module(self) -> str:
        """The innermost module that runs."""
        inner = max(self._tracker.parents - {"Global"}, key=lambda path: path.count("."), default=self._root)
        return inner.removeprefix(self._root).removeprefix(".")


@torch.no_grad()
def _products(model: LoadedModel, sample: Batch) -> list[_Product]:
    was_training = model.module.training
    model.module.eval()
    tracker = ModuleTracker()
    recorder = _Recorder(model.module, tracker)
    with tracker, recorder, plain_attention(), no_parameter_needs_gradients(model.module):
        model.logits(sample)
    model.module.train(was_training)
    return recorder.products
