"""What a model file offers to sparse kernels, layer by layer."""

from typing import Literal

from pydantic import Field

from schemas.base import Resource


class InspectedLayer(Resource):
    """One layer with a constant weight."""

    name: str
    operator: str
    inputs: int = Field(description="What each output sums over, at one kernel position of one group.")
    outputs: int
    dtype: str
    parameters: int
    zeros: float = Field(description="Share of the weight that is zero.")
    holds: bool = Field(description="At most two of each four neighbours are not zero, everywhere.")
    obstacles: list[str] = Field(description="Why no sparse kernel takes it, each with what would help.")
    doubts: list[str] = Field(description="Why a sparse kernel may not be faster.")

    @property
    def is_eligible(self) -> bool:
        """A sparse kernel may be picked: the shape is right and the pattern is there."""
        return self.holds and not self.obstacles


class Inspection(Resource):
    """All layers of one file."""

    object: Literal["inspection"] = "inspection"
    file: str
    layers: list[InspectedLayer]

    @property
    def eligible(self) -> int:
        """Layers for which a sparse kernel may be picked."""
        return sum(one.is_eligible for one in self.layers)

    @property
    def eligible_share(self) -> float:
        """Their share of the weights of all layers."""
        weights = sum(one.parameters for one in self.layers)
        held = sum(one.parameters for one in self.layers if one.is_eligible)
        return held / weights if weights else 0.0
