"""The process that measures: takes a request file, says progress and result on stdout. No torch."""

import os
import sys
import traceback
from pathlib import Path
from typing import TextIO

import numpy as np

from workers.benchmark.backends.backend import Feeds
from workers.benchmark.backends.registry import backend_of
from workers.benchmark.protocol import ErrorLine, Line, Request, ResultLine, RoundLine
from workers.benchmark.runner import measure
from workers.process import die_with_parent


def main() -> int:
    """Measure what the request file asks for; exit code 1 after an error line."""
    lines = _claim_stdout()
    try:
        request = Request.model_validate_json(Path(sys.argv[1]).read_bytes())
        die_with_parent(request.parent)
        _measure(request, lines)
    except Exception as error:  # noqa: BLE001 - the edge of this process
        traceback.print_exc()
        _say(lines, ErrorLine(message=str(error).strip() or type(error).__name__))
        return 1
    return 0


def _measure(request: Request, lines: TextIO) -> None:
    backend = backend_of(request.spec.backend, request.device)
    if reason := backend.why_not():
        raise ValueError(f"{request.spec.backend} cannot run here: {reason}")
    comparisons = measure(
        backend,
        request.dense,
        request.pruned,
        {size: _load(path) for size, path in request.feeds.items()},
        request.spec,
        threads=request.threads,
        on_round=lambda: _say(lines, RoundLine()),
    )
    _say(lines, ResultLine(device=backend.device(), comparisons=comparisons))


def _load(path: Path) -> Feeds:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _claim_stdout() -> TextIO:
    """The real stdout for our lines alone; what any library prints goes to stderr."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _say(lines: TextIO, line: Line) -> None:
    lines.write(line.model_dump_json() + "\n")
    lines.flush()


if __name__ == "__main__":
    sys.exit(main())
