"""What the measurement asks of a runtime: whether it can run here, and sessions that infer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[np.generic]]
"""Inputs by name; a runtime checks names, types and shapes."""


class Session(Protocol):
    """One model, loaded."""

    def infer(self, feeds: Feeds) -> None:
        """One whole batch; returns when its scores are there."""


class Backend(Protocol):
    """One runtime."""

    suffix: ClassVar[str]
    """Of the files that it reads."""

    def why_not(self) -> str | None:
        """Why it cannot run on this machine, and what would help; None where it can."""

    def device(self) -> str:
        """What it computes on, for a reader."""

    def open(self, model: Path, *, threads: int) -> Session:
        """Load the file. Raises what the library raises."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run on this machine."""

    backend: str
    reason: str | None
    """Why not; None where it can."""
