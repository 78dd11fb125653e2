"""The JSON files of a model folder, read without running anything they name."""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workers.errors import ModelError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

ONNX = {"library_name": "onnx"}
"""What stands for `config.json` where an ONNX file lies alone: the file says all itself."""

TORCH_EXPORT = {"library_name": "torch.export"}
"""The same where a `torch.export` archive lies alone."""

MAX_JSON_BYTES = 32 * 2**20
"""An index of 100,000 tensors has 10 MiB."""
MAX_DEPTH = 64

_CODE_KEYS = ("trust_remote_code", "custom_pipelines")
_KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`; ModelError when it is missing, is not a JSON object, or would run code."""
    config = read_json(folder, CONFIG)
    if config is None and any(folder.glob("*.onnx")):
        return dict(ONNX)
    if config is None and any(folder.glob("*.pt2")):
        return dict(TORCH_EXPORT)
    if config is None:
        found = names_in(folder)
        raise ModelError(
            f"the model folder has no config.json (it holds {found}): "
            "store the model in the layout of the Hugging Face hub, config.json and *.safetensors"
        )
    if config.get("quantization_config"):
        raise ModelError(
            "config.json: 'quantization_config' says that the weights are quantized: "
            "give the model before quantization, in float32, float16 or bfloat16"
        )
    return config


def library_of(config: dict[str, Any]) -> str:
    """The library that builds the model; timm's own files do not always name it."""
    is_timm = "model_type" not in config and {"architecture", "pretrained_cfg"} <= config.keys()
    return str(config.get("library_name", "timm" if is_timm else "transformers"))


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """The object in `name`; None: no such file. ModelError when it is broken or would run code."""
    path = folder / name
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"{name} has {path.stat().st_size:,} bytes; at most {MAX_JSON_BYTES:,} are read")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is not valid JSON ({error}): upload the file again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name} holds a {type(value).__name__} where a JSON object should be")
    _refuse_code(value, name)
    return value


def names_in(folder: Path) -> str:
    """The folder's file names, for a message."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return listed(names) if names else "no files"


def listed(names: Iterable[str], limit: int = 5) -> str:
    """`a, b, c and 7 more`."""
    every = list(names)
    shown = ", ".join(every[:limit])
    return shown if len(every) <= limit else f"{shown} and {len(every) - limit} more"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'a' or 'b'? `, or nothing when no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers of JSON differ in which of two equal keys they take, so one could check what another uses."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{twice[:100]}' stands twice")
    return value


def _refuse_code(config: dict[str, Any], name: str) -> None:
    for key, value in entries(config, name):
        if key == "auto_map":
            raise ModelError(
                f"{name}: 'auto_map' asks for Python code from the model folder, which is never run: "
                "use an architecture that transformers has itself and delete 'auto_map'"
            )
        if key in _CODE_KEYS and value:
            raise ModelError(f"{name}: '{key}' asks for Python code, which is never run: delete '{key}'")
        # "org/repository" there makes transformers download a compiled kernel and run it
        if key in _KERNEL_KEYS and "/" in str(value):
            raise ModelError(f"{name}: '{key}' asks for code from a repository ({value}): delete '{key}'")


def entries(config: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Every key and value in the objects of the file `name`, at any depth; ModelError beyond `MAX_DEPTH`."""
    level: list[Any] = [config]
    for _ in range(MAX_DEPTH):
        for one in level:
            if isinstance(one, dict):
                yield from one.items()
        level = [inner for one in level for inner in _held(one)]
        if not level:
            return
    raise ModelError(f"{name} is nested deeper than {MAX_DEPTH} levels: such a file is no configuration")


def _held(value: Any) -> list[Any]:
    """The objects and lists in an object or list."""
    inner = value.values() if isinstance(value, dict) else value
    return [one for one in inner if isinstance(one, dict | list)]
