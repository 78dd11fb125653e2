"""From a local model folder to a module: hub layout in, nothing but safetensors and JSON read."""

from pathlib import Path

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import library_of, read_config
from workers.models.from_onnx import load_onnx
from workers.models.from_timm import load_timm
from workers.models.from_torch_export import find_program, load_program
from workers.models.from_torchvision import EXAMPLE, load_torchvision
from workers.models.from_transformers import load_transformers
from workers.models.loaded import LoadedModel
from workers.onnx_model.read import find_onnx

_LOADERS = {"torchvision": load_torchvision, "timm": load_timm}


def load_model(folder: Path, task: Task, *, keep_dtype: bool = False) -> LoadedModel:
    """The model in `folder`, eval mode, on the CPU; ModelError says what is wrong with it.

    In float32; with `keep_dtype` half-precision weights of a transformers model stay as they are stored.
    """
    onnx = find_onnx(folder)
    if onnx is not None and not any(folder.glob("*.safetensors")):
        return load_onnx(onnx, task)
    config = read_config(folder)
    library = library_of(config)
    program = find_program(folder)
    if program is not None and (library == "torch.export" or not any(folder.glob("*.safetensors"))):
        return load_program(program, task, config)
    if library != "transformers" and library not in _LOADERS:
        raise ModelError(
            f"config.json: 'library_name' is {library!r}: use 'transformers', the default, "
            f"'timm', or 'torchvision', as in {EXAMPLE}"
        )
    if library == "transformers":
        return load_transformers(folder, task, config, keep_dtype=keep_dtype)
    return _LOADERS[library](folder, task, config)
