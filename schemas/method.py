"""Which weights go: the pattern, the criterion, the allocation and the layers."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from schemas.allocation import Allocation, GlobalAllocation, UnitAllocation
from schemas.base import Glob, Spec
from schemas.criteria import Magnitude, PatternCriterion, UnitCriterion, WeightCriterion

Share = Annotated[float, Field(ge=0, lt=1)]
UnitKind = Literal["channels", "neurons", "heads", "hidden"]


class _Layers(Spec):
    removes_units: ClassVar[bool] = False

    include: tuple[Glob, ...] = Field(
        ("*",), min_length=1, max_length=64, description="Globs of layer names to prune."
    )
    exclude: tuple[Glob, ...] = Field(
        (), max_length=64, description="Globs of layer names to leave dense; wins over `include`."
    )


class Unstructured(_Layers):
    """Single weights, anywhere."""

    pattern: Literal["unstructured"] = "unstructured"
    criterion: WeightCriterion = Magnitude()
    allocation: Allocation = GlobalAllocation()
    overrides: dict[Glob, Share] = Field(
        default_factory=dict,
        max_length=64,
        description="Share of zeros at the end for layers that match a glob, whatever the allocation says; "
        "the first match counts.",
    )

    @model_validator(mode="before")
    @classmethod
    def _rows_need_shares(cls, value: Any) -> Any:
        """Wanda and SparseGPT compare within a layer: their default allocation is uniform."""
        if not isinstance(value, dict) or "allocation" in value:
            return value
        criterion = value.get("criterion")
        kind = criterion.get("kind") if isinstance(criterion, dict) else getattr(criterion, "kind", None)
        if kind in ("wanda", "sparsegpt"):
            return {**value, "allocation": {"kind": "uniform", "keep_first_and_last": False}}
        return value

    @model_validator(mode="after")
    def _comparable(self) -> "Unstructured":
        if self.criterion.scores_rows and self.allocation.ranks_across_layers:
            raise ValueError(
                f"criterion '{self.criterion.kind}' compares weights within a layer only, and allocation "
                f"'{self.allocation.kind}' ranks all layers together: use 'uniform', 'erk' or 'sensitivity'"
            )
        if self.allocation.kind == "lamp" and self.criterion.kind != "magnitude":
            raise ValueError(
                "allocation 'lamp' is a score of its own, made of weights: use criterion 'magnitude'"
            )
        return self


class SemiStructured(_Layers):
    """N of each M neighbours stay, along the axis that TensorRT groups: the input channels of a convolution
    at each kernel position, the input features of a linear layer (Mishra et al. 2021)."""

    pattern: Literal["semi_structured"] = "semi_structured"
    n: int = Field(2, ge=1, le=16, description="Weights that stay of each M.")
    m: int = Field(4, ge=2, le=32, description="Neighbours that are compared.")
    criterion: PatternCriterion = Magnitude()
    permute: bool = Field(
        False,
        description="Reorder input channels first, so that more magnitude is kept, and fold the order into "
        "the layers before: the function stays the same (Pool and Yu 2021).",
    )

    @model_validator(mode="after")
    def _some_go(self) -> "SemiStructured":
        if self.n >= self.m:
            raise ValueError(f"n ({self.n}) must be less than m ({self.m}): of each m weights n stay")
        return self

    @property
    def sparsity(self) -> float:
        """Share of zeros that the pattern makes."""
        return 1 - self.n / self.m


class Structured(_Layers):
    """Whole channels, neurons and attention heads, removed for real: the model becomes smaller."""

    pattern: Literal["structured"] = "structured"
    removes_units: ClassVar[bool] = True
    criterion: UnitCriterion = Field(default_factory=lambda: Magnitude(norm=2))
    allocation: UnitAllocation = Field(default_factory=lambda: GlobalAllocation(cap=0.9))
    units: tuple[UnitKind, ...] = Field(
        ("channels", "neurons", "heads"),
        min_length=1,
        max_length=4,
        description="What may go: channels of convolutions, neurons of feed-forward layers, attention heads "
        "(with grouped-query attention: whole groups), and, only where asked for, the hidden size.",
    )
    round_to: int = Field(
        8, ge=1, le=256, description="Widths are rounded up to a multiple of this, which hardware likes."
    )
    overrides: dict[Glob, Share] = Field(
        default_factory=dict,
        max_length=64,
        description="Share of units that goes at the end for layers that match a glob; the first counts.",
    )


def _default_pattern(value: Any) -> Any:
    return {"pattern": "unstructured", **value} if isinstance(value, dict) else value


Method = Annotated[
    Annotated[Unstructured | SemiStructured | Structured, Field(discriminator="pattern")],
    BeforeValidator(_default_pattern),
]
