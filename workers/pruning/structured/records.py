"""What a surgery did, in numbers and names: enough to repeat it on a fresh dense module, and safe to read."""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from schemas.base import Spec

Index = Annotated[int, Field(ge=0, lt=2**31)]
Size = Annotated[int, Field(ge=1, lt=2**31)]
Name = Annotated[str, StringConstraints(max_length=1024)]


class Cut(Spec):
    """The positions of one axis of one tensor that stay."""

    tensor: Name
    dim: int = Field(ge=0, lt=8)
    size: int = Field(ge=1, lt=2**31, description="Length of the axis before.")
    runs: tuple[tuple[Index, Index], ...] = Field(
        min_length=1, max_length=1_000_000, description="[start, stop) of each run that stays, in order."
    )

    @property
    def kept(self) -> int:
        """Length of the axis afterwards."""
        return sum(stop - start for start, stop in self.runs)

    def positions(self) -> NDArray[np.int64]:
        """[kept], ascending."""
        return np.concatenate([np.arange(start, stop) for start, stop in self.runs])


class Change(Spec):
    """One Python attribute of one module, and its new value."""

    module: Name = Field(description="Its name in `named_modules()`; the model itself is ''.")
    attribute: Annotated[str, StringConstraints(pattern=r"^(config\.)?[a-z][a-z0-9_]{0,63}$")]
    value: Size | tuple[Size, ...] | Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")]


class Surgery(Spec):
    """One round: what was cut, the attributes that follow, and the units by group, for the reader."""

    removed: dict[Name, tuple[Index, ...]] = Field(default_factory=dict)
    cuts: tuple[Cut, ...] = ()
    changes: tuple[Change, ...] = ()


def runs_of(keep: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """[start, stop) of each run of True in `keep` [n]."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], keep.astype(np.int8), [0]))))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def as_ints(values: Iterable[int]) -> tuple[int, ...]:
    """Plain integers, which JSON takes."""
    return tuple(int(value) for value in values)
