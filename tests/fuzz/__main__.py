"""Damaged files for every loader: each is refused with an error of ours, in bounded time and memory.

`python -m tests.fuzz --files 10000`; `--loader NAME` for one; `--replay NAME NUMBER` shows one traceback.
The last line is JSON. Files that break a promise stay in `.cache/fuzz/NAME-NUMBER/`.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import torch
import transformers

from tests.fuzz.loaders import LOADERS, Load, Loader
from tests.fuzz.pool import CPU_SECONDS, MAX_BYTES, Outcome, damage, run

KEPT = Path(".cache/fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--loader", action="append", help="of this name only; may be given again")
    parser.add_argument("--replay", nargs=2, metavar=("NAME", "NUMBER"))
    options = parser.parse_args()
    _quiet()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        names = options.replay[:1] if options.replay else options.loader
        loaders = [(one, _made(one, seeds)) for one in LOADERS if not names or one.name in names]
        if options.replay:
            _replay(loaders[0][1], seeds, options.seed, *options.replay)
            return 0
        outcomes = run(loaders, seeds, options.files, options.seed, options.processes)
        _keep(outcomes, seeds, options.seed)
    return _report(outcomes)


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _made(loader: Loader, seeds: Path) -> Load:
    """The function that loads. The valid folder must load: else the whole run would be worth nothing."""
    load = loader.make(seeds / loader.name)
    load(seeds / loader.name)
    return load


def _replay(load: Load, seeds: Path, seed: int, name: str, number: str) -> None:
    folder = KEPT / f"{name}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    damage(seeds / name, folder, name, int(number), seed)
    load(folder)
    sys.stdout.write(f"{folder} loads\n")


def _keep(outcomes: list[Outcome], seeds: Path, seed: int) -> None:
    for one in outcomes:
        if one.result == "failure":
            folder = KEPT / f"{one.loader}-{one.number}"
            shutil.rmtree(folder, ignore_errors=True)
            damage(seeds / one.loader, folder, one.loader, one.number, seed)
            (folder / "WHY").write_text(one.why)


def _report(outcomes: list[Outcome]) -> int:
    by_loader: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        by_loader[one.loader].append(one)
    for name, found in by_loader.items():
        count = Counter(one.result for one in found)
        seconds, memory = max(one.seconds for one in found), max(one.mebibytes for one in found)
        line = f"{name:26} {len(found):6} files {json.dumps(count)} {seconds:6.2f} s {memory:6.0f} MiB\n"
        sys.stdout.write(line)
    failures = [one for one in outcomes if one.result == "failure"]
    for one in failures:
        sys.stdout.write(f"{one.loader} {one.number}: {one.why}\n")
    details = {
        "bar": "fuzz",
        "value": len(failures),
        "limit": 0,
        "holds": not failures,
        "files": len(outcomes),
        "refused": sum(one.result == "refused" for one in outcomes),
        "limit_seconds": CPU_SECONDS,
        "slowest_seconds": round(max(one.seconds for one in outcomes), 2),
        "limit_mebibytes": MAX_BYTES // 2**20,
        "most_mebibytes": round(max(one.mebibytes for one in outcomes)),
    }
    sys.stdout.write(json.dumps(details) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
