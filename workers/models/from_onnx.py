"""ONNX files with float weights, and the files of a preprocessor or tokenizer beside them."""

from pathlib import Path
from types import SimpleNamespace

from torch import Tensor, nn

from schemas.task import Task
from workers.data.bundle import Bundle
from workers.errors import ModelError
from workers.models.folder import PREPROCESSOR, library_of, read_config
from workers.models.loaded import Batch, LoadedModel
from workers.models.preprocessing import read_preprocessing
from workers.models.weights import check_finite
from workers.onnx_model.build import build
from workers.onnx_model.inputs import Inputs, inputs_of, with_names
from workers.onnx_model.module import OnnxModule
from workers.onnx_model.read import read_onnx
from workers.pruning.layers import prunable_layers

_BROKEN = (AttributeError, LookupError, OSError, RecursionError, RuntimeError, TypeError, ValueError)
"""What protobuf and torch raise on parts of other types and sizes than the format states."""

_SIDE = 224
_TOKENS = 8
"""Of the example that a file is tried with where it does not state them."""


def load_onnx(path: Path, task: Task) -> LoadedModel:
    """The file at `path` with the weights that it names beside it; ModelError says what is wrong with it.

    It is run once, on two samples of zeros, to learn the shape of its scores.
    """
    try:
        graph = read_onnx(path)
        inputs = inputs_of(graph.graph, task)
        module = build(graph, path.parent, inputs).eval()
    except _BROKEN as error:
        raise ModelError(f"{path.name} is not a valid ONNX file ({error}): upload it again") from error
    size = _image_size(path.parent, inputs)
    check_finite({layer.name: layer.weight for layer in prunable_layers(module)})
    module.config = _text_config(path.parent)
    scores = _scores(module, inputs.example(2, sides=size or (_SIDE, _SIDE), tokens=_TOKENS))
    return LoadedModel(
        module=module,
        architecture=f"onnx/{path.stem}",
        task=task,
        classes=_classes(scores, path.name),
        folder=path.parent,
        image_size=size,
        image_channels=_channels(inputs),
        call=_scores,
        notes=_notes(module, path.parent),
    )


def as_the_file_takes(bundle: Bundle, model: LoadedModel) -> Bundle:
    """The bundle whose batches have the names and types of the file's inputs; of other models as it is."""
    if not isinstance(model.module, OnnxModule):
        return bundle
    return with_names(bundle, model.module.plan.inputs)


def _notes(module: OnnxModule, folder: Path) -> tuple[str, ...]:
    """What stays dense, and what is done to images where no file says it."""
    alone = library_of(read_config(folder)) == "onnx" and not (folder / PREPROCESSOR).is_file()
    if not alone or "pixel_values" not in module.plan.inputs.of:
        return module.plan.notes
    plain = f"No {PREPROCESSOR} lies beside the ONNX file: images are divided by 255, and no more is done."
    return (*module.plan.notes, plain)


def _scores(module: nn.Module, batch: Batch) -> Tensor:
    scores: Tensor = module(**batch)
    return scores


def _classes(scores: Tensor, name: str) -> int:
    if scores.dim() != 2 or len(scores) != 2 or scores.shape[1] < 2:
        raise ModelError(
            f"{name}: for 2 samples its first output has the shape {list(scores.shape)}, and scores of a "
            "classifier are [samples, classes], with two classes or more: put them first, and export with a "
            "free first axis"
        )
    return int(scores.shape[1])


def _channels(inputs: Inputs) -> int:
    pixels = inputs.of.get("pixel_values")
    return 0 if pixels is None or pixels.shape[1] is None else pixels.shape[1]


def _image_size(folder: Path, inputs: Inputs) -> tuple[int, int] | None:
    """Of the file's input, or of the preprocessor beside it."""
    pixels = inputs.of.get("pixel_values")
    if pixels is None:
        return None
    stated = read_preprocessing(folder, _channels(inputs)).size
    height, width = pixels.shape[2:]
    if height is None or width is None:
        return stated
    if stated not in (None, (height, width)):
        raise ModelError(
            f"the ONNX file takes images of {height} x {width}, and the files beside it state "
            f"{stated[0]} x {stated[1]}: make them agree"
        )
    return height, width


def _text_config(folder: Path) -> SimpleNamespace:
    """What readers of texts ask a transformers model's config for."""
    config = read_config(folder)
    return SimpleNamespace(
        pad_token_id=config.get("pad_token_id", 0),
        max_position_embeddings=config.get("max_position_embeddings"),
    )
