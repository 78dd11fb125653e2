"""`make bar-matrix`: every format, task and pattern that runs here, as a table and one JSON line."""

import json
import sys
import tempfile
from pathlib import Path

from tests.matrix.case import FORMATS, Outcome, run


def main(only: str = "") -> int:
    """0 where all reload in their own library with the same outputs."""
    outcomes: list[Outcome] = []
    for name, form in FORMATS.items():
        for pattern in form.patterns:
            if only in f"{name}, {pattern}":
                with tempfile.TemporaryDirectory(prefix="secateur-matrix-") as folder:
                    outcomes.append(run(name, pattern, Path(folder)))
                print(_line(outcomes[-1]), flush=True)
    passed = sum(one.passed for one in outcomes)
    holds = passed == len(outcomes) > 0
    told = {"bar": "matrix", "value": passed, "limit": len(outcomes), "holds": holds}
    print(json.dumps(told))
    return 0 if holds else 1


def _line(one: Outcome) -> str:
    head = f"{'pass' if one.passed else 'FAIL'} {one.name}, {one.pattern}"
    if one.failure is not None:
        return f"{head}: {one.failure}"
    return f"{head}: by {one.reloaded_by}, differs by {one.difference:.2g}, {one.seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
