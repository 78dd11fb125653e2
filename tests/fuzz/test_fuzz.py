"""A short run of `make bar-fuzz`: no damaged file kills a loader, and what it says is an error of ours."""

import json
import subprocess
import sys
from pathlib import Path

QUICK = ("transformers", "timm", "pruned", "tokenizer", "images-parquet", "images-npz", "images-tar", "spec")


def test_damaged_files_are_refused_with_our_errors_in_bounded_time_and_memory():
    chosen = [word for name in QUICK for word in ("--loader", name)]
    root = Path(__file__).parents[2]

    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--files", "300", *chosen],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    told = json.loads(run.stdout.splitlines()[-1]) if run.stdout else {}
    assert run.returncode == 0, run.stdout + run.stderr
    assert told["files"] >= 300
    assert told["refused"] > 100
