"""What a program takes and which of its results are the scores, as its own JSON says."""

import json
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.errors import ModelError
from workers.program.archive import DTYPES

_SYMBOL = re.compile(r"Symbol\('(\w+)'")


@dataclass(frozen=True)
class Input:
    """One tensor of a batch."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]
    """None: an axis that may have any length."""
    most: tuple[int | None, ...]
    """The greatest length of each free axis; None: no limit is stated."""

    def told(self) -> str:
        """`'input_ids' int64 [?, ?]`, for a message."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"'{self.name}' {str(self.dtype).removeprefix('torch.')} [{sizes}]"


def read_input(name: str, program: Mapping[str, Any]) -> Input:
    """The input of that name. Raises ModelError where Python could not have an argument of the name."""
    if not name.isidentifier() or keyword.iskeyword(name) or len(name) > 100:
        raise ModelError(f"an input of the program is named '{name[:100]}': export the model again")
    meta = program["graph_module"]["graph"]["tensor_values"][name]
    if meta["dtype"] not in DTYPES:
        raise ModelError(f"the input '{name}' has a type that is not supported: give floats or integers")
    ranges = program.get("range_constraints") or {}
    most = tuple(_limit(size, ranges) for size in meta["sizes"])
    dtype = DTYPES[meta["dtype"]]
    wide = torch.float32 if dtype.is_floating_point else dtype  # as the weights are, once they are read
    return Input(name, wide, tuple(_size(one) for one in meta["sizes"]), most)


def _size(size: Mapping[str, Any]) -> int | None:
    if "as_expr" in size:
        return None
    value = size["as_int"]
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:50]!r} is no size")
    return value


def _limit(size: Mapping[str, Any], ranges: Mapping[str, Any]) -> int | None:
    """Of a free axis, where its expression is a symbol alone; expressions are never evaluated."""
    found = _SYMBOL.match(str(size["as_expr"]["expr_str"])) if "as_expr" in size else None
    limit = ranges.get(found[1], {}).get("max_val") if found else None
    return limit if type(limit) is int else None


def index_of_scores(out_spec: str, results: int) -> int:
    """Which result is the scores: the one that its dictionary or dataclass names `logits`, else the first."""
    _, spec = json.loads(out_spec)
    children, context = spec["children_spec"], spec["context"]
    names = json.loads(context) if isinstance(context, str) else None
    if isinstance(names, list) and len(names) == len(children) and "logits" in names:
        before = sum(_leaves(child) for child in children[: names.index("logits")])
        return before if before < results else 0
    return 0


def _leaves(spec: Mapping[str, Any]) -> int:
    children = spec["children_spec"]
    if spec["type"] is None:
        return 1
    return sum(_leaves(child) for child in children)


def named(inputs: tuple[Input, ...], batch: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """The batch as the program's arguments; token types that it lacks are zeros.

    Raises ModelError where an axis is longer than the export allowed.
    """
    given = _by_name(inputs, batch)
    for one in inputs:
        for size, most in zip(given[one.name].shape, one.most, strict=False):
            if most is not None and size > most:
                raise ModelError(
                    f"{file}: '{one.name}' was exported for at most {most} along an axis of {size} now: "
                    "lower data.max_length, or export the model with a larger range"
                )
    return given


def _by_name(inputs: tuple[Input, ...], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if len(inputs) == 1:
        first = "input_ids" if "input_ids" in batch else next(iter(batch))
        (one,) = inputs
        value = batch.get(one.name, batch[first])
        return {one.name: value.to(one.dtype) if value.is_floating_point() else value}
    return {
        one.name: batch[one.name] if one.name in batch else torch.zeros_like(batch["input_ids"])
        for one in inputs
    }
