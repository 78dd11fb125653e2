"""The zoo as the service sees it: what lies under a prefix, told without loading any weights."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from schemas.base import Resource, S3Prefix, Spec
from schemas.task import Task


class ModelKind(StrEnum):
    """How a model is stored."""

    folder = "folder"
    torch_export = "torch_export"
    onnx = "onnx"


class ZooQuery(Spec):
    """The query of a list of models."""

    uri: S3Prefix = Field(description="Where to look, with all folders below.", examples=["s3://zoo/"])
    limit: int = Field(100, ge=1, le=1000, description="Models on a page.")
    after: str | None = Field(None, max_length=2048, description="The last uri of the page before.")


class ZooModel(Resource):
    """One model: what `config.json` and the heads of its weight files say."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "model",
                    "uri": "s3://zoo/fashion-resnet/",
                    "kind": "folder",
                    "library": "transformers",
                    "architecture": "ResNetForImageClassification",
                    "tasks": ["image-classification"],
                    "parameters": 157_442,
                    "bytes": 637_632,
                    "dtypes": {"F32": 157_432, "I64": 10},
                    "readable": True,
                    "reason": None,
                }
            ]
        }
    )

    object: Literal["model"] = "model"
    uri: str = Field(
        description="A folder ends in a slash; `.pt2` and `.onnx` files are models of their own."
    )
    kind: ModelKind
    library: str | None = Field(
        None, description="transformers, timm, torchvision, or a plug-in of a worker. Null: not known."
    )
    architecture: str | None = Field(None, description="As the library names it. Null: not known.")
    tasks: list[Task] = Field(
        default_factory=list,
        description="What its head does, as data.task names it. Empty: not known, or nothing.",
    )
    parameters: int | None = Field(
        None, description="Elements of all stored tensors, buffers included; tied ones once. Null: not known."
    )
    bytes: int = Field(description="Of the files that hold the weights.")
    dtypes: dict[str, int] = Field(
        default_factory=dict, description="Elements by type, as safetensors names types; the most first."
    )
    readable: bool = Field(
        description="Nothing that can be seen without loading the weights keeps a job from pruning it."
    )
    reason: str | None = Field(None, description="Why it is not readable, and the remedy.")
