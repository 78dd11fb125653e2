"""A small pruned model, and a short training of it."""

import torch
from torch import Tensor

from schemas.fine_tune import FineTune, Sgd
from schemas.method import Unstructured
from schemas.schedule import Gradual
from tests.unit.pruning.small import loaded, small_bundle, small_module
from workers.fine_tune import FineTuneResult, fine_tune
from workers.models.loaded import LoadedModel
from workers.pruning.layers import Choice, choose, prunable_layers
from workers.training.masks import MaskUpdates

BATCH = 16
STEPS = 96 // BATCH


@torch.no_grad()
def cut_to(choice: Choice, sparsity: float, scores: list[Tensor] | None = None) -> None:
    """Zero exactly this share of all pruned weights: the smallest scores go, by default magnitudes."""
    weights = [layer.weight for layer in choice.pruned]
    flat = torch.cat([one.abs().flatten() for one in scores or weights])
    flat.masked_fill_(torch.cat([one.flatten() for one in weights]) == 0, -1.0)
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[flat.argsort(stable=True)[: round(sparsity * len(flat))]] = True
    for weight, mask in zip(weights, gone.split([one.numel() for one in weights]), strict=True):
        weight.masked_fill_(mask.view(weight.shape), 0.0)


def pruned_model(sparsity: float = 0.6) -> tuple[LoadedModel, Choice]:
    model = loaded(small_module())
    choice = choose(prunable_layers(model.module), Unstructured())
    cut_to(choice, sparsity)
    return model, choice


def gradual(choice: Choice, final: float = 0.8, **schedule) -> MaskUpdates:
    return MaskUpdates(Gradual(**schedule), final, lambda share: cut_to(choice, share))


def train(model: LoadedModel, choice: Choice, bundle=None, *, epochs=1, **options) -> FineTuneResult:
    """One round with SGD, whatever `options` of the spec or of `fine_tune` say."""
    own = {"teacher": None, "on_step": lambda _: None, "evaluate_epoch": None}
    own |= {"mask_updates": None, "after_backward": None}
    given = {name: options.pop(name, default) for name, default in own.items()}
    spec = FineTune.model_validate({"batch_size": BATCH, "optimizer": Sgd(lr=0.05), **options})
    bundle = bundle or small_bundle()
    return fine_tune(model, bundle, choice, spec, epochs=epochs, seed=0, number=1, **given)


def zeros(choice: Choice) -> list[Tensor]:
    """Where each pruned layer is zero now."""
    return [layer.weight.detach() == 0 for layer in choice.pruned]


def count(masks: list[Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks)


def state(model: LoadedModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)
