"""What TensorRT's builder says of sparsity in its log, whose words changed between versions.

8.x says `(Sparsity) Layers eligible for sparse math: a, b` and `(Sparsity) TRT inference plan picked sparse
implementation for layers: b`; 10.x says `(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b`
and `(Sparsity) Chose 1 layer(s) using sparse tactics: b`. No log of 11.x with such lines has been seen:
where there is none, nothing is known, and that is not the same as none picked.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARK = "(Sparsity)"

_NAMES = r"(?::\s*(?P<names>.*))?$"
_ELIGIBLE = (
    re.compile(r"\(Sparsity\) Layers eligible for sparse math" + _NAMES),
    re.compile(r"\(Sparsity\) Found (?P<count>\d+) layer\(s\) eligible to use sparse tactics" + _NAMES),
)
_PICKED = (
    re.compile(r"\(Sparsity\) TRT inference plan picked sparse implementation for layers" + _NAMES),
    re.compile(r"\(Sparsity\) Chose (?P<count>\d+) layer\(s\) using sparse tactics" + _NAMES),
)


@dataclass(frozen=True)
class Layers:
    """So many layers; their names where the log has them."""

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class SparsityLog:
    """The last word of one build; None: the log does not say."""

    eligible: Layers | None
    picked: Layers | None


def read_sparsity_log(lines: Iterable[str]) -> SparsityLog:
    """From log lines, with or without a prefix. A builder may say it several times: the last time counts."""
    eligible = picked = None
    for line in lines:
        if (found := _match(_ELIGIBLE, line)) is not None:
            eligible, picked = found, None  # a new pair begins
        elif (found := _match(_PICKED, line)) is not None:
            picked = found
    return SparsityLog(eligible, picked)


def _match(patterns: tuple[re.Pattern[str], ...], line: str) -> Layers | None:
    for pattern in patterns:
        found = pattern.search(line.strip())
        if found is None:
            continue
        names = tuple(name for part in (found["names"] or "").split(",") if (name := part.strip()))
        stated = found.groupdict().get("count")
        return Layers(len(names) if stated is None else int(stated), names)
    return None
