"""Image classifiers of torchvision, described by a small config.json of ours."""

from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import did_you_mean
from workers.models.loaded import Batch, LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.weights import fill, read_weights
from workers.pruning.structured.reload import is_pruned, load_pruned

EXAMPLE = '{"library_name": "torchvision", "architecture": "resnet18", "num_classes": 10}'
REMEDY = "give the architecture and num_classes that these weights were trained with"


def load_torchvision(folder: Path, task: Task, config: dict[str, Any]) -> LoadedModel:
    """Build `config["architecture"]` and fill it with the folder's weights; ModelError if they disagree."""
    if task is not Task.image_classification:
        raise ModelError(
            f"config.json: torchvision models classify images, but data.task is '{task.value}': "
            "set data.task to 'image-classification'"
        )
    name = _architecture(config)
    classes = config.get("num_classes")
    if not isinstance(classes, int) or not 2 <= classes <= 1_000_000:
        raise ModelError(
            f"config.json: 'num_classes' is {classes!r}: give the number of classes, two or more"
        )
    weights = read_weights(folder)
    if is_pruned(config):
        module = load_pruned(folder, lambda: _build(name, classes, weights))
    else:
        module = _build(name, classes, weights)
        fill(module, weights, named=f"torchvision {name}", remedy=REMEDY)
    return LoadedModel(
        module=module.eval(),
        architecture=f"torchvision/{name}",
        task=task,
        classes=classes,
        folder=folder,
        image_size=read_preprocessing(folder, 3).size,
        image_channels=3,
        call=_logits,
    )


def _logits(module: nn.Module, batch: Batch) -> Tensor:
    output = module(batch["pixel_values"])
    # GoogLeNet and Inception answer (logits, auxiliary logits) in training mode
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits


def _architecture(config: dict[str, Any]) -> str:
    name = config.get("architecture")
    known = torchvision.models.list_models(module=torchvision.models)
    if not isinstance(name, str) or name not in known:
        raise ModelError(
            f"config.json: unknown architecture {name!r}: {did_you_mean(str(name), known)}"
            f"torchvision {torchvision.__version__} has {len(known)} classifiers; "
            f"a config.json looks like {EXAMPLE}"
        )
    return name


def _build(name: str, classes: int, weights: dict[str, Tensor]) -> nn.Module:
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        has_heads = any(key.lower().startswith("aux") for key in weights)
        options = {"aux_logits": has_heads, "init_weights": False}
    module: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return module
