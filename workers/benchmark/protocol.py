"""What `compare` and the process that measures say to each other: a file to it, lines of JSON from it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.base import Spec
from schemas.benchmark import BenchmarkSpec, Comparison


class Request(Spec):
    """What to measure: the file that the process is started with."""

    parent: int = Field(description="Process id of the caller, without whom there is nobody to measure for.")
    device: Literal["cpu", "cuda"] = "cpu"
    dense: Path
    pruned: Path
    feeds: dict[int, Path] = Field(description="By batch size: an `.npz` file with one array for each input.")
    spec: BenchmarkSpec
    threads: int = Field(ge=1)


class RoundLine(Spec):
    """One interleaved round is over."""

    kind: Literal["round"] = "round"


class ResultLine(Spec):
    """All is measured."""

    kind: Literal["result"] = "result"
    device: str
    comparisons: list[Comparison]


class ErrorLine(Spec):
    """It cannot be measured; the traceback is on stderr."""

    kind: Literal["error"] = "error"
    message: str


Line = Annotated[RoundLine | ResultLine | ErrorLine, Field(discriminator="kind")]
LINE: TypeAdapter[Line] = TypeAdapter(Line)
