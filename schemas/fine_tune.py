"""How a model is trained back to its metric after each cut."""

from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Glob, Spec


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
    rewind: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the schedule that a round skips: the learning rate is rewound to that point "
        "and follows the rest (Renda et al. 2020). 0: the whole schedule again, warm-up included.",
    )


class Distill(Spec):
    """Learn from the dense model as teacher (Hinton et al. 2015)."""

    weight: float = Field(0.5, gt=0, le=1, description="Share of the distillation loss in the whole.")
    temperature: float = Field(2.0, gt=0, le=100)
    hidden_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight of the mean squared error between hidden states of model and teacher, added to "
        "the loss (FitNets, Romero et al. 2015; TinyBERT, Jiao et al. 2020). 0: scores alone.",
    )
    hidden_layers: tuple[Glob, ...] = Field(
        (),
        max_length=64,
        description="Globs of the modules whose outputs are matched, for example 'bert.encoder.layer.*' or "
        "'layer?'; of modules inside one another the outermost counts.",
    )

    @model_validator(mode="after")
    def _hidden_states_have_a_place(self) -> "Distill":
        if self.hidden_weight > 0 and not self.hidden_layers:
            raise ValueError(
                "hidden_weight needs hidden_layers: name the modules, such as 'bert.encoder.layer.*'"
            )
        if self.hidden_layers and self.hidden_weight == 0:
            raise ValueError("hidden_layers without a hidden_weight change nothing: give a weight above 0")
        return self


class Rigl(Spec):
    """Move the zeros while training (Evci et al. 2020, RigL): in each pruned layer the smallest live weights
    go, and as many return where the loss pulls hardest. The number of zeros stays the same."""

    every_steps: int = Field(100, ge=1, le=1_000_000, description="Training steps between two exchanges.")
    share: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="Share of the live weights exchanged at first; it falls as a cosine to 0.",
    )
    until: float = Field(
        0.75, gt=0, le=1, description="Share of the round after which the zeros stay where they are."
    )

    def share_at(self, step: int, steps: int) -> float:
        """Share of the live weights to exchange at `step` (0-based) of `steps`; 0: none at this step."""
        end = self.until * steps
        if step == 0 or step % self.every_steps or step >= end:
            return 0.0
        return self.share * 0.5 * (1 + cos(pi * step / end))


class Ema(Spec):
    """Exponential moving average of the weights over a round's steps (Polyak and Juditsky 1992)."""

    kind: Literal["ema"] = "ema"
    decay: float = Field(
        0.999,
        gt=0,
        lt=1,
        description="What the average keeps at each step; after n steps at most (1 + n) / (10 + n), so that "
        "a short round is not dominated by the weights it began with.",
    )


class Swa(Spec):
    """Plain average of the weights over the last steps of a round (Izmailov et al. 2018). It was published
    with a learning rate that stays up: set `lr_schedule.kind: constant`."""

    kind: Literal["swa"] = "swa"
    begin: float = Field(0.75, ge=0, lt=1, description="Share of the round at which averaging begins.")


Average = Annotated[Ema | Swa, Field(discriminator="kind")]


AugmentName = Literal["none", "light", "standard", "strong"]


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
    average: Average | None = Field(
        None,
        description="Null: a round ends with its last weights. Else with an average, begun anew whenever "
        "zeros move, and statistics of batch norms measured anew.",
    )
    regrow: Rigl | None = Field(None, description="Null: a zero stays a zero.")
    augment: AugmentName = Field(
        "none",
        description="Random changes to training images, new in each epoch. light: shifts and flips. "
        "standard: crops, flips, TrivialAugment. strong: smaller crops, flips, RandAugment, random erasing. "
        "All of them mirror images: not for letters and digits.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Stop a round after this many epochs without a better metric of the weights in training; "
        "null: never. With schedule 'gradual' it counts from the goal on.",
    )

    def epochs_of(self, number: int, rounds: int) -> int:
        """Epochs of round `number` (1-based) out of `rounds`."""
        return self.epochs + (self.final_epochs if number == rounds else 0)
