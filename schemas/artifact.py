"""A file that a job produced."""

from typing import Literal

from pydantic import Field

from schemas.base import Resource


class Artifact(Resource):
    """Name, size and checksum of one file; `GET …/artifacts/{name}` redirects to it."""

    object: Literal["artifact"] = "artifact"
    name: str = Field(examples=["model.safetensors"])
    bytes: int
    sha256: str
    media_type: str
