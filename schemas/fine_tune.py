"""How a model is trained back to its metric after each cut."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec


class Sgd(Spec):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(0.01, gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1)


class AdamW(Spec):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(5e-5, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="kind")]


class LrSchedule(Spec):
    """How the learning rate moves within one round."""

    kind: Literal["cosine", "step", "constant"] = Field(
        "cosine", description="cosine: to zero. step: divided by ten at 1/2 and 3/4 of the round."
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps with a rising learning rate.")


class Distill(Spec):
    """Learn from the dense model as teacher (Hinton et al. 2015)."""

    weight: float = Field(0.5, gt=0, le=1, description="Share of the distillation loss in the whole.")
    temperature: float = Field(2.0, gt=0, le=100)


class FineTune(Spec):
    """One round's training. `epochs: 0` means that nothing is trained."""

    epochs: int = Field(1, ge=0, le=1000, description="Epochs after each cut.")
    final_epochs: int = Field(0, ge=0, le=1000, description="Epochs more after the last cut.")
    optimizer: Optimizer = Field(default_factory=Sgd, description="Default: SGD for images, AdamW for text.")
    lr_schedule: LrSchedule = LrSchedule()
    batch_size: int = Field(64, ge=1, le=65536)
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="Gradients are clipped to this norm; null: not."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="Mixed precision on CUDA (auto: bf16 where the card has it). CPUs train in fp32."
    )
    distill: Distill | None = Field(None, description="Null: learn from the labels alone.")
    patience: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Stop a round after this many epochs without a better metric; null: never.",
    )

    def epochs_of(self, number: int, rounds: int) -> int:
        """Epochs of round `number` (1-based) out of `rounds`."""
        return self.epochs + (self.final_epochs if number == rounds else 0)
