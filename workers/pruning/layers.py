"""Which layers of a model can be pruned, and which of them a job prunes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from schemas.allocation import UniformAllocation
from schemas.method import SemiStructured, Unstructured
from workers.errors import PreflightError

PRUNABLE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    Conv1D,
)
EVERYTHING = ("*",)
TIED = "its weight is the embedding's too; name it in method.include to cut both"
HEAD = "head of a language model, dense as in SparseGPT and Wanda; name it in method.include to cut it"
_NAMES_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Layer:
    """A module with a prunable weight, under its name in the model."""

    name: str
    module: nn.Module
    weight: nn.Parameter
    kind: str
    kept: str | None = None
    """Why it stays dense unless method.include names it: it is the head of a language model."""


@dataclass(frozen=True, eq=False)
class Choice:
    """All prunable layers in module order; one with a reason stays dense."""

    layers: tuple[Layer, ...]
    reasons: dict[str, str]

    @property
    def pruned(self) -> list[Layer]:
        """The layers that are cut."""
        return [layer for layer in self.layers if layer.name not in self.reasons]


def prunable_layers(module: nn.Module) -> list[Layer]:
    """Linear layers and convolutions in module order; a weight that several share counts once.

    A weight that is computed from others (weight norm and other parametrizations) is not prunable.
    """
    layers: list[Layer] = []
    seen: set[int] = set()
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    head = _language_head(module)
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if isinstance(part, PRUNABLE) and isinstance(weight, nn.Parameter) and id(weight) not in seen:
            seen.add(id(weight))
            kept = TIED if id(weight) in embeddings else HEAD if part is head else None
            kind = next(one.__name__ for one in PRUNABLE if isinstance(part, one))
            layers.append(Layer(name, part, weight, kind, kept))
    return layers


def _language_head(module: nn.Module) -> nn.Module | None:
    """The layer that gives scores over the vocabulary, where the model is a language model."""
    if not isinstance(module, PreTrainedModel):
        return None
    head: nn.Module | None = module.get_output_embeddings()
    return head


def packed_attention(module: nn.Module) -> list[str]:
    """Names of attention layers whose query, key and value weights are one tensor: those stay dense."""
    return [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None
    ]


def outside_layers(module: nn.Module) -> dict[str, int]:
    """How many weights the parameters have that no prunable layer holds, of three axes or more: experts in
    one tensor, position tables, weights that are computed from others. They stay dense."""
    held = {id(layer.weight) for layer in prunable_layers(module)}
    return {
        name: one.numel()
        for name, one in module.named_parameters()
        if id(one) not in held and sum(size > 1 for size in one.shape) >= 3
    }


def all_of(module: nn.Module) -> Choice:
    """Every prunable layer of `module`, and none left out."""
    return Choice(tuple(prunable_layers(module)), {})


def resized(module: nn.Module, dense: nn.Module) -> Choice:
    """Every prunable layer of a `module` that lost units; one with the weight's shape of `dense` stayed."""
    shapes = {layer.name: layer.weight.shape for layer in prunable_layers(dense)}
    layers = prunable_layers(module)
    kept = [layer.name for layer in layers if shapes.get(layer.name) == layer.weight.shape]
    return Choice(tuple(layers), dict.fromkeys(kept, "its weight keeps its shape"))


def choose(layers: Sequence[Layer], method: Unstructured | SemiStructured) -> Choice:
    """Split the layers by the globs and the allocation of `method`.

    Raises PreflightError where a glob matches no layer, or nothing is left to prune.
    """
    if not layers:
        raise PreflightError("the model has no linear or convolution layer: there is nothing to prune")
    names = [layer.name for layer in layers]
    _refuse_idle_globs("include", method.include, names)
    _refuse_idle_globs("exclude", method.exclude, names)
    reasons = {name: reason for name in names if (reason := _by_glob(name, method))}
    if method.include == EVERYTHING:
        for layer in layers:
            if layer.kept is not None:
                reasons.setdefault(layer.name, layer.kept)
    if _keeps_ends(method):
        for place, name in (("first", names[0]), ("last", names[-1])):
            reasons.setdefault(name, f"{place} layer, kept dense by uniform allocation")
    choice = Choice(tuple(layers), reasons)
    if not choice.pruned:
        told = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:_NAMES_SHOWN])
        raise PreflightError(
            f"no layer is left to prune ({told}): widen method.include or narrow method.exclude"
        )
    if isinstance(method, Unstructured):
        _refuse_idle_globs("overrides", method.overrides, [layer.name for layer in choice.pruned])
    return choice


def _keeps_ends(method: Unstructured | SemiStructured) -> bool:
    if isinstance(method, SemiStructured) or not isinstance(method.allocation, UniformAllocation):
        return False
    return method.allocation.keep_first_and_last


def _by_glob(name: str, method: Unstructured | SemiStructured) -> str | None:
    excluding = _first_match(name, method.exclude)
    if excluding is not None:
        return f"excluded by '{excluding}'"
    if _first_match(name, method.include) is None:
        return "not matched by method.include"
    return None


def _first_match(name: str, globs: Iterable[str]) -> str | None:
    return next((glob for glob in globs if fnmatchcase(name, glob)), None)


def _refuse_idle_globs(field: str, globs: Iterable[str], names: Sequence[str]) -> None:
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            some = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
            raise PreflightError(f"method.{field}: '{glob}' matches no prunable layer (there are: {some})")
