"""The cases of the tables, read from `specs/`: each is a job spec, and what a library makes of the same."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schemas.job_spec import JobSpec
from tests.tables.places import SPECS


@dataclass(frozen=True)
class Limit:
    """What must hold in the mean over the seeds; None: nothing is asked."""

    lost_points: float | None = None
    speedup: float | None = None
    batch: int = 1
    """The batch size whose speed-up counts."""
    as_good_as: str | None = None
    """Name of another case of the row that may not be better."""


@dataclass(frozen=True)
class Case:
    """One line of a table and one seed of it."""

    row: int
    title: str
    name: str
    seed: int
    metric: str
    """`accuracy`, or `perplexity`, which is one over the metric of the report."""
    slots: int
    """Jobs that run at the same time; 1 where latency is measured."""
    spec: Mapping[str, Any]
    peer: str | None
    limit: Limit
    tokens: int | None
    """Latency is measured for texts of so many tokens too."""

    @property
    def key(self) -> str:
        """Which line and seed this is."""
        return f"{self.row}/{self.name}/{self.seed}"

    @property
    def digest(self) -> str:
        """Changes with whatever the figures depend on."""
        told = json.dumps([self.spec, self.tokens], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def job(self) -> JobSpec:
        """The spec as the service reads it. Raises ValidationError."""
        return JobSpec.model_validate(self.spec)


def load_cases(folder: Path = SPECS) -> list[Case]:
    """All cases of all rows, in the order of the table; seeds last."""
    return [case for path in sorted(folder.glob("row*.yaml")) for case in _cases_of(path)]


def merged(base: Any, changes: Any) -> Any:
    """`changes` on top of `base`, mapping by mapping."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}


def _cases_of(path: Path) -> Iterator[Case]:
    row = yaml.safe_load(path.read_text(encoding="utf-8"))
    for case in row["cases"]:
        for seed in row["seeds"]:
            spec = _with_seed(merged(row["spec"], case["spec"]), seed)
            yield Case(
                row=row["row"],
                title=row["title"],
                name=str(case["name"]),
                seed=seed,
                metric=row["metric"],
                slots=row["slots"],
                spec={**spec, "seed": seed},
                peer=case.get("peer"),
                limit=Limit(**case.get("limit", {})),
                tokens=case.get("tokens"),
            )


def _with_seed(value: Any, seed: int) -> Any:
    """`{seed}` in any text becomes the number."""
    if isinstance(value, dict):
        return {key: _with_seed(one, seed) for key, one in value.items()}
    return value.replace("{seed}", str(seed)) if isinstance(value, str) else value
