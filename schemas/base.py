"""The base of every schema, and the field types that several of them share."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)


class Spec(BaseModel):
    """What a user sends: frozen, and an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Resource(BaseModel):
    """What the service answers: frozen; a newer service may add fields, so readers ignore unknown ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")

    @classmethod
    def now(cls, **fields: Any) -> Self:
        """Build one whose `created_at` is the present."""
        return cls(created_at=datetime.now(UTC), **fields)


def not_delivered(field: str, planned: dict[str, str]) -> BeforeValidator:
    """Refuse a value that the product will have but has not yet, with a sentence that says what to use.

    `planned` maps each such value to the remedy.
    """

    def refuse(value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else value
        if isinstance(kind, str) and kind in planned:
            raise ValueError(f"{field} '{kind}' is not available in this version: {planned[kind]}")
        return value

    return BeforeValidator(refuse)


_S3_PREFIX = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=+@, -]*)*$"


def _folder(uri: str) -> str:
    if re.fullmatch(_S3_PREFIX[1:-1], uri) is None:
        raise ValueError(
            "not an S3 folder: write s3://bucket/prefix/ with a lower-case bucket name and, in the prefix, "
            "letters, digits, spaces and !_.*'()=+@,- only"
        )
    segments = uri.removeprefix("s3://").removesuffix("/").split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("an S3 URI may not contain empty, '.' or '..' segments")
    return uri if uri.endswith("/") else uri + "/"


S3Prefix = Annotated[
    str, Field(max_length=1024, json_schema_extra={"pattern": _S3_PREFIX}), AfterValidator(_folder)
]
"""`s3://bucket/prefix/`: a folder in S3; a missing last slash is added."""

MODEL_FILE_SUFFIXES = (".pt2", ".onnx")
"""Of files that are a whole model: `torch.export` archives and ONNX files."""


def is_model_file(uri: str) -> bool:
    """Whether the URI is that of a single file, not of a folder."""
    return uri.endswith(MODEL_FILE_SUFFIXES) and "/" in uri.removeprefix("s3://")


def _model(uri: str) -> str:
    folder = _folder(uri)
    return uri if is_model_file(uri) else folder


S3Model = Annotated[
    str, Field(max_length=1024, json_schema_extra={"pattern": _S3_PREFIX}), AfterValidator(_model)
]
"""`s3://bucket/prefix/`, or `s3://bucket/prefix/model.pt2`: a folder, or one file that is a model."""

Ratio = Annotated[float, Field(gt=0, lt=1)]
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$")]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Timestamp = AwareDatetime
