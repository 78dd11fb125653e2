"""From a local model folder to a module: hub layout in, nothing but safetensors and JSON read."""

from pathlib import Path

from schemas.task import Task
from workers.errors import ModelError
from workers.models.folder import library_of, read_config
from workers.models.from_timm import load_timm
from workers.models.from_torchvision import EXAMPLE, load_torchvision
from workers.models.from_transformers import load_transformers
from workers.models.loaded import LoadedModel

_LOADERS = {"torchvision": load_torchvision, "timm": load_timm, "transformers": load_transformers}


def load_model(folder: Path, task: Task) -> LoadedModel:
    """The model in `folder`, float32, eval mode, on the CPU; ModelError says what is wrong with it."""
    config = read_config(folder)
    library = library_of(config)
    if library not in _LOADERS:
        raise ModelError(
            f"config.json: 'library_name' is {library!r}: use 'transformers', the default, "
            f"'timm', or 'torchvision', as in {EXAMPLE}"
        )
    return _LOADERS[library](folder, task, config)
