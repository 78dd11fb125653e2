"""How every benchmark ends: one JSON line with the figure, and an exit code that says whether it holds."""

import json
import sys
from typing import NoReturn


def finish(bar: str, value: float, limit: float, *, at_least: bool) -> NoReturn:
    """Print the JSON line and leave: 0 where `value` is at least (or at most) `limit`, else 1."""
    holds = value >= limit if at_least else value <= limit
    print(json.dumps({"bar": bar, "value": round(value, 4), "limit": limit, "holds": holds}))
    sys.exit(0 if holds else 1)
