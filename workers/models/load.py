"""From a local model folder to a module: hub layout in, nothing but safetensors and JSON read."""

from dataclasses import replace
from pathlib import Path

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import library_of, read_config
from workers.models.from_onnx import load_onnx
from workers.models.from_plugin import load_plugin
from workers.models.from_timm import load_timm
from workers.models.from_torch_export import find_program, load_program
from workers.models.from_torchvision import EXAMPLE, load_torchvision
from workers.models.from_transformers import load_transformers
from workers.models.loaded import LoadedModel
from workers.onnx_model.read import find_onnx
from workers.plugins import MODELS, installed, installed_in_words
from workers.tasks.plugin import plugin_kind

_LOADERS = {"torchvision": load_torchvision, "timm": load_timm}


def load_model(
    folder: Path, task: Task, *, keep_dtype: bool = False, plugin: str | None = None
) -> LoadedModel:
    """The model in `folder`, eval mode, on the CPU; ModelError says what is wrong with it.

    In float32; with `keep_dtype` half-precision weights of a transformers model stay as they are stored. Loss
    and metric are those of the task, or of the operator's `plugin` for it; DataError where there is none.
    """
    kind = None if plugin is None else plugin_kind(plugin, task)
    model = _loaded(folder, task, keep_dtype=keep_dtype)
    return model if kind is None else replace(model, plugin=kind)


def _loaded(folder: Path, task: Task, *, keep_dtype: bool) -> LoadedModel:
    onnx = find_onnx(folder)
    if onnx is not None and not any(folder.glob("*.safetensors")):
        return load_onnx(onnx, task)
    config = read_config(folder)
    library = library_of(config)
    program = find_program(folder)
    if program is not None and (library == "torch.export" or not any(folder.glob("*.safetensors"))):
        return load_program(program, task, config)
    if library == "transformers":
        return load_transformers(folder, task, config, keep_dtype=keep_dtype)
    if library in _LOADERS:
        return _LOADERS[library](folder, task, config)
    if library in installed(MODELS):
        return load_plugin(folder, task, config)
    raise ModelError(
        f"config.json: 'library_name' is {library[:100]!r}: use 'transformers', the default, 'timm', or "
        f"'torchvision', as in {EXAMPLE}; {installed_in_words(MODELS)}"
    )
