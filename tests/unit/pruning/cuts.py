"""A small model with samples to measure it by, and cuts of it."""

import torch
from torch import Tensor, nn

from schemas.method import SemiStructured, Unstructured
from tests.unit.pruning.small import loaded, small_bundle, small_module
from workers.pruning.calibration import Calibration
from workers.pruning.cut import CutResult, cut
from workers.pruning.layers import Choice, Layer, choose, prunable_layers

WEIGHTS = 72 + 1728 + 72
UNIFORM = {"kind": "uniform", "keep_first_and_last": False}
ERK = {"kind": "erk"}
LAMP = {"kind": "lamp"}


def calibrated(module: nn.Module, *, bundle=None, batch_size: int = 16) -> Calibration:
    return Calibration(loaded(module), bundle or small_bundle(), 0, batch_size, lambda: None)


def chosen(module: nn.Module | None = None, **method) -> Choice:
    return choose(prunable_layers(module or small_module()), Unstructured.model_validate(method))


def layer_of(module: nn.Module) -> Layer:
    """The one prunable layer of a module."""
    (layer,) = prunable_layers(module)
    return layer


def cut_to(
    choice: Choice, share: float, method: Unstructured | SemiStructured | None = None, **options
) -> CutResult:
    given = {"calibration": None, "evaluate": None, "movement": None, "seed": 0, "number": 1}
    return cut(choice, method or Unstructured(), share, **(given | options))


def cut_module(module: nn.Module, share: float, *, number: int = 1, evaluate=None, **method) -> CutResult:
    """A cut of all layers of `module` by a method of these fields."""
    pattern = SemiStructured if "n" in method else Unstructured
    progress = method.pop("progress", 1.0)
    spec = pattern.model_validate(method)
    choice = choose(prunable_layers(module), spec)
    given = {"calibration": calibrated(module), "evaluate": evaluate, "number": number, "progress": progress}
    return cut_to(choice, share, spec, **given)


def masks(module: nn.Module) -> list[Tensor]:
    """Where each prunable layer is zero."""
    return [layer.weight.detach() == 0 for layer in prunable_layers(module)]


def zeros(module: nn.Module) -> list[int]:
    return [int(mask.sum()) for mask in masks(module)]


def grew(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(bool((old <= new).all()) for old, new in zip(before, after, strict=True))


def nudged(module: nn.Module, *, seed: int) -> None:
    """As training would: other values, but zeros stay."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in prunable_layers(module):
            noise = torch.randn(layer.weight.shape, generator=generator) * 0.05
            layer.weight.add_(noise * (layer.weight != 0))
