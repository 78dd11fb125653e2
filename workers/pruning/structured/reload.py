"""A pruned model on disk and back: by the library's own config where that can say it, else by the history."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from workers.errors import ModelError, PreflightError
from workers.models.folder import CONFIG, read_config
from workers.models.loaded import Batch, LoadedModel
from workers.models.save import COMPANIONS, save_model
from workers.models.weights import SINGLE, check_finite, differences, read_weights, unique_tensors
from workers.program.module import ProgramModule
from workers.program.write import PROGRAM, write_program
from workers.pruning.structured.history import FILE, History, read_history, replay, write_history

KEY = "secateur"
"""In config.json: how the model differs from what the rest of the config says."""

_NEURONS = (
    "intermediate_size",
    "ffn_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "hidden_dim",
    "n_inner",
    "d_ff",
    "ffn_hidden_size",
)
_HIDDEN = ("hidden_size",)
_HEADS = ("num_attention_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads",)
_QUERIES = ("q_proj", "query", "q", "q_lin")
_KEYS = ("k_proj", "key", "k", "k_lin")


def save_pruned(model: LoadedModel, history: History, folder: Path, example: Batch) -> list[str]:
    """The pruned model in `folder`, and sentences for the report on how it loads.

    Where the library's config can say the new sizes, and a model built from it in memory gives the same
    scores for `example`, the folder is an ordinary one. Else `config.json` stays the dense model's and names
    `surgery.json`, which our loader replays, and `model.pt2` runs without our code or the library's.
    """
    if isinstance(model.module, ProgramModule):
        save_model(model, folder)  # the archive, which is written beside it, says its own widths
        return []
    history = _earlier(model.folder, history)
    config = _config_that_says_it(model, history, example)
    if config is not None:
        assert isinstance(model.module, PreTrainedModel)
        model.module.config = config
        save_model(model, folder)
        return [f"{CONFIG} says the new sizes: {model.architecture} loads the result with from_pretrained."]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(unique_tensors(model.module), folder / SINGLE, metadata={"format": "pt"})
    own = {**read_config(model.folder), KEY: {"surgery": FILE}}
    (folder / CONFIG).write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
    for name in COMPANIONS:
        if (model.folder / name).is_file():
            shutil.copyfile(model.folder / name, folder / name)
    write_history(history, folder)
    return [
        f"The library's config cannot say the new widths: {CONFIG} is the dense model's, and Secateur loads "
        f"the result by {FILE}.",
        _save_program(model, folder / PROGRAM, example),
    ]


def is_pruned(config: dict[str, Any]) -> bool:
    """Whether a `config.json` names a surgery. Raises ModelError where it names something else."""
    value = config.get(KEY)
    if value is None:
        return False
    if value != {"surgery": FILE}:
        raise ModelError(f"config.json: '{KEY}' is {value!r}: it can only be {json.dumps({'surgery': FILE})}")
    return True


def load_pruned(folder: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The module that `save_pruned` stored: `build` makes the dense one of config.json, whose weights are not
    read. In eval mode and float32. Raises ModelError where the files do not belong together."""
    module = build()
    replay(module, read_history(folder))
    weights = read_weights(folder)
    difference = differences(module.state_dict(), weights, needed=unique_tensors(module))
    if difference:
        raise ModelError(
            f"the weights do not match {CONFIG} and {FILE}: {difference}: "
            "give the files that were stored together"
        )
    module.load_state_dict(weights, strict=False)
    check_finite(module.state_dict())
    return module.to(torch.float32).eval()


def _earlier(folder: Path, history: History) -> History:
    """With the rounds of the job that made the model that this job began with."""
    if not (folder / CONFIG).is_file() or not is_pruned(read_config(folder)):
        return history
    return history.model_copy(update={"rounds": (*read_history(folder).rounds, *history.rounds)})


def _config_that_says_it(model: LoadedModel, history: History, example: Batch) -> Any | None:
    """The library's config with the new sizes, proven on `example`; None: it cannot say them."""
    module = model.module
    if not isinstance(module, PreTrainedModel) or is_pruned(read_config(model.folder)):
        return None
    for fields in (_NEURONS, (*_NEURONS, *_HIDDEN)):
        config = copy.deepcopy(module.config)
        for field, value in (*_new_widths(config, fields, history), *_new_heads(config, module)):
            setattr(config, field, value)
        if _builds(model, config):
            return config if _agrees(model, config, example) else None
    return None


def _new_widths(config: Any, fields: tuple[str, ...], history: History) -> Iterator[tuple[str, int]]:
    """Widths in the config whose axes all became the same size, and that size."""
    before: dict[tuple[str, int], int] = {}
    after: dict[tuple[str, int], int] = {}
    for cut in (cut for one in history.rounds for cut in one.cuts):
        before.setdefault((cut.tensor, cut.dim), cut.size)
        after[cut.tensor, cut.dim] = cut.kept
    for field in fields:
        old = getattr(config, field, None)
        if field == "n_inner" and hasattr(config, field) and old is None:
            old = 4 * config.hidden_size
        sizes = {after[key] for key, size in before.items() if size == old}
        if len(sizes) == 1:
            yield field, sizes.pop()


def _new_heads(config: Any, module: nn.Module) -> Iterator[tuple[str, int]]:
    """Numbers of heads in the config on which all layers agree."""
    for fields, names in ((_HEADS, _QUERIES), (_KV_HEADS, _KEYS)):
        counts = set(_head_counts(module, names))
        if len(counts) == 1:
            count = counts.pop()
            one_for_all = int | None  # SegFormer's config has a list, one number for each stage
            yield from (
                (field, count) for field in fields if isinstance(getattr(config, field, ()), one_for_all)
            )
    dims = {dim for part in module.modules() if isinstance(dim := getattr(part, "head_dim", None), int)}
    if len(dims) == 1 and hasattr(config, "head_dim"):
        yield "head_dim", dims.pop()


def _head_counts(module: nn.Module, names: tuple[str, ...]) -> Iterator[int]:
    for part in module.modules():
        width = getattr(part, "head_dim", None) or getattr(part, "key_value_proj_dim", None)
        layer = next((getattr(part, name) for name in names if hasattr(part, name)), None)
        if isinstance(width, int) and isinstance(layer, nn.Linear):
            yield layer.out_features // width


def _builds(model: LoadedModel, config: Any) -> bool:
    """Whether the library builds a model of the same shapes from `config`; takes no memory for weights."""
    try:
        with torch.device("meta"):
            built = type(model.module)(config)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False  # sizes that this architecture's constructor refuses
    wanted = {name: value.shape for name, value in model.module.state_dict().items()}
    return {name: value.shape for name, value in built.state_dict().items()} == wanted


@torch.no_grad()
def _agrees(model: LoadedModel, config: Any, example: Batch) -> bool:
    """Whether the library's model with the weights gives the same scores; a second copy in memory."""
    module = model.module
    assert isinstance(module, PreTrainedModel)
    weights = {name: value.detach() for name, value in module.state_dict().items()}
    built = type(module).from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32)
    built.to(model.device).eval()
    was_training = module.training
    module.eval()
    here, there = model.logits(example), model.call(built, example)
    module.train(was_training)
    return torch.allclose(here, there, rtol=1e-5, atol=1e-5)


def _save_program(model: LoadedModel, path: Path, example: Batch) -> str:
    """Write the model as a program of torch.export; returns the sentence on how to run it, or why not."""
    try:
        return write_program(model, path, example)
    except PreflightError as error:
        return f"{PROGRAM} is not there: {error}"
