"""Arrays of a safetensors file, whose header is read before its data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from workers.data.memory import Allowance
from workers.errors import DataError
from workers.models.folder import listed

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def read_tensors(
    path: Path, *, required: Sequence[str], optional: Sequence[str], allowance: Allowance
) -> dict[str, np.ndarray]:
    """The named tensors, bfloat16 as float32; DataError when one is missing or too large."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            missing = [name for name in required if name not in names]
            if missing:
                raise DataError(
                    f"{path.name} has no tensor {listed(map(repr, missing))} (it has {listed(names, 20)}): "
                    "set data.input_column and data.label_column"
                )
            wanted = [name for name in (*required, *optional) if name in names]
            for name in wanted:
                _check(file.get_slice(name), f"{path.name}: the tensor '{name}'", allowance)
            return {name: _array(file.get_tensor(name)) for name in wanted}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path.name} is not a valid safetensors file ({error}): write it again") from error


def _check(found: Any, where: str, allowance: Allowance) -> None:
    kind = found.get_dtype()
    if kind not in _BYTES:
        raise DataError(f"{where} has the type {kind}: give one of {', '.join(_BYTES)}")
    size = 4 if kind == "BF16" else _BYTES[kind]
    allowance.take(int(np.prod(found.get_shape(), dtype=object)) * size, where)


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
