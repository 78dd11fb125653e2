"""Architectures of an operator's own, built by a plug-in of the worker's image."""

import copy
import inspect
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from schemas.task import Task
from workers.errors import JobError, ModelError
from workers.models.limits import PRUNED, bounded, refuse_absurd
from workers.models.loaded import Batch, LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.weights import fill, read_weights, stored_header
from workers.plugins import MODELS, failed, imported, package_of
from workers.pruning.structured.reload import is_pruned, load_pruned

REMEDY = "give the config.json that these weights were saved with"
_OF_MORE_THAN_SCORES = (Task.detection, Task.question_answering, Task.seq2seq_lm)


def load_plugin(folder: Path, task: Task, config: dict[str, Any]) -> LoadedModel:
    """Build what the plug-in `config["library_name"]` makes of `config`, and fill it with the weights.

    With `input_size` [channels, height, width] the module takes one tensor, `pixel_values`; else the batch by
    keyword. ModelError where the plug-in fails, or config, weights and task disagree.
    """
    refuse_absurd(config)
    name = str(config["library_name"])
    named = f"plug-in '{name}' of {package_of(MODELS, name)}"
    classes, channels = _classes(config, task), _channels(config, task)
    size = read_preprocessing(folder, channels).size if channels else None
    if is_pruned(config):
        with bounded(stored_header(folder), factor=PRUNED):
            module = load_pruned(folder, lambda: _built(name, named, config))
    else:
        with bounded(stored_header(folder)):
            module = _built(name, named, config)
        fill(module, read_weights(folder), named=named, remedy=REMEDY)
    _check_inputs(module, task, named, takes_images=bool(channels))
    return LoadedModel(
        module=module.eval(),
        architecture=f"{name}/{type(module).__name__}",
        task=task,
        classes=classes,
        folder=folder,
        image_size=size,
        image_channels=channels,
        call=partial(_of_images if channels else _of_keywords, named),
    )


def _built(name: str, named: str, config: dict[str, Any]) -> nn.Module:
    build = imported(MODELS, name)
    try:
        module = build(copy.deepcopy(config))
    except JobError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(f"config.json: the {named} cannot build this model", error) from error
    if not isinstance(module, nn.Module):
        raise failed(
            f"the {named} is no function from a config to a torch.nn.Module",
            TypeError(f"it returned {type(module).__name__}"),
        )
    return module


def _classes(config: dict[str, Any], task: Task) -> int:
    classes, fewest = config.get("num_classes"), 1 if task is Task.regression else 2
    if not isinstance(classes, int) or classes < fewest:
        raise ModelError(
            f"config.json: 'num_classes' is {classes!r}: give the number of classes, of a language model "
            f"that of tokens, {fewest} or more"
        )
    return classes


def _channels(config: dict[str, Any], task: Task) -> int:
    """0: it takes no images."""
    size = config.get("input_size")
    if task in _OF_MORE_THAN_SCORES:
        raise ModelError(
            f"data.task '{task.value}' is not for models of a plug-in, which give one tensor of scores: "
            "give a model of transformers"
        )
    if size is None and task.reads_images:
        raise ModelError(
            f"config.json has no 'input_size', so it takes no images, which data.task '{task.value}' has: "
            'add "input_size": [channels, height, width]'
        )
    if size is None:
        return 0
    if not task.reads_images and task is not Task.regression:
        raise ModelError(
            f"config.json has 'input_size', so it takes images, and data.task is '{task.value}': set "
            "data.task to what the model does"
        )
    whole = isinstance(size, list) and len(size) == 3 and all(isinstance(side, int) for side in size)
    if not whole or not 1 <= size[0] <= 4096:
        raise ModelError(
            f"config.json: 'input_size' is {str(size)[:100]}: give [channels, height, width], at most 4096 "
            "channels"
        )
    return int(size[0])


def _check_inputs(module: nn.Module, task: Task, named: str, *, takes_images: bool) -> None:
    """ModelError where `forward` cannot be called with a batch of the task."""
    keywords: tuple[str, ...] = ()
    if task.reads_text:
        keywords = ("input_ids",) if task.is_language_model else ("input_ids", "attention_mask")
    try:
        inspect.signature(module.forward).bind(*[None] * takes_images, **dict.fromkeys(keywords))
    except TypeError as error:
        if takes_images or keywords:
            raise failed(f"the model of the {named} does not take a batch", error) from error


def _of_images(named: str, module: nn.Module, batch: Batch) -> Tensor:
    return _scores(module(batch["pixel_values"]), named)


def _of_keywords(named: str, module: nn.Module, batch: Batch) -> Tensor:
    return _scores(module(**batch), named)


def _scores(output: Any, named: str) -> Tensor:
    """A tensor as it is, `logits` of a dict or an object, the first of a tuple."""
    if isinstance(output, dict):
        output = output.get("logits")
    elif isinstance(output, tuple) and not hasattr(output, "logits"):
        output = output[0] if output else None
    elif not isinstance(output, Tensor):
        output = getattr(output, "logits", None)
    if not isinstance(output, Tensor):
        raise ModelError(
            f"the model of the {named} gives no scores: it must return a tensor, a dict or an object with "
            "'logits', or a tuple that begins with the scores"
        )
    return output
