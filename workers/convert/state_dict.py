"""The tensors of a model in what a training script saved, under the names that its state dict has."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.store.tensor_header import MAX_TENSORS
from workers.errors import ModelError
from workers.models.folder import listed

ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "state_dict_ema",
    "model_ema",
)
"""Where training scripts put the state dict, in the order that we look."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

_DEPTH = 3
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""What safetensors stores, and how it names it."""


@dataclass(frozen=True)
class Found:
    """Tensors by name; what lay beside them, with its type; and where they were."""

    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    under: str | None = None
    prefix: str | None = None


@dataclass(frozen=True)
class Untied:
    """Tensors that share no memory; and the names that were another's, with that other."""

    tensors: dict[str, Tensor]
    dropped: dict[str, str]


def find_state_dict(loaded: Any, *, entry: str | None = None, prefix: str | None = None) -> Found:
    """The state dict in `loaded`: `entry` names where, `prefix` what to cut off; else both are looked for.

    ModelError: there is none, or it holds what safetensors cannot store.
    """
    under: list[str] = []
    left_out: list[str] = []
    while len(under) < _DEPTH:
        name = entry if entry is not None and not under else _inner(loaded)
        if name is None:
            break
        if not isinstance(loaded, Mapping) or not _holds_tensors(loaded.get(name)):
            raise ModelError(f"there is no state dict under '{name}': {_what_is_there(loaded)}")
        left_out += [_described(key, value) for key, value in loaded.items() if key != name]
        under.append(name)
        loaded = loaded[name]
    if not _holds_tensors(loaded):
        raise ModelError(f"there is no state dict in the file: {_what_is_there(loaded)}")
    tensors = {key: value.detach() for key, value in loaded.items() if _is_named_tensor(key, value)}
    left_out += [_described(key, value) for key, value in loaded.items() if not _is_named_tensor(key, value)]
    cut = prefix if prefix is not None else _common_prefix(tensors)
    if cut:
        left_out += [f"{key[:100]} (no '{cut}' before it)" for key in tensors if not key.startswith(cut)]
        tensors = {key.removeprefix(cut): one for key, one in tensors.items() if key.startswith(cut)}
    _check(tensors)
    return Found(tensors, tuple(left_out), ".".join(under) or None, cut or None)


def untie(tensors: Mapping[str, Tensor], most_bytes: int) -> Untied:
    """Each value once, contiguous: a second name of the same values is dropped, as safetensors wants it.

    The first name stays, as in `model.named_parameters()`. ModelError: all together they would take more than
    `most_bytes`, what the files can hold.
    """
    owners: dict[tuple[Any, ...], str] = {}
    dropped: dict[str, str] = {}
    for name, tensor in tensors.items():
        owner = owners.setdefault(_view(tensor), name) if tensor.numel() else name
        if owner != name:
            dropped[name] = owner
    kept = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    if sum(tensor.nbytes for tensor in kept.values()) > most_bytes:
        raise ModelError(
            f"its tensors would take more than the {most_bytes:,} bytes that the files have: they overlap; "
            "save the state dict again with each tensor cloned"
        )
    storages: set[int] = set()
    for name, tensor in kept.items():
        storage = tensor.untyped_storage().data_ptr()
        shared = tensor.numel() > 0 and storage in storages
        kept[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
        storages.add(storage)
    return Untied(kept, dropped)


def _view(tensor: Tensor) -> tuple[Any, ...]:
    """What two names of the same values have in common."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def elements(tensors: Mapping[str, Tensor]) -> Counter[str]:
    """How many elements of each type."""
    found: Counter[str] = Counter()
    for tensor in tensors.values():
        found[_TYPES[tensor.dtype]] += tensor.numel()
    return found


def _inner(loaded: Any, depth: int = _DEPTH) -> str | None:
    """The known entry that holds a state dict, so many levels down at most: a pickle may hold itself."""
    if not isinstance(loaded, Mapping) or depth == 0:
        return None
    return next((name for name in ENTRIES if _holds_tensors(loaded.get(name), depth - 1)), None)


def _holds_tensors(value: Any, depth: int = _DEPTH) -> bool:
    """A state dict, or a wrapper around one."""
    if not isinstance(value, Mapping):
        return False
    return any(_is_named_tensor(key, one) for key, one in value.items()) or _inner(value, depth) is not None


def _is_named_tensor(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _common_prefix(tensors: Mapping[str, Tensor]) -> str:
    """Prefixes that wrappers put before every name, one behind the other."""
    found = ""
    while True:
        step = next((one for one in PREFIXES if all(key.startswith(found + one) for key in tensors)), None)
        if step is None:
            return found
        found += step


def _described(key: Any, value: Any) -> str:
    """`optimizer (dict of 2)`."""
    name = str(key)[:100].encode("utf-8", "backslashreplace").decode()  # a pickle's may hold lone surrogates
    size = f" of {len(value)}" if isinstance(value, Mapping | list) else ""
    return f"{name} ({type(value).__name__}{size})"


def _what_is_there(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return (
            f"it holds a {type(loaded).__name__}: save model.state_dict() with torch.save where the model is"
        )
    nested = [str(key) for key, value in loaded.items() if _holds_tensors(value)]
    if nested:
        return f"tensors lie under {listed(nested)}: say which with --entry"
    return f"it holds {listed(_described(key, value) for key, value in loaded.items()) or 'nothing'}"


def _check(tensors: Mapping[str, Tensor]) -> None:
    if not tensors:
        raise ModelError("no tensor's name begins like that: give another --prefix")
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"it names {len(tensors):,} tensors; at most {MAX_TENSORS:,} are read")
    odd = [
        f"{name} ({tensor.dtype}, {tensor.layout})"
        for name, tensor in tensors.items()
        if tensor.layout is not torch.strided or tensor.dtype not in _TYPES or tensor.is_meta
    ]
    if odd:
        raise ModelError(
            f"safetensors cannot store {listed(odd)}: save the state dict dense and not quantized, in "
            "float32, float16 or bfloat16"
        )
    unwritable = [name for name in tensors if not _is_utf8(name)]
    if unwritable:
        raise ModelError(f"{listed(unwritable)} cannot be written in UTF-8: rename it in the state dict")
    larger = [name for name, one in tensors.items() if one.nbytes > one.untyped_storage().nbytes()]
    if larger:
        raise ModelError(
            f"{listed(larger)} has more elements than the file has values for: save a clone of it"
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
