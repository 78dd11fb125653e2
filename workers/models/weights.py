"""Weights from safetensors files: sizes are checked before the library opens them, and no pickle is read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.store.tensor_header import LENGTH_BYTES, HeaderError, TensorHeader, header_length, parse_header
from workers.errors import ModelError
from workers.models.folder import listed, names_in, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_AT_ONCE = 1 << 22
"""Numbers that are looked at together: each costs memory of its own."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder, from one file or from the shards of its index; ModelError names the file."""
    weights: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        weights.update(_read_file(path))
    if not weights:
        raise ModelError(f"{SINGLE} holds no tensors: save the model's state dict again")
    return weights


def stored_header(folder: Path) -> TensorHeader:
    """What all weight files of the folder hold, by their headers alone; ModelError names the file."""
    return sum(map(_header, _weight_files(folder)), TensorHeader(0, Counter()))


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """ModelError that names the first tensors with NaN or infinity."""
    bad = [name for name, value in weights.items() if not _is_finite(value)]
    if bad:
        raise ModelError(
            f"the weights hold NaN or infinity in {listed(bad)}: the training that made them diverged; "
            "give an earlier checkpoint"
        )


def mismatch(
    *, missing: Iterable[str], unexpected: Iterable[str], shapes: Mapping[str, tuple[object, object]]
) -> str | None:
    """A sentence on how the file's tensors differ from the model's; None when they agree.

    `shapes` maps a tensor to its shape in the file and its shape in the model.
    """
    parts = []
    if absent := sorted(missing):
        parts.append(f"missing {listed(absent)}")
    if extra := sorted(unexpected):
        parts.append(f"unexpected {listed(extra)}")
    if shapes:
        wrong = (f"{name} is {_text(a)}, not {_text(b)}" for name, (a, b) in sorted(shapes.items()))
        parts.append(f"wrong shape: {listed(wrong)}")
    return "; ".join(parts) or None


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU, a shared tensor under its first name only: safetensors takes no others."""
    seen: set[int] = set()
    unique = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            unique[name] = value.detach().cpu().contiguous()
    return unique


def differences(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, needed: Iterable[str] | None = None
) -> str | None:
    """As `mismatch`, of a model's state dict and a file's tensors; only `needed` must be in the file."""
    shapes = {
        name: (weights[name].shape, value.shape)
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    }
    required = set(own if needed is None else needed)
    return mismatch(missing=required - weights.keys(), unexpected=weights.keys() - own.keys(), shapes=shapes)


def fill(module: nn.Module, weights: Mapping[str, Tensor], *, named: str, remedy: str) -> None:
    """Load `weights` into the module `named`, in float32; ModelError with `remedy` where they do not fit."""
    if difference := differences(module.state_dict(), weights, needed=unique_tensors(module)):
        raise ModelError(f"the weights do not match config.json ({named}): {difference}: {remedy}")
    module.load_state_dict(weights, strict=False)  # tied tensors are stored under one name
    module.to(torch.float32)
    check_finite(module.state_dict())


def _text(shape: object) -> str:
    return str(list(shape)) if isinstance(shape, Iterable) else str(shape)


def _is_finite(value: Tensor) -> bool:
    parts = torch.split(value.detach().flatten(), _AT_ONCE) if value.is_floating_point() else ()
    return all(bool(torch.isfinite(part).all()) for part in parts)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = read_json(folder, INDEX)
    if index is not None:
        return _shards(folder, index.get("weight_map"))
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"the weights are in {listed(pickles)}, a pickle, which can run code when it is read: "
            "save them with safetensors (model.save_pretrained, or safetensors.torch.save_file) "
            f"as {SINGLE}"
        )
    raise ModelError(
        f"the model folder has neither {SINGLE} nor {INDEX} (it holds {names_in(folder)}): "
        "save the weights with safetensors under one of these names"
    )


def _shards(folder: Path, weight_map: object) -> list[Path]:
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{INDEX} has no 'weight_map': save the model again with save_pretrained")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{INDEX} names '{name}', which is not a *.safetensors file of this folder")
        if len(name) > 255 or not (folder / name).is_file():
            raise ModelError(f"{INDEX} names {name[:255]}, which is not in the folder: upload it")
    return [folder / name for name in names]


def _read_file(path: Path) -> dict[str, Tensor]:
    _header(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{path.name} is not a valid safetensors file ({error}): upload it again") from error
    return tensors


def _header(path: Path) -> TensorHeader:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            return parse_header(file.read(header_length(file.read(LENGTH_BYTES), size)), size)
    except HeaderError as error:
        raise ModelError(f"{path.name} {error}") from error
