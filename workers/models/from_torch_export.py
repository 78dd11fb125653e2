"""`torch.export` archives, beside them, where there are any, a config.json and the files of a tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import PREPROCESSOR, listed
from workers.models.loaded import Batch, LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.weights import check_finite
from workers.program.archive import read_archive
from workers.program.inputs import Input, named
from workers.program.module import ProgramModule, module_of, scores_of_two
from workers.program.write import PROGRAM

_AXES = {
    Task.image_classification: "[samples, classes]",
    Task.text_classification: "[samples, classes]",
    Task.audio_classification: "[samples, classes]",
    Task.token_classification: "[samples, tokens, classes]",
    Task.regression: "[samples, 1]",
    Task.causal_lm: "[samples, tokens, vocabulary]",
    Task.masked_lm: "[samples, tokens, vocabulary]",
}
"""Scores of the tasks that a program can do."""
_TEXT = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class _Scores:
    """Gives a batch to the program under its own names."""

    inputs: tuple[Input, ...]
    file: str

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        scores: Tensor = module(**named(self.inputs, batch, self.file))
        return scores


def find_program(folder: Path) -> Path | None:
    """`model.pt2`, or the folder's only `*.pt2`; None where there is none. Raises ModelError for several."""
    if (folder / PROGRAM).is_file():
        return folder / PROGRAM
    files = sorted(path for path in folder.glob("*.pt2") if path.is_file())
    if len(files) > 1:
        raise ModelError(
            f"the model folder has {len(files)} torch.export archives "
            f"({listed(file.name for file in files)}): give the uri of one of them"
        )
    return files[0] if files else None


def load_program(path: Path, task: Task, config: Mapping[str, Any]) -> LoadedModel:
    """The archive at `path`, read without torch's loader; ModelError says what is wrong with it.

    The number of classes is that of its scores. `config` may state `input_size`, `mean`, `std` and
    `pad_token_id`; without them images keep their size and are divided by 255, and the padding's number is 0.
    """
    if task not in _AXES:
        raise ModelError(
            f"torch.export archives are taken for the tasks {', '.join(_AXES)}, not for '{task.value}': give "
            "the model as config.json and *.safetensors"
        )
    module = module_of(read_archive(path))
    channels = _channels(module.inputs, task, path.name)
    module.meta["config"] = _text_config(module.inputs, config)
    check_finite(module.state_dict())
    return LoadedModel(
        module=module,
        architecture=f"torch.export/{path.stem}",
        task=task,
        classes=_classes(module, task, path.name),
        folder=path.parent,
        image_size=_image_size(path.parent, module.inputs, channels),
        image_channels=channels,
        call=_Scores(module.inputs, path.name),
        notes=tuple(_notes(module, path, config, channels)),
    )


def _channels(inputs: tuple[Input, ...], task: Task, name: str) -> int:
    """Of the images that it takes; 0: it takes something else. Raises ModelError where inputs do not fit."""
    for one in inputs:
        if not one.shape or one.shape[0] is not None:
            raise ModelError(
                f"{name} takes {one.told()}, a batch of one size only: export it with a free first axis "
                f"(dynamic_shapes={{'{one.name}': {{0: torch.export.Dim.AUTO}}, …}})"
            )
    first = inputs[0] if inputs else None
    if task.reads_text or (task is Task.regression and first is not None and len(first.shape) == 2):
        _refuse_other_texts(inputs, name)
        return 0
    if task is Task.audio_classification and len(inputs) == 1:
        return 0
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not inputs[0].shape[1]:
        raise ModelError(
            f"{name} takes {_told(inputs)}, and task '{task.value}' gives it "
            "images: export it with one input [N, C, H, W] and a stated number of channels"
        )
    return inputs[0].shape[1]


def _told(inputs: tuple[Input, ...]) -> str:
    return listed(one.told() for one in inputs) or "nothing"


def _refuse_other_texts(inputs: tuple[Input, ...], name: str) -> None:
    names = {one.name for one in inputs}
    fits = all(len(one.shape) == 2 and one.shape[1] is None for one in inputs)
    alone = len(inputs) == 1
    if not inputs or not fits or not (alone or (names <= {*_TEXT} and "input_ids" in names)):
        raise ModelError(
            f"{name} takes {_told(inputs)}; a model of texts takes input_ids "
            "and, optional, attention_mask and token_type_ids, all [N, T] with both axes free: export it so "
            "(dynamic_shapes={'input_ids': {0: Dim.AUTO, 1: Dim.AUTO}, …})"
        )


def _classes(module: ProgramModule, task: Task, name: str) -> int:
    scores = scores_of_two(module, name)
    axes = _AXES[task]
    fits = scores.dim() == axes.count(",") + 1 and len(scores) == 2
    classes = int(scores.shape[-1]) if fits else 0
    if classes != 1 if task is Task.regression else classes < 2:
        raise ModelError(
            f"{name} gives {list(scores.shape)} for two samples, and scores for task '{task.value}' are "
            f"{axes}: export a model whose first result, or the one named logits, are its scores"
        )
    return classes


def _image_size(folder: Path, inputs: tuple[Input, ...], channels: int) -> tuple[int, int] | None:
    """Of the program's input, or of the files beside it."""
    if not channels:
        return None
    stated = read_preprocessing(folder, channels).size
    height, width = inputs[0].shape[2:]
    if height is None or width is None:
        return stated
    if stated not in (None, (height, width)):
        raise ModelError(
            f"the archive takes images of {height} x {width}, and the files beside it state "
            f"{stated[0]} x {stated[1]}: make them agree"
        )
    return height, width


def _text_config(inputs: tuple[Input, ...], config: Mapping[str, Any]) -> SimpleNamespace:
    stated = config.get("max_position_embeddings")
    limits = [most for one in inputs for most in one.most[1:] if most is not None]
    limits += [stated] if isinstance(stated, int) else []
    padding = config.get("pad_token_id", 0)
    return SimpleNamespace(
        pad_token_id=padding if isinstance(padding, int) else 0,
        max_position_embeddings=min(limits, default=None),
    )


def _notes(module: ProgramModule, path: Path, config: Mapping[str, Any], channels: int) -> list[str]:
    notes = []
    left = sorted({str(node.target) for node in module.graph.nodes if _holds_weight(node)})
    if left:
        notes.append(
            f"{path.name}: calls whose weights are in no layer of their own stay dense: {listed(left)}."
        )
    if any(_is_frozen_norm(node) for node in module.graph.nodes):
        notes.append(
            f"{path.name} was decomposed for inference: its batch norms keep their statistics in training."
        )
    if channels and not (path.parent / PREPROCESSOR).is_file() and not {"mean", "model_type"} & config.keys():
        notes.append(
            f"No file beside {path.name} says how to prepare images: they are divided by 255, no more."
        )
    return notes


def _holds_weight(node: Any) -> bool:
    of_weights = ("aten.linear", "aten.conv", "aten.addmm", "aten.mm", "aten.matmul", "aten.bmm")
    return (
        node.op == "call_function"
        and str(node.target).startswith(of_weights)
        and any(getattr(one, "op", "") == "get_attr" for one in node.all_input_nodes)
    )


def _is_frozen_norm(node: Any) -> bool:
    return node.op == "call_function" and "batch_norm" in str(node.target)
