"""What to prune, how far, and in which steps."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Glob, Spec, not_delivered

_LATER_PATTERNS = {
    "semi_structured": "use 'unstructured'",
    "structured": "use 'unstructured'",
}
_LATER_CRITERIA = {
    name: "use 'magnitude' or 'random'"
    for name in (
        "taylor",
        "snip",
        "fisher",
        "hessian",
        "sparsegpt",
        "wanda",
        "movement",
        "bn_scale",
        "fpgm",
    )
}
_LATER_ALLOCATIONS = {name: "use 'global' or 'uniform'" for name in ("erk", "lamp", "sensitivity")}


class Goal(Spec):
    """How small the model must become."""

    sparsity: float = Field(
        gt=0,
        le=0.999,
        description="Share of the weights of the pruned layers that are zero after the last round.",
        examples=[0.8],
    )

    @model_validator(mode="before")
    @classmethod
    def _only_sparsity(cls, value: object) -> object:
        for name in ("params", "macs", "size", "latency"):
            if isinstance(value, dict) and name in value:
                raise ValueError(f"goal '{name}' is not available in this version: use 'sparsity'")
        return value


class Floor(Spec):
    """How much of the metric may be lost: give exactly one of the two."""

    max_drop: float | None = Field(
        None, ge=0, le=1, description="Largest allowed drop below the dense model's metric, absolute."
    )
    min_value: float | None = Field(None, ge=0, le=1, description="Smallest allowed value of the metric.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Floor":
        if (self.max_drop is None) == (self.min_value is None):
            raise ValueError("give exactly one of 'max_drop' and 'min_value'")
        return self

    def threshold(self, dense: float) -> float:
        """The smallest metric that holds, for a dense model that reaches `dense`."""
        return self.min_value if self.min_value is not None else dense - (self.max_drop or 0.0)


class Magnitude(Spec):
    """Smallest weights first (Han et al. 2015). For single weights, L1 and L2 give the same order."""

    kind: Literal["magnitude"] = "magnitude"
    norm: Literal[1, 2] = Field(1, description="L1 or L2 norm; they differ only for groups of weights.")


class Random(Spec):
    """Random weights, drawn from the job's seed: the control that every criterion must beat."""

    kind: Literal["random"] = "random"


Criterion = Annotated[
    Annotated[Magnitude | Random, Field(discriminator="kind")], not_delivered("criterion", _LATER_CRITERIA)
]


class GlobalAllocation(Spec):
    """One threshold for all layers: layers of small weights lose more."""

    kind: Literal["global"] = "global"


class UniformAllocation(Spec):
    """The same share from each layer; first and last stay dense by default (Gale et al. 2019)."""

    kind: Literal["uniform"] = "uniform"
    keep_first_and_last: bool = Field(True, description="Leave the first and the last layer dense.")


Allocation = Annotated[
    Annotated[GlobalAllocation | UniformAllocation, Field(discriminator="kind")],
    not_delivered("allocation", _LATER_ALLOCATIONS),
]


class Method(Spec):
    """Which weights go."""

    pattern: Annotated[Literal["unstructured"], not_delivered("pattern", _LATER_PATTERNS)] = Field(
        "unstructured", description="Single weights, anywhere."
    )
    criterion: Criterion = Magnitude()
    allocation: Allocation = GlobalAllocation()
    include: tuple[Glob, ...] = Field(
        ("*",), min_length=1, max_length=64, description="Globs of layer names to prune."
    )
    exclude: tuple[Glob, ...] = Field(
        (), max_length=64, description="Globs of layer names to leave dense; wins over `include`."
    )


class OneShot(Spec):
    """All at once."""

    kind: Literal["one_shot"] = "one_shot"

    def rounds_in_all(self) -> int:
        return 1

    def sparsity_after(self, done: int, final: float) -> float:
        """Sparsity after round `done` (1-based) of a job that ends at `final`."""
        return final


class Iterative(Spec):
    """Prune a little, fine-tune, repeat."""

    kind: Literal["iterative"] = "iterative"
    rounds: int = Field(5, ge=1, le=100)
    curve: Literal["linear", "cubic", "geometric"] = Field(
        "cubic",
        description="linear: equal steps. cubic: large steps first (Zhu and Gupta 2017). "
        "geometric: the same share of what is left in each round (Frankle and Carbin 2019).",
    )

    def rounds_in_all(self) -> int:
        return self.rounds

    def sparsity_after(self, done: int, final: float) -> float:
        """Sparsity after round `done` (1-based) of a job that ends at `final`."""
        if done >= self.rounds:
            return final
        share = done / self.rounds
        if self.curve == "linear":
            return final * share
        if self.curve == "cubic":
            return final * (1 - (1 - share) ** 3)
        return float(1 - (1 - final) ** share)


Schedule = Annotated[OneShot | Iterative, Field(discriminator="kind")]
