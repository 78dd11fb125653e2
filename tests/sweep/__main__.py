"""Structured pruning by half on every architecture of the sweep: `python -m tests.sweep`.

Each stage of each case runs in a child of its own with a limit on time and memory, and its record is kept in
`.cache/sweep/`, so that an interrupted sweep goes on; `--fresh` starts again, `--only GLOB` runs some.
Writes `docs/architectures.md` when all ran, and ends with the share that passed.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

from tests.benchmarks.bar import finish
from tests.sweep.architectures import cases
from tests.sweep.child import alone, kept, run
from tests.sweep.stages import STAGES
from tests.sweep.table import passed, verdict, write

MIN_SHARE = 0.95


def step(name: str, stage: str) -> None:
    """Run one stage, keep its record, say how it went."""
    record = run(name, stage)
    told = record.get("reason") or f"{record.get('seconds', '')}"
    print(f"{name:45} {stage:7} {record['outcome']:8} {told}", flush=True)


def main() -> None:
    """Run what has no record, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--fresh", action="store_true", help="forget earlier records")
    parser.add_argument("--again", action="store_true", help="repeat those that did not pass")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--case", nargs=2, metavar=("NAME", "STAGE"), help="one stage, here")
    arguments = parser.parse_args()
    if arguments.case:
        alone(*arguments.case)
        print(json.dumps(kept(*arguments.case)))
        return
    chosen = [name for name in cases() if fnmatchcase(name, arguments.only)]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        for stage in arguments.stages:
            due = [name for name in chosen if _due(name, stage, arguments)]
            list(pool.map(step, due, [stage] * len(due)))
    records = {name: {stage: kept(name, stage) for stage in STAGES} for name in cases()}
    write(cases(), records)
    told = [verdict(record) for record in records.values()]
    finish("sweep", sum(map(passed, records.values())) / len(told), MIN_SHARE, at_least=True)


def _due(name: str, stage: str, arguments: argparse.Namespace) -> bool:
    record = kept(name, stage)
    if stage == "export" and (kept(name, "check") or {}).get("outcome") != "passed":
        return False
    return record is None or arguments.fresh or (arguments.again and record["outcome"] != "passed")


if __name__ == "__main__":
    main()
