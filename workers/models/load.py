"""From a local model folder to a module: hub layout in, nothing but safetensors and JSON read."""

from pathlib import Path

from schemas.job_spec import Task
from workers.errors import ModelError
from workers.models.folder import read_config
from workers.models.from_torchvision import EXAMPLE, load_torchvision
from workers.models.from_transformers import load_transformers
from workers.models.loaded import LoadedModel


def load_model(folder: Path, task: Task) -> LoadedModel:
    """The model in `folder`, float32, eval mode, on the CPU; ModelError says what is wrong with it."""
    config = read_config(folder)
    library = config.get("library_name", "transformers")
    if library == "torchvision":
        return load_torchvision(folder, task, config)
    if library != "transformers":
        raise ModelError(
            f"config.json: 'library_name' is {library!r}: use 'transformers', the default, "
            f"or 'torchvision', as in {EXAMPLE}"
        )
    return load_transformers(folder, task, config)
