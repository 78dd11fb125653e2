"""The layers of a model file: of an ONNX file by its nodes, of safetensors by the shapes of their weights."""

from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from schemas.inspection import InspectedLayer, Inspection
from workers.benchmark.eligibility import layer_of, weight_layers
from workers.errors import ModelError
from workers.models.folder import names_in

_OPERATORS = {2: "Linear", 3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
_SKIPPED = ("embed", "position", "token_type", "wte", "wpe")
"""Parts of the names of tables that nothing is multiplied by."""


def inspect_file(path: Path) -> Inspection:
    """An ONNX file, a safetensors file, or a folder with one or several of either. Raises ModelError."""
    files = _files(path)
    layers = [layer for file in files for layer in _layers_of(file)]
    if not layers:
        raise ModelError(f"{path.name} has no layer with a weight of two axes or more")
    return Inspection(file=str(path), layers=layers)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ModelError(f"{path} does not exist: name a file or a folder")
    for pattern in ("*.onnx", "*.safetensors"):
        if found := sorted(path.glob(pattern)):
            return found
    raise ModelError(f"{path} has neither *.onnx nor *.safetensors (it holds {names_in(path)})")


def _layers_of(path: Path) -> Iterator[InspectedLayer]:
    if path.suffix == ".onnx":
        try:
            yield from weight_layers(path)
        except (OSError, ValueError) as error:
            raise ModelError(str(error)) from error
    elif path.suffix == ".safetensors":
        yield from _tensors(path)
    else:
        raise ModelError(f"{path.name} is neither *.onnx nor *.safetensors: nothing else is read here")


def _tensors(path: Path) -> Iterator[InspectedLayer]:
    """One tensor in memory at a time."""
    try:
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                shape = file.get_slice(name).get_shape()
                if name.endswith(".weight") and len(shape) in _OPERATORS and not _is_table(name):
                    tensor = file.get_tensor(name)
                    yield layer_of(
                        name.removesuffix(".weight"),
                        _OPERATORS[len(shape)],
                        tensor.float().numpy(),  # numpy has no bfloat16
                        axis=1,
                        outputs=shape[0],
                        dtype=str(tensor.dtype).removeprefix("torch."),
                    )
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path.name} is not a valid safetensors file ({error})") from error


def _is_table(name: str) -> bool:
    return any(part in name for part in _SKIPPED)
