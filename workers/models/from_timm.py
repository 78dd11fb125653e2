"""Image classifiers of timm, in the layout that timm itself writes: config.json states how to build."""

from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import did_you_mean
from workers.models.limits import PRUNED, bounded, refuse_absurd
from workers.models.loaded import Batch, LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.weights import fill, read_weights, stored_header
from workers.pruning.structured.reload import is_pruned, load_pruned

EXAMPLE = (
    '{"library_name": "timm", "architecture": "resnet18", "num_classes": 10, '
    '"pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}'
)

_OURS = (
    "cache_dir",
    "checkpoint_path",
    "device",
    "dtype",
    "exportable",
    "features_only",
    "model_name",
    "no_jit",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "scriptable",
)
"""Arguments that would fetch weights, or give something else than a classifier."""
_OF_INPUT = ("input_size", "fixed_input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
# What the constructors of some 1,300 architectures raise on arguments that they cannot take
_BAD_ARGUMENTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
REMEDY = "give the config.json that timm saved with these weights"


def load_timm(folder: Path, task: Task, config: dict[str, Any]) -> LoadedModel:
    """Build `config["architecture"]` with `config["model_args"]` and fill it with the folder's weights.

    Nothing is fetched: neither weights nor configurations. ModelError where config and weights disagree.
    """
    if task not in (Task.image_classification, Task.regression):
        raise ModelError(
            f"config.json: timm models classify images, but data.task is '{task.value}': "
            "set data.task to 'image-classification', or to 'regression' for one number"
        )
    refuse_absurd(config)
    name = _architecture(config)
    classes = _classes(config)
    least, most = (1, 1) if task is Task.regression else (2, 1_000_000)
    if not isinstance(classes, int) or not least <= classes <= most:
        raise ModelError(
            f"config.json: 'num_classes' is {classes!r}: give the number of classes, two or more, or 1 with "
            "data.task 'regression'"
        )
    channels = _channels(config)
    size = read_preprocessing(folder, channels).size
    if is_pruned(config):
        with bounded(stored_header(folder), factor=PRUNED):
            module = load_pruned(folder, lambda: _build(name, config, classes, channels))
    else:
        with bounded(stored_header(folder)):
            module = _build(name, config, classes, channels)
        fill(module, read_weights(folder), named=f"timm {name}", remedy=REMEDY)
    return LoadedModel(
        module=module.eval(),
        architecture=f"timm/{name}",
        task=task,
        classes=classes,
        folder=folder,
        image_size=size,
        image_channels=channels,
        call=_logits,
    )


def _logits(module: nn.Module, batch: Batch) -> Tensor:
    output = module(batch["pixel_values"])
    # distilled models answer (logits, logits of the distillation token) in training mode
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits


def _classes(config: dict[str, Any]) -> object:
    """As timm reads them: older files have them in `pretrained_cfg` only."""
    stated = config.get("pretrained_cfg")
    return config.get("num_classes", stated.get("num_classes") if isinstance(stated, dict) else None)


def _architecture(config: dict[str, Any]) -> str:
    stated = config.get("architecture")
    # "resnet18.a1_in1k" names an architecture and the weights that it was trained to
    name = stated.partition(".")[0] if isinstance(stated, str) else None
    known = timm.list_models()
    if name not in known:
        raise ModelError(
            f"config.json: unknown architecture {stated!r}: {did_you_mean(str(name), known)}"
            f"timm {timm.__version__} has {len(known)} classifiers; a config.json looks like {EXAMPLE}"
        )
    return str(name)


def _channels(config: dict[str, Any]) -> int:
    stated = config.get("pretrained_cfg")
    size = stated.get("input_size") if isinstance(stated, dict) else None
    if not isinstance(size, list) or len(size) != 3 or not all(isinstance(side, int) for side in size):
        raise ModelError(
            "config.json: 'pretrained_cfg.input_size' must be [channels, height, width], "
            f"as timm writes it: {EXAMPLE}"
        )
    if not 1 <= size[0] <= 4096:
        raise ModelError(f"config.json: 'pretrained_cfg.input_size' says {size[0]} channels: give 1 to 4096")
    return int(size[0])


def _build(name: str, config: dict[str, Any], classes: int, channels: int) -> nn.Module:
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ModelError("config.json: 'model_args' must be an object of build arguments")
    refused = sorted(arguments.keys() & set(_OURS))
    if refused:
        raise ModelError(f"config.json: 'model_args' may not set '{refused[0]}': delete it")
    overlay = {key: config["pretrained_cfg"][key] for key in _OF_INPUT if key in config["pretrained_cfg"]}
    # an architecture that takes three channels only does not know the argument
    free = {**arguments, "num_classes": classes} | ({"in_chans": channels} if channels != 3 else {})
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, pretrained_cfg_overlay=overlay, **free)
    except _BAD_ARGUMENTS as error:
        raise ModelError(
            f"config.json: timm's {name} cannot be built from these 'model_args': {error}"
        ) from error
    return module
