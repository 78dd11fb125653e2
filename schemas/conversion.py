"""What `python -m workers.convert` says while it turns a pickled state dict into safetensors: JSON lines."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.base import Resource


class Advanced(Resource):
    """So many of so many bytes of a step are done."""

    object: Literal["progress"] = "progress"
    step: Literal["reading", "writing", "checking"]
    done: int
    total: int


class Dropped(Resource):
    """A tensor that is another one's memory under a second name: tied weights are stored once."""

    name: str
    kept: str = Field(description="The name under which the values are stored.")


class Converted(Resource):
    """The result: a folder with `model.safetensors`, whole and checked."""

    object: Literal["conversion"] = "conversion"
    sources: list[str] = Field(description="Names of the files that were read.")
    found_under: str | None = Field(None, description="The entry that held the tensors. Null: the top.")
    prefix: str | None = Field(None, description="What was cut off the beginning of every name.")
    tensors: int
    parameters: int = Field(description="Elements of all tensors, buffers included.")
    dtypes: dict[str, int] = Field(description="Elements by type, as safetensors names them.")
    bytes: int = Field(description="Of model.safetensors.")
    sha256: str
    dropped: list[Dropped]
    left_out: list[str] = Field(description="Entries that are no tensors of the model, with their types.")
    copied: list[str] = Field(description="Files that came along.")
    left_behind: list[str] = Field(description="Files of the folder that did not.")


class NotConverted(Resource):
    """The file is refused."""

    object: Literal["refusal"] = "refusal"
    reason: str = Field(description="The cause and the remedy.")


Line = Annotated[Advanced | Converted | NotConverted, Field(discriminator="object")]
LINE: TypeAdapter[Advanced | Converted | NotConverted] = TypeAdapter(Line)
