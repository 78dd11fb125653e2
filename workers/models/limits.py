"""How large a model may become while its library builds it: config.json can ask for anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.nn.parameter import is_lazy

from service.store.tensor_header import TensorHeader
from workers.errors import ModelError
from workers.models.folder import CONFIG, entries

PRUNED = 100
"""How many times as many numbers as its file a model may have before it is cut as its history says."""

_TIMES = 4
"""Numbers may be registered when they are made, filled, tied and renamed."""
_MORE_ELEMENTS = 2**26
"""Tables of positions and masks that no file has."""
_MODULES_A_TENSOR = 10
_MORE_MODULES = 1000
_MOST_LAYERS = 10_000
_MOST_CLASSES = 1_000_000
_MOST_POSITIONS = 2**24
_BOUNDS = (
    (("layer", "depth"), _MOST_LAYERS),
    (("num_labels", "num_classes"), _MOST_CLASSES),
    (("position", "n_ctx", "max_length", "max_seq"), _MOST_POSITIONS),
)
"""By parts of a key: constructors loop over these numbers before there is a tensor to count."""


def refuse_absurd(config: dict[str, Any]) -> None:
    """ModelError where `config.json` has more layers, classes or positions than any model."""
    for key, value in entries(config, CONFIG):
        most = next((most for parts, most in _BOUNDS if any(part in key for part in parts)), None)
        numbers = value if isinstance(value, list) else [value]
        if most and any(isinstance(one, int | float) and abs(one) > most for one in numbers):
            raise ModelError(f"{CONFIG}: '{key}' is {str(value)[:50]}; at most {most:,} are built")


@contextmanager
def bounded(stored: TensorHeader, *, factor: int = 1) -> Iterator[None]:
    """While it lasts, ModelError ends the making of a module that is far too large for a file of `stored`.

    Counted are all numbers that modules are given, in this process; `factor` times as many as usual may be.
    """
    most = factor * _TIMES * stored.elements.total() + _MORE_ELEMENTS
    most_modules = factor * _MODULES_A_TENSOR * stored.tensors + _MORE_MODULES
    taken = modules = 0

    def count(module: nn.Module, name: str, value: Tensor | None) -> None:
        nonlocal taken
        taken += 0 if value is None or is_lazy(value) else value.numel()
        if taken > most:
            raise _too_large(stored)

    def count_module(module: nn.Module, name: str, part: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > most_modules:
            raise _too_large(stored)

    handles = [
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
        registration.register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _too_large(stored: TensorHeader) -> ModelError:
    return ModelError(
        f"{CONFIG} describes a far larger model than the weights are ({stored.elements.total():,} numbers in "
        f"{stored.tensors:,} tensors): give the {CONFIG} that these weights were saved with"
    )
