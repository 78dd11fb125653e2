"""The rounds of a structured job as JSON: a fresh dense module and these give the pruned one, bit for bit."""

import json
from pathlib import Path

from pydantic import Field, ValidationError
from torch import nn

from schemas.base import Spec
from workers.errors import ModelError
from workers.pruning.structured.records import Surgery
from workers.pruning.structured.surgery import operate

FILE = "surgery.json"
MAX_BYTES = 256 * 2**20


class History(Spec):
    """What was removed, round by round; each round counts positions in the model that the last one left."""

    version: int = Field(1, ge=1, le=1)
    rounds: tuple[Surgery, ...] = Field((), max_length=10_000)

    def after(self, surgery: Surgery) -> "History":
        """With one more round."""
        return self.model_copy(update={"rounds": (*self.rounds, surgery)})

    def removed(self) -> list[dict[str, list[int]]]:
        """For each round: the units that went, by group."""
        return [{name: list(units) for name, units in one.removed.items()} for one in self.rounds]


def replay(module: nn.Module, history: History) -> None:
    """Do all rounds again on a dense `module` of the same architecture, without a trace; weights may be any.

    Raises ModelError where the history does not fit: a name, a size or an attribute that the module lacks.
    """
    for number, surgery in enumerate(history.rounds, start=1):
        try:
            operate(module, surgery)
        except ValueError as error:
            raise ModelError(
                f"{FILE} does not fit the model of config.json (round {number}: {error}): "
                "give the files that were stored together"
            ) from error


def write_history(history: History, folder: Path) -> Path:
    """`surgery.json` in `folder`."""
    path = folder / FILE
    path.write_text(history.model_dump_json(exclude_defaults=True) + "\n", encoding="utf-8")
    return path


def read_history(folder: Path) -> History:
    """The history in `folder`; ModelError when it is missing, too large or not of our form."""
    path = folder / FILE
    if not path.is_file():
        raise ModelError(f"config.json names {FILE}, which is not in the folder: upload it")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{FILE} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        return History.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ModelError(f"{FILE} is not a history of this service ({where}: {first['msg']})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{FILE} is not valid JSON ({error}): upload the file again") from error
