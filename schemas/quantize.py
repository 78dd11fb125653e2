"""Smaller numbers after pruning."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec
from schemas.criteria import Samples


class NoQuantization(Spec):
    """The weights stay as they are."""

    kind: Literal["none"] = "none"


class Int8Dynamic(Spec):
    """Weights in INT8; activations are quantized as they come. No calibration; best for transformers."""

    kind: Literal["int8_dynamic"] = "int8_dynamic"


class Int8Static(Spec):
    """Weights and activations in INT8, with scales from calibration data, as Q/DQ nodes in the ONNX file."""

    kind: Literal["int8_static"] = "int8_static"
    samples: Samples = 256
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax", description="How a range is read off the activations."
    )


class Cluster(Spec):
    """Weights share k values a layer, found by k-means (Han et al. 2016): the file compresses better."""

    kind: Literal["cluster"] = "cluster"
    k: int = Field(64, ge=2, le=256, description="Values that are not zero, in each layer.")


Quantize = Annotated[NoQuantization | Int8Dynamic | Int8Static | Cluster, Field(discriminator="kind")]
