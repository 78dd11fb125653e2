"""`make tables`: measure what is not measured yet, by the service and by libraries, and print it."""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from schemas.benchmark import Verdict
from service.cli.errors import CliError
from service.dev.process import ServerError
from tests.tables.libraries import prepare, run_library
from tests.tables.places import RESULTS
from tests.tables.plan import Case, load_cases
from tests.tables.results import OURS, Results
from tests.tables.service import run_cases
from tests.tables.speed import again, file_of
from tests.tables.table import lines, markdown, order_failures


def main() -> int:
    """0: all that was asked for is measured and holds its limits. 1: not, and the reason was printed."""
    options = _options()
    cases = [case for case in load_cases() if _wanted(case, options)]
    results = Results(RESULTS)
    failures: list[str] = []
    if options.speeds:
        _measure_speeds_again(cases, results)
    elif not options.print:
        failures += _measure(cases, results, options.by)
    found = lines(cases, results)
    print(markdown(found))
    failures += [sentence for line in found for sentence in line.failures()] + order_failures(found)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _measure(cases: list[Case], results: Results, by: str) -> list[str]:
    failures: list[str] = []
    for row in sorted({case.row for case in cases}):
        of_row = [case for case in cases if case.row == row]
        missing = results.missing(of_row, OURS) if by in ("all", OURS) else []
        if missing:
            try:
                failures += run_cases(missing, results.add)
            except (CliError, ServerError) as error:
                failures.append(f"row {row}: {error}")
        if by in ("all", "libraries"):
            failures += _libraries(of_row, results)
    return failures


def _libraries(cases: list[Case], results: Results) -> list[str]:
    """As many at the same time as jobs of the row."""
    failures = []
    wanted = [case for case in cases if case.peer and results.of(case, case.peer) is None]
    if not wanted:
        return []
    prepare(wanted)
    with ThreadPoolExecutor(wanted[0].slots) as pool:
        running = {pool.submit(run_library, case): case for case in wanted}
        for done in as_completed(running):
            try:
                results.add(done.result())
            except (subprocess.CalledProcessError, ValueError) as error:
                failures.append(f"{running[done].key}, the library: {error}")
    return failures


def _measure_speeds_again(cases: list[Case], results: Results) -> None:
    """Of what other work on the machine made too unstable to judge."""
    for case in cases:
        for by in filter(None, (OURS, case.peer)):
            known = results.of(case, by)
            if known and any(one.verdict == Verdict.unstable for one in known.speeds):
                if not file_of(case, by).is_file():
                    print(f"{case.key} by {by}: no {file_of(case, by)}, measure it anew", file=sys.stderr)
                    continue
                results.add(again(case, known))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.tables", description=__doc__)
    parser.add_argument("--only", type=int, action="append", metavar="ROW", help="this row; may be repeated")
    parser.add_argument("--case", metavar="TEXT", help="cases whose name contains this")
    parser.add_argument("--seed", type=int, help="this seed alone")
    parser.add_argument("--by", choices=("all", OURS, "libraries"), default="all", help="who is measured")
    parser.add_argument("--speeds", action="store_true", help="measure unstable speeds again, nothing else")
    parser.add_argument("--print", action="store_true", help="measure nothing: print what is known")
    return parser.parse_args()


def _wanted(case: Case, options: argparse.Namespace) -> bool:
    return (
        (options.only is None or case.row in options.only)
        and (options.case is None or options.case in case.name)
        and (options.seed is None or case.seed == options.seed)
    )


if __name__ == "__main__":
    sys.exit(main())
