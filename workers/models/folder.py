"""The JSON files of a model folder, read without running anything they name."""

import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workers.errors import ModelError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

_KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`; ModelError when it is missing, is not a JSON object, or would run code."""
    config = read_json(folder, CONFIG)
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
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
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


def _refuse_code(config: dict[str, Any], name: str) -> None:
    for key, value in _entries(config):
        if key == "auto_map":
            raise ModelError(
                f"{name}: 'auto_map' asks for Python code from the model folder, which is never run: "
                "use an architecture that transformers has itself and delete 'auto_map'"
            )
        # "org/repository" there makes transformers download a compiled kernel and run it
        if key in _KERNEL_KEYS and "/" in str(value):
            raise ModelError(f"{name}: '{key}' asks for code from a repository ({value}): delete '{key}'")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)
