"""What takes a model from dense to its goal: by zeros, or by removing whole units."""

from collections.abc import Callable
from typing import Protocol

from schemas.report import Curve, GroupFigures
from workers.pruning.layers import Choice
from workers.story import Pruned


class Pruner(Protocol):
    """Works on one model in memory, round after round."""

    @property
    def choice(self) -> Choice:
        """The layers whose zeros must stay through training."""
        ...

    @property
    def after_backward(self) -> Callable[[], None] | None:
        """To be called in training when the gradients are there; None: not needed."""
        ...

    def prune(self, share: float, number: int) -> None:
        """Take `share` of the goal's quantity (counted from the dense model) out, in round `number`."""
        ...

    def pruned(self) -> Pruned:
        """What is gone now."""
        ...

    def surgery(self) -> str | None:
        """JSON that gives a dense module the shapes of this one; None: the shapes are the dense ones."""
        ...

    def reset(self, surgery: str | None) -> None:
        """Give the model the shapes of a checkpoint (None: of the dense model); weights are loaded next."""
        ...

    def groups(self) -> list[GroupFigures]:
        """Widths before and after; empty where none changes."""
        ...

    def curves(self) -> list[Curve]:
        """Sensitivity as it was measured."""
        ...

    def notes(self) -> list[str]:
        """What a reader of the report must know."""
        ...
