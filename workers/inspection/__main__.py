"""`python -m workers.inspection FILE`: prints one line of JSON. `secateur inspect` starts it."""

import sys
from pathlib import Path

from schemas.conversion import NotConverted
from schemas.inspection import Inspection
from workers.errors import ModelError
from workers.inspection.weights import inspect_file


def main() -> int:
    """1 where the file cannot be read; the line says why."""
    try:
        found: Inspection | NotConverted = inspect_file(Path(sys.argv[1]))
    except ModelError as error:
        found = NotConverted(reason=str(error))
    sys.stdout.write(found.model_dump_json() + "\n")
    return 1 if isinstance(found, NotConverted) else 0


if __name__ == "__main__":
    sys.exit(main())
