"""In which steps a job goes to its goal."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Spec

Curve = Literal["linear", "cubic", "geometric"]


def share_after(curve: Curve, done: float, final: float) -> float:
    """What is removed after the share `done` (0..1) of the way to `final`."""
    if done >= 1:
        return final
    if curve == "linear":
        return final * done
    if curve == "cubic":
        return final * (1 - (1 - done) ** 3)
    return float(1 - (1 - final) ** done)


class OneShot(Spec):
    """All at once."""

    kind: Literal["one_shot"] = "one_shot"

    def rounds_in_all(self) -> int:
        return 1

    def removed_after(self, done: int, final: float) -> float:
        """Share removed after round `done` (1-based) of a job that ends at `final`."""
        return final


class Iterative(Spec):
    """Prune a little, fine-tune, repeat."""

    kind: Literal["iterative"] = "iterative"
    rounds: int = Field(5, ge=1, le=100)
    curve: Curve = Field(
        "cubic",
        description="linear: equal steps. cubic: large steps first (Zhu and Gupta 2017). "
        "geometric: the same share of what is left in each round (Frankle and Carbin 2019).",
    )

    def rounds_in_all(self) -> int:
        return self.rounds

    def removed_after(self, done: int, final: float) -> float:
        """Share removed after round `done` (1-based) of a job that ends at `final`."""
        return share_after(self.curve, done / self.rounds, final)


class Gradual(Spec):
    """One round, in which the mask grows every few steps of the training (Zhu and Gupta 2017, GMP)."""

    kind: Literal["gradual"] = "gradual"
    every_steps: int = Field(100, ge=1, le=1_000_000, description="Training steps between two mask updates.")
    begin: float = Field(0.0, ge=0, lt=1, description="Share of the training at which the first zeros come.")
    end: float = Field(0.7, gt=0, le=1, description="Share of the training at which the goal is reached.")
    curve: Curve = "cubic"

    @model_validator(mode="after")
    def _begin_before_end(self) -> "Gradual":
        if self.begin >= self.end:
            raise ValueError(f"begin ({self.begin}) must be less than end ({self.end})")
        return self

    def rounds_in_all(self) -> int:
        return 1

    def removed_after(self, done: int, final: float) -> float:
        """Share removed after the one round."""
        return final

    def removed_at(self, step: int, steps: int, final: float) -> float:
        """Share removed at `step` (0-based) of a training of `steps`."""
        done = (step / steps - self.begin) / (self.end - self.begin)
        return share_after(self.curve, done, final) if done > 0 else 0.0


class Search(Spec):
    """No goal: find the most that the floor allows. Each round tries one share, beginning at the weights of
    the largest that held; the next try lies between that and the smallest that did not."""

    kind: Literal["search"] = "search"
    first: float = Field(0.5, gt=0, lt=1, description="Share removed in the first round.")
    most: float = Field(0.95, gt=0, le=0.999, description="Never try more than this.")
    resolution: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="Stop when the largest share that held is this close to one that did not.",
    )
    rounds: int = Field(8, ge=1, le=100, description="At most so many tries.")

    @model_validator(mode="after")
    def _first_within(self) -> "Search":
        if self.first > self.most:
            raise ValueError(f"first ({self.first}) must not be more than most ({self.most})")
        return self

    def rounds_in_all(self) -> int:
        return self.rounds

    def next_share(self, held: float, broken: float | None) -> float | None:
        """The share to try next; None: the answer is `held`. `held` is 0 before the first try."""
        if broken is None:
            if held == 0:
                return self.first
            return None if held >= self.most else min(self.most, (1 + held) / 2)
        return None if broken - held <= self.resolution else (held + broken) / 2


Schedule = Annotated[OneShot | Iterative | Gradual | Search, Field(discriminator="kind")]
