"""How much each weight, or each group of weights, counts: the smallest scores go first."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import Spec

Samples = Annotated[
    int,
    Field(
        ge=1,
        le=1_000_000,
        description="Calibration samples: of the split `calibration` where the data has one, else drawn "
        "from `train` with the seed.",
    ),
]


class _Criterion(Spec):
    needs_data: ClassVar[bool] = False
    scores_rows: ClassVar[bool] = False
    """Scores compare within a layer only, so an allocation must say how much each layer loses."""


class _DataDriven(_Criterion):
    needs_data: ClassVar[bool] = True
    samples: Samples = 512


class Magnitude(_Criterion):
    """Smallest weights first (Han et al. 2015). For single weights, L1 and L2 give the same order; for
    groups it is the norm over everything that a unit touches (Li et al. 2017)."""

    kind: Literal["magnitude"] = "magnitude"
    norm: Literal[1, 2] = Field(1, description="L1 or L2 norm; they differ only for groups of weights.")


class Random(_Criterion):
    """Random weights or units, drawn from the job's seed: the control that every criterion must beat."""

    kind: Literal["random"] = "random"


class BnScale(_Criterion):
    """Channels by the scale of the batch norm behind them (Liu et al. 2017, Network Slimming)."""

    kind: Literal["bn_scale"] = "bn_scale"


class GeometricMedian(_Criterion):
    """Filters that the others can replace: the smallest sum of distances to them (He et al. 2019, FPGM)."""

    kind: Literal["fpgm"] = "fpgm"


class Taylor(_DataDriven):
    """First-order Taylor expansion of the loss, |gradient · weight| (Molchanov et al. 2019)."""

    kind: Literal["taylor"] = "taylor"


class Snip(_DataDriven):
    """Connection sensitivity |gradient · weight| of the mean loss, normalised over all layers (Lee et al.
    2019)."""

    kind: Literal["snip"] = "snip"


class Fisher(_DataDriven):
    """Weight² · diagonal of the empirical Fisher information (Theis et al. 2018)."""

    kind: Literal["fisher"] = "fisher"


class Hessian(_DataDriven):
    """Optimal brain surgeon on blocks of the empirical Fisher matrix (Singh and Alistarh 2020, Kurtic et al.
    2022): the weights that stay are moved to make up for those that go."""

    kind: Literal["hessian"] = "hessian"
    block: int = Field(32, ge=1, le=256, description="Weights whose interplay is kept, in one block.")
    damp: float = Field(1e-7, gt=0, le=1, description="Added to the diagonal, in the Fisher matrix's unit.")


class SparseGpt(_DataDriven):
    """Layer by layer, what stays is solved anew to give the same outputs (Frantar and Alistarh 2023)."""

    kind: Literal["sparsegpt"] = "sparsegpt"
    scores_rows: ClassVar[bool] = True
    block: int = Field(128, ge=8, le=1024, description="Columns that are pruned before errors are passed on.")
    damp: float = Field(
        0.01, gt=0, le=1, description="Added to the Hessian's diagonal, as a share of its mean."
    )


class Wanda(_DataDriven):
    """|weight| · norm of its input, compared within each output row (Sun et al. 2024)."""

    kind: Literal["wanda"] = "wanda"
    scores_rows: ClassVar[bool] = True


class Movement(_Criterion):
    """Scores learned while fine-tuning: weights that move towards zero go (Sanh et al. 2020)."""

    kind: Literal["movement"] = "movement"


WeightCriterion = Annotated[
    Magnitude | Random | Taylor | Snip | Fisher | Hessian | SparseGpt | Wanda | Movement,
    Field(discriminator="kind"),
]
"""Criteria for single weights."""

PatternCriterion = Annotated[
    Magnitude | Random | Taylor | Snip | Fisher | SparseGpt | Wanda, Field(discriminator="kind")
]
"""Criteria for N of M weights."""

UnitCriterion = Annotated[
    Magnitude | Random | BnScale | GeometricMedian | Taylor | Fisher, Field(discriminator="kind")
]
"""Criteria for whole channels, neurons and heads."""

Criterion = (
    Magnitude
    | Random
    | BnScale
    | GeometricMedian
    | Taylor
    | Snip
    | Fisher
    | Hessian
    | SparseGpt
    | Wanda
    | Movement
)
