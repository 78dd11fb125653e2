"""How the goal is shared out among the layers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import Spec
from schemas.criteria import Samples


class _Allocation(Spec):
    ranks_across_layers: ClassVar[bool] = False
    """Scores of all layers are compared with each other."""


class GlobalAllocation(_Allocation):
    """One ranking for all layers: layers of small weights lose more."""

    kind: Literal["global"] = "global"
    ranks_across_layers: ClassVar[bool] = True
    cap: float = Field(1.0, gt=0, le=1, description="Largest share that one layer may lose.")


class UniformAllocation(_Allocation):
    """The same share from each layer; first and last stay dense by default (Gale et al. 2019)."""

    kind: Literal["uniform"] = "uniform"
    keep_first_and_last: bool = Field(True, description="Leave the first and the last layer dense.")


class ErkAllocation(_Allocation):
    """Erdős–Rényi kernel: a layer's density goes with (sum of its dimensions) / (their product), so small
    layers stay denser (Evci et al. 2020)."""

    kind: Literal["erk"] = "erk"


class LampAllocation(_Allocation):
    """One ranking of layer-adaptive scores: w² over the sum of all w² that are not smaller (Lee et al.
    2021)."""

    kind: Literal["lamp"] = "lamp"
    ranks_across_layers: ClassVar[bool] = True


class SensitivityAllocation(_Allocation):
    """Each layer is cut alone at several shares and the metric measured; then a knapsack shares out the goal
    at the least loss in all."""

    kind: Literal["sensitivity"] = "sensitivity"
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.3, 0.5, 0.7, 0.9), min_length=1, max_length=16, description="Shares at which a layer is measured."
    )
    samples: Samples = 512


Allocation = Annotated[
    GlobalAllocation | UniformAllocation | ErkAllocation | LampAllocation | SensitivityAllocation,
    Field(discriminator="kind"),
]
"""For single weights."""

UnitAllocation = Annotated[GlobalAllocation | UniformAllocation, Field(discriminator="kind")]
"""For channels, neurons and heads."""
