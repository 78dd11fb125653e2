"""The full Fashion-MNIST set, from the Debian package `dataset-fashion-mnist`."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

PACKAGE = "dataset-fashion-mnist"
CACHE = Path(__file__).parents[2] / ".cache" / "fashion-mnist"
_INSTALLED = Path("/usr/share/datasets/fashion-mnist")
_UNPACKED = CACHE / "package" / _INSTALLED.relative_to("/")
_PREFIX = {"train": "train", "test": "t10k"}
_HEADER = {"images": 16, "labels": 8}


def fetch() -> Path:
    """The folder of the four files: installed, unpacked before, or downloaded now (31 MB) into `.cache`."""
    for folder in (_INSTALLED, _UNPACKED):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        sys.exit(
            f"The full data set comes from the Debian package {PACKAGE}, and apt-get or dpkg is not here: "
            f"run this on Debian or Ubuntu, or put the package's four .gz files into {_UNPACKED}."
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"Downloading the Debian package {PACKAGE} (31 MB) ...", file=sys.stderr)
    if _download() != 0:
        print("Not found in apt's lists: updating them.", file=sys.stderr)
        subprocess.run([*_as_root(), "apt-get", "update", "-q"], check=False, stdout=subprocess.DEVNULL)
        if _download() != 0:
            sys.exit(
                f"apt-get could not download {PACKAGE}: check the network and apt's sources, then try again."
            )
    package = next(CACHE.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg", "-x", str(package), str(CACHE / "package")], check=True)
    return _UNPACKED


def read(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N,28,28] and labels [N], both uint8, of the split `train` (60,000) or `test` (10,000)."""
    return (
        _idx(folder / f"{_PREFIX[split]}-images-idx3-ubyte.gz", "images").reshape(-1, 28, 28),
        _idx(folder / f"{_PREFIX[split]}-labels-idx1-ubyte.gz", "labels"),
    )


def _download() -> int:
    command = ["apt-get", "download", "-q", PACKAGE]
    return subprocess.run(command, cwd=CACHE, check=False, stdout=subprocess.DEVNULL).returncode


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo"]


def _idx(path: Path, kind: str) -> np.ndarray:
    """The IDX format: a header of four bytes and one big-endian size per dimension, then the values."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=_HEADER[kind])
