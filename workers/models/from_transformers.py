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
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.weights import check_finite, mismatch, read_weights
from workers.pruning.structured.reload import is_pruned, load_pruned

# What the config classes and constructors of some 800 architectures raise on values that they cannot take
_BAD_CONFIG = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


def load_transformers(folder: Path, task: Task, config: dict[str, Any]) -> LoadedModel:
    """Build the class that `config` names and fill it with the folder's weights; ModelError if they disagree.

    transformers does the matching, because it renames tensors of older files: a ViT's state dict has
    other names than the files on the hub.
    """
    parsed = _parse(folder, config)
    model_class = _model_class(parsed, task, config)
    head = HEADS[task]
    outputs = head.outputs(parsed)
    if is_pruned(config):
        module = load_pruned(folder, lambda: _built(model_class, parsed))
    else:
        module = _filled(model_class, parsed, read_weights(folder))
    channels = _channels(parsed, task)
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
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _BAD_CONFIG as error:
        raise ModelError(f"config.json is not a valid '{name}' configuration: {error}") from error


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


def _channels(parsed: Any, task: Task) -> int:
    return int(getattr(parsed, "num_channels", 3)) if task.reads_images else 0


def _built(model_class: Any, parsed: Any) -> nn.Module:
    try:
        module: nn.Module = model_class(parsed)
    except _BAD_CONFIG as error:
        raise _cannot_build(model_class, error) from error
    return module


def _cannot_build(model_class: Any, error: Exception) -> ModelError:
    return ModelError(f"config.json: {model_class.__name__} cannot be built from this configuration: {error}")


def _filled(model_class: Any, parsed: Any, weights: dict[str, Tensor]) -> nn.Module:
    transformers.logging.set_verbosity_error()  # its table of missing tensors is our ModelError
    transformers.logging.disable_progress_bar()
    try:
        module, info = model_class.from_pretrained(
            None,
            config=parsed,
            state_dict=weights,
            dtype=torch.float32,
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
