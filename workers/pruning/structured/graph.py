"""What hangs together in a model: units that must go together, and every place that they take up."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["channels", "neurons", "heads", "hidden"]
Role = Literal["out", "in", "norm", "other"]
"""out: the layer that makes the unit (rows of a linear layer, filters). in: a layer that reads it. norm: a
scale, shift or running statistic. other: a position table, a parameter used by itself."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of one parameter or buffer, and which unit of the group each of its positions belongs to."""

    tensor: str
    """Its name in `module.state_dict()`."""
    dim: int
    units: NDArray[np.int64]
    """[size of that axis]; -1: not of this group (a concatenation has positions of several groups)."""
    role: Role


@dataclass(frozen=True, eq=False)
class Group:
    """A width of the model: `size` units, each of which can go without the others."""

    name: str
    """The layer that makes the units, the first in module order: `layer1.0.conv1`."""
    kind: Kind
    size: int
    axes: tuple[Axis, ...]
    widths: NDArray[np.int64]
    """[size]: channels of the first `out` axis that a unit stands for: 1, or head_dim for a head."""


@dataclass(frozen=True, eq=False)
class DependencyGraph:
    """All groups of a model, and the layers that must keep their width, each with a reason."""

    groups: tuple[Group, ...]
    frozen: dict[str, str]


Removal = dict[str, NDArray[np.int64]]
"""Units that go, by group name: sorted, without repetition, never all of a group."""
