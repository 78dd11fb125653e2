"""The bar of the demo: at 80 % sparsity the iterative job loses at most one point of accuracy."""

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.bar import tell

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"
LIMIT_POINTS = 1.0


def main() -> int:
    """Run the demo as a user does, its words on stderr, and judge its figures."""
    done = subprocess.run(
        [sys.executable, str(DEMO), "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.splitlines()
    if not lines:
        return 1
    drop = json.loads(lines[-1])["drop_points"]
    holds = drop is not None and tell("demo", drop, LIMIT_POINTS, at_least=False)
    return 0 if holds and done.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
