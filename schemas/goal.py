"""How small the model must become, and what may not be lost on the way."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Spec

Remaining = Annotated[float, Field(gt=0, lt=1)]
GoalName = Literal["sparsity", "params", "macs", "size", "latency", "heads", "neurons"]
QUANTITIES: dict[str, str] = {
    "sparsity": "weights of the pruned layers",
    "params": "parameters",
    "macs": "multiply-accumulates",
    "size": "bytes",
    "latency": "latency",
    "heads": "attention heads",
    "neurons": "neurons",
}
STRUCTURED_GOALS: frozenset[str] = frozenset({"params", "macs", "latency", "heads", "neurons"})
"""Goals that only structured pruning can reach: a zero is still a parameter and still multiplied."""


class Goal(Spec):
    """How small the model must become: give exactly one. All but `sparsity` are what remains, as a share of
    the dense model's."""

    sparsity: float | None = Field(
        None,
        gt=0,
        le=0.999,
        description="Share of the weights of the pruned layers that are zero after the last round.",
        examples=[0.8],
    )
    params: Remaining | None = Field(None, description="Parameters that remain (structured).")
    macs: Remaining | None = Field(None, description="Multiply-accumulates that remain (structured).")
    size: Remaining | None = Field(
        None, description="Bytes of model.safetensors that remain; for zeros, after gzip."
    )
    latency: Remaining | None = Field(
        None, description="Latency in ONNX Runtime that remains, measured in each round (structured)."
    )
    heads: Remaining | None = Field(None, description="Attention heads that remain (structured).")
    neurons: Remaining | None = Field(
        None, description="Neurons of feed-forward layers that remain (structured)."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "Goal":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(type(self).model_fields)}, "
                f"not {' and '.join(given) if given else 'none'}"
            )
        return self

    @property
    def name(self) -> str:
        """Which quantity is meant."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """As the user gave it."""
        return float(getattr(self, self.name))

    @property
    def quantity(self) -> str:
        """The quantity in words."""
        return QUANTITIES[self.name]

    @property
    def removed(self) -> float:
        """The share that goes: the sparsity, or one less what remains."""
        return self.value if self.name == "sparsity" else 1 - self.value


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
