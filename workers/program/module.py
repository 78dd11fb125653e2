"""A program as a module: layers of PyTorch where it calls them, and its other operators between them."""

import logging
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from workers.errors import ModelError
from workers.program.archive import Program, reading
from workers.program.build import build
from workers.program.inputs import Input
from workers.program.layers import lift

MAX_VALUE_BYTES = 16 * 2**30
"""Of one intermediate result for two samples: a graph of ten nodes could ask for any amount."""


class ProgramModule(fx.GraphModule):
    """The program's graph; `forward` takes its inputs by name and gives the scores."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it takes, in order."""
        inputs: tuple[Input, ...] = self.meta["inputs"]
        return inputs

    @property
    def config(self) -> SimpleNamespace:
        """What readers of texts ask a model of transformers."""
        config: SimpleNamespace = self.meta["config"]
        return config

    def get_input_embeddings(self) -> nn.Module:
        """The table that token ids are looked up in, as of a model of transformers.

        Raises ModelError where the program looks ids up in another way.
        """
        layers = dict(self.named_modules())
        for node in self.graph.nodes:
            layer = layers.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(layer, nn.Embedding):
                reads = node.args[0]
                if isinstance(reads, fx.Node) and reads.target == self.inputs[0].name:
                    return layer
        raise ModelError(
            f"the program does not look up '{self.inputs[0].name}' in an embedding: export it with the token "
            "ids as its first input"
        )


def module_of(program: Program) -> ProgramModule:
    """The program in float32 and evaluation mode. Raises ModelError where it cannot be built or run.

    It is run once, on two samples without data, to learn the axes of its values.
    """
    with reading(program.name):
        built = build(program)
        built.root.to(torch.float32)
        _Watched(built.root, graph=built.graph).run_without_data(built.inputs)
        lift(built.root, built.graph)
        module = ProgramModule(built.root, built.graph)
        module.meta.update(inputs=built.inputs, config=SimpleNamespace())
        return module.eval()


def scores_of_two(module: ProgramModule, name: str) -> Tensor:
    """What the program gives for two samples: a tensor without data."""
    with reading(name):
        return _Watched(module).run_without_data(module.inputs)


class _Watched(fx.Interpreter):
    """Runs a graph on tensors without data; each node then knows how many axes its value has."""

    def run_without_data(self, inputs: tuple[Input, ...]) -> Tensor:
        """The result for two samples, and free axes of length 8 or their limit."""
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with _quietly(), mode, torch.no_grad():
            batch = [torch.zeros(_shape(one), dtype=one.dtype) for one in inputs]
            scores = self.run(*batch)
        if not isinstance(scores, Tensor):
            raise ModelError("the program gives no tensor: export a model that gives scores")
        return scores

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Python's own arithmetic gets numbers only: a list, multiplied, could be of any length."""
        plain = not isinstance(target, torch._ops.OpOverload) and target not in (getattr, operator.getitem)
        if plain and not all(isinstance(one, int | float) for one in args):
            raise ModelError(
                f"the program's call of '{target.__name__}' gets more than numbers: export it again"
            )
        return super().call_function(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ModelError(f"the program's '{n.name}' is {value:.3g}, too large a size: export it again")
        if isinstance(value, Tensor):
            n.meta["axes"] = value.dim()
            if value.numel() * value.element_size() > MAX_VALUE_BYTES:
                raise ModelError(
                    f"the program's '{n.name}' has the shape {list(value.shape)} for two samples, more than "
                    f"{MAX_VALUE_BYTES // 2**30} GiB: export a smaller model"
                )
        return value


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's pages on a shape that does not fit: the ModelError says it."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _shape(one: Input) -> list[int]:
    free = [2, *(8 for _ in one.shape[1:])]
    return [
        min(length, most or length) if size is None else size
        for size, length, most in zip(one.shape, free, one.most, strict=True)
    ]
