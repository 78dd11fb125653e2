"""Classifiers and language models of the transformers library."""

from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import did_you_mean, listed
from workers.models.heads import HEADS
from workers.models.limits import PRUNED, bounded, refuse_absurd
from workers.models.loaded import HALF, LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.weights import check_finite, mismatch, read_weights, stored_header
from workers.pruning.structured.reload import is_pruned, load_pruned

# What the config classes and constructors of some 800 architectures raise on values that they cannot take
_BAD_CONFIG = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)

_TIMM_BACKBONES = ("conditional_detr", "dab-detr", "deformable_detr", "detr", "table-transformer")


def load_transformers(
    folder: Path, task: Task, config: dict[str, Any], *, keep_dtype: bool = False
) -> LoadedModel:
    """Build the class that `config` names and fill it with the folder's weights; ModelError if they disagree.

    transformers does the matching, because it renames tensors of older files: a ViT's state dict has
    other names than the files on the hub.
    """
    refuse_absurd(config)
    parsed = _parse(folder, config)
    model_class = _model_class(parsed, task, config)
    head = HEADS[task]
    outputs = head.outputs(parsed)
    if is_pruned(config):
        with bounded(stored_header(folder), factor=PRUNED):
            module = load_pruned(folder, lambda: _built(model_class, parsed))
    else:
        with bounded(stored_header(folder)):
            module = _filled(model_class, parsed, read_weights(folder), keep_dtype=keep_dtype)
    channels = _channels(parsed, task, model_class)
    size = read_preprocessing(folder, channels).size if channels else None
    return LoadedModel(
        module=module,
        architecture=f"transformers/{model_class.__name__}",
        task=task,
        classes=outputs,
        folder=folder,
        image_size=size,
        image_channels=channels,
        call=head.call,
        plugin=head.kind(parsed, size),
    )


def _parse(folder: Path, config: dict[str, Any]) -> Any:
    name = config.get("model_type")
    known = list(transformers.CONFIG_MAPPING.keys())
    if not isinstance(name, str) or name not in known:
        raise ModelError(
            f"config.json: unknown architecture, 'model_type' is {name!r}: "
            f"{did_you_mean(str(name), known)}"
            f"transformers {transformers.__version__} has {len(known)} of them; "
            'a torchvision model says "library_name": "torchvision"'
        )
    _refuse_fetched_backbone(name, config)
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _BAD_CONFIG as error:
        raise ModelError(f"config.json is not a valid '{name}' configuration: {error}") from error


def _refuse_fetched_backbone(name: str, config: dict[str, Any]) -> None:
    """transformers asks the hub whether the name of a backbone is a repository, unless it is sure that it is
    timm's; nothing is fetched here."""
    backbone = config.get("backbone")
    is_of_timm = name in _TIMM_BACKBONES and config.get("use_timm_backbone", True)
    if not backbone or config.get("backbone_config") or (is_of_timm and not config.get("backbone_kwargs")):
        return
    raise ModelError(
        f"config.json: 'backbone' is {backbone!r}, whose configuration would be fetched: describe it in "
        '\'backbone_config\' (a timm backbone: {"model_type": "timm_backbone", "backbone": "resnet50", '
        "\"out_indices\": [1, 2, 3, 4]}) and delete 'backbone' and 'backbone_kwargs'"
    )


def _model_class(parsed: Any, task: Task, config: dict[str, Any]) -> Any:
    known = HEADS[task].classes
    if type(parsed) not in known:
        raise ModelError(
            f"config.json: '{parsed.model_type}' has no {task.value} model in transformers: "
            "set data.task to what the model does, or give another model"
        )
    found = known[type(parsed)]
    classes = found if isinstance(found, tuple) else (found,)
    named = [cls for cls in classes if cls.__name__ in (config.get("architectures") or ())]
    return (named or list(classes))[0]


def _channels(parsed: Any, task: Task, model_class: Any) -> int:
    """Of the images that it takes; 0: it takes something else."""
    of_images = model_class.main_input_name == "pixel_values"
    reads_images = of_images if task is Task.regression else task.reads_images
    return int(getattr(parsed, "num_channels", 3)) if reads_images else 0


def _built(model_class: Any, parsed: Any) -> nn.Module:
    try:
        module: nn.Module = model_class(parsed)
    except _BAD_CONFIG as error:
        raise _cannot_build(model_class, error) from error
    return module


def _cannot_build(model_class: Any, error: Exception) -> ModelError:
    return ModelError(f"config.json: {model_class.__name__} cannot be built from this configuration: {error}")


def _filled(model_class: Any, parsed: Any, weights: dict[str, Tensor], *, keep_dtype: bool) -> nn.Module:
    transformers.logging.set_verbosity_error()  # its table of missing tensors is our ModelError
    transformers.logging.disable_progress_bar()
    try:
        module, info = model_class.from_pretrained(
            None,
            config=parsed,
            state_dict=weights,
            dtype=_half(weights) if keep_dtype else torch.float32,
            ignore_mismatched_sizes=True,  # so that they are named with all the others
            output_loading_info=True,
            local_files_only=True,
        )
    except _BAD_CONFIG as error:
        raise _cannot_build(model_class, error) from error
    shapes = {name: (in_file, in_model) for name, in_file, in_model in info["mismatched_keys"]}
    difference = mismatch(missing=info["missing_keys"], unexpected=info["unexpected_keys"], shapes=shapes)
    if difference or info["error_msgs"]:
        raise ModelError(
            f"the weights do not match config.json ({model_class.__name__}): "
            f"{difference or listed(info['error_msgs'])}: "
            "give the config.json that these weights were saved with"
        )
    check_finite(module.state_dict())
    return module.eval()  # type: ignore[no-any-return]


def _half(weights: dict[str, Tensor]) -> torch.dtype:
    """The half precision that all floating weights are stored in; float32 where they are not."""
    stored = {one.dtype for one in weights.values() if one.is_floating_point()}
    only = stored.pop() if len(stored) == 1 else torch.float32
    return only if only in HALF else torch.float32
