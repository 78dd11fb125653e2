"""Which files of a folder make one model, where it holds a model in more than one form."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from schemas.base import MODEL_FILE_SUFFIXES
from service.store.blobs import Blob, Blobs
from workers.errors import ModelError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Suffixes of files that run code when they are opened; no pattern lets them in."""
EXTERNAL = (".onnx.data", ".onnx_data")
"""How the names of files end in which ONNX keeps the weights that are not in the model's own."""
SUFFIX_OF = {"torch.export": ".pt2", "onnx": ".onnx"}
"""By `library_name` of config.json: the form in which the folder is meant."""

_CONFIG = "config.json"
_MOST_CONFIG_BYTES = 2**20
_WEIGHTS = (".safetensors", ".index.json")


def one_form(blobs: Blobs, files: Mapping[str, Blob]) -> dict[str, Blob]:
    """Without the exports that lie beside a folder's safetensors, or, where its config.json says that one of
    those is the model, without the safetensors. Raises BlobError's classes."""
    exports = {name for name in files if name.endswith((*MODEL_FILE_SUFFIXES, *EXTERNAL))}
    weights = {name for name in files if name.endswith(_WEIGHTS)}
    if not exports or not weights:
        return dict(files)
    suffix = SUFFIX_OF.get(_library(blobs, files.get(_CONFIG)))
    if suffix is None:
        return {name: blob for name, blob in files.items() if name not in exports}
    meant = {name for name in exports if suffix in name}
    return {name: blob for name, blob in files.items() if name in meant or name not in exports | weights}


def refuse_pickles(skipped: Iterable[str], folder: Path) -> None:
    """ModelError when S3 has pickles, which were not pulled, and the folder on the disk no other weights."""
    pickles = [name for name in skipped if name.endswith(PICKLES)]
    if pickles and not any(
        path.suffix in (".safetensors", *MODEL_FILE_SUFFIXES) for path in folder.iterdir()
    ):
        raise ModelError(
            f"The model folder has {', '.join(pickles[:3])} where *.safetensors should be. A pickle can run "
            "code, so it is never opened: load the model yourself and save it with save_pretrained()."
        )


def with_companions(own: str, files: Mapping[str, Blob]) -> dict[str, Blob]:
    """The model's file `own`, and those beside it that are no other model's: weights, a tokenizer."""
    other = (*MODEL_FILE_SUFFIXES, *EXTERNAL, *_WEIGHTS, "surgery.json")
    external = () if own.endswith(".pt2") else EXTERNAL
    return {
        name: blob
        for name, blob in files.items()
        if name == own or name.endswith(external) or not name.endswith(other)
    }


def _library(blobs: Blobs, config: Blob | None) -> str:
    if config is None or config.bytes > _MOST_CONFIG_BYTES:
        return ""
    try:
        stated = json.loads(blobs.get_range(config, 0, config.bytes))
    except (ValueError, RecursionError):
        return ""  # the loader says what is wrong with it
    return str(stated.get("library_name")) if isinstance(stated, dict) else ""
