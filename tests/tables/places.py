"""Where the tables keep what they download, prepare and measure: one folder that git does not know."""

from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "tables"
PACKAGES = CACHE / "packages"
ZOO = CACHE / "zoo"
DATA = CACHE / "data"
VENVS = CACHE / "venvs"
PRUNED = CACHE / "pruned"
RESULTS = CACHE / "results.jsonl"
SPECS = Path(__file__).parent / "specs"
PEERS = Path(__file__).parent / "peers"
