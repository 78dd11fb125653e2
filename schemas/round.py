"""One prune and fine-tune round, committed once and for all."""

from typing import Literal

from pydantic import Field

from schemas.base import Resource, Timestamp


class Round(Resource):
    """The figures of one round. A round that broke the floor is kept, but is not the result."""

    object: Literal["round"] = "round"
    number: int = Field(ge=1)
    attempt: int
    target: float = Field(0.0, description="What was to be removed, as a share of the goal's quantity.")
    sparsity: float = Field(
        description="Share of zeros among the weights of the pruned layers; for a structured job, the share "
        "of the model's parameters that is gone."
    )
    reached: float | None = Field(
        None, description="What is removed, as a share of the goal's quantity. Null: it is the sparsity."
    )
    parameters: int | None = Field(None, description="Parameters after the round (structured).")
    macs: int | None = Field(None, description="Multiply-accumulates after the round (structured).")
    metric: float = Field(description="After fine-tuning.")
    metric_before_fine_tune: float
    loss: float | None = Field(None, description="Mean training loss of the last epoch; null: not trained.")
    epochs: int
    held: bool = Field(description="The metric did not fall below the floor.")
    seconds: float
    committed_at: Timestamp | None = None


class Checkpoint(Resource):
    """All that is needed to go on after a round, beside the weights that it points to."""

    round: int
    prefix: str = Field(description="Folder in S3: `…/rounds/{k}/{token}/`.")
    sha256: str = Field(description="Of `model.safetensors`.")
    bytes: int
    dense_metric: float


def share_removed(round: Round) -> float:
    """What the round removed, as a share of the goal's quantity."""
    return round.sparsity if round.reached is None else round.reached
