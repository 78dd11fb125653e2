"""What was measured, one JSON line a measurement; a line whose spec has changed since does not count."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.tables.plan import Case

OURS = "secateur"


@dataclass(frozen=True)
class Speed:
    """Dense against pruned in ONNX Runtime, measured in turns; milliseconds of one inference."""

    what: str
    """`batch 32`, or `batch 1, 512 tokens`."""
    dense_ms: float
    pruned_ms: float
    speedup: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Result:
    """One case, made by us or by a library (`by`)."""

    key: str
    digest: str
    by: str
    dense: float
    metric: float
    removed: float
    """Share of the goal's quantity that is gone."""
    nonzeros: int
    macs: int | None
    seconds: float
    speeds: tuple[Speed, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    at: str = ""
    note: str = ""


class Results:
    """The file, read once and appended to as measurements come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, str, str], Result] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._remember(_result(json.loads(line)))

    def of(self, case: Case, by: str) -> Result | None:
        """The last measurement of the case as it is written now; None: there is none."""
        return self._known.get((case.key, case.digest, by))

    def missing(self, cases: Iterable[Case], by: str) -> list[Case]:
        """The cases that are still to be measured."""
        return [case for case in cases if self.of(case, by) is None]

    def add(self, result: Result) -> None:
        """Keep it, on disk before anything else happens."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(result), sort_keys=True) + "\n")
        self._remember(result)

    def _remember(self, result: Result) -> None:
        self._known[result.key, result.digest, result.by] = result


def _result(fields: dict[str, object]) -> Result:
    speeds = fields.pop("speeds")
    assert isinstance(speeds, list)
    return Result(**fields, speeds=tuple(Speed(**one) for one in speeds))  # type: ignore[arg-type]
