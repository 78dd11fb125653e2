"""The bar of the demo: at 80 % sparsity the iterative job loses at most one point of accuracy."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from tests.benchmarks.bar import finish

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"
LIMIT_POINTS = 1.0
ALL_POINTS = 100.0


def main() -> NoReturn:
    """Run the demo as a user does, its words on stderr, and judge its figures. A demo that fails lost all."""
    command = [sys.executable, str(DEMO), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    drop = json.loads(done.stdout.splitlines()[-1])["drop_points"] if done.returncode == 0 else ALL_POINTS
    finish("demo", drop, LIMIT_POINTS, at_least=False)


if __name__ == "__main__":
    main()
