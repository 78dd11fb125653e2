"""Which files of a data folder make up a split."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from workers.errors import DataError
from workers.models.folder import listed

_SHARD = re.compile(r"-(\d+)-of-(\d+)\.(?:parquet|txt|tar)$")
_PATTERNS = (
    "{}.npz",
    "{}.safetensors",
    *(
        f"{folder}{{}}{rest}.{kind}"
        for kind in ("parquet", "txt", "tar")
        for folder in ("", "data/")
        for rest in ("", "-*")
    ),
    "{}/*.tar",
)
"""Of which each split has one."""


@dataclass(frozen=True)
class SplitFiles:
    """One file of arrays, or parquet, text or tar files in the order of their names."""

    split: str
    paths: tuple[Path, ...]

    @property
    def is_npz(self) -> bool:
        """One file with named arrays: `.npz`, or `.safetensors`."""
        return self.paths[0].suffix in (".npz", ".safetensors")

    @property
    def is_text(self) -> bool:
        """Plain text, for language models."""
        return self.paths[0].suffix == ".txt"

    @property
    def is_tar(self) -> bool:
        """WebDataset shards."""
        return self.paths[0].suffix == ".tar"


def find_split(folder: Path, split: str) -> SplitFiles:
    """The files of `split`, as the hub names them; DataError says which files were found instead."""
    files = find_optional_split(folder, split)
    if files is None:
        raise no_split(split, names_of(folder))
    return files


def find_optional_split(folder: Path, split: str) -> SplitFiles | None:
    """The files of `split`; None: there are none. DataError where they are there twice, or not complete."""
    names = split_names(names_of(folder), split)
    return SplitFiles(split, tuple(folder / name for name in names)) if names else None


def names_of(folder: Path) -> list[str]:
    """The files of a local folder and of the folders in it, relative to it."""
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def no_split(split: str, names: Iterable[str]) -> DataError:
    """That a split is not there, and what is."""
    found = listed(names) or "no files"
    return DataError(
        f"no files of the split '{split}' (the folder holds {found}): give {split}.parquet, "
        f"{split}-00000-of-00002.parquet and so on, the same under data/, {split}.npz, {split}.safetensors, "
        f"for images WebDataset shards {split}-000000.tar and so on, or for language models {split}.txt"
    )


def split_names(names: Iterable[str], split: str) -> list[str]:
    """The names that make up `split`, in order; DataError where they are there twice, or not complete."""
    every = sorted(names)
    patterns = [pattern.format(split) for pattern in _PATTERNS]
    found = [kept for pattern in patterns if (kept := [name for name in every if _matches(name, pattern)])]
    if not found:
        return []
    if len(found) > 1:
        first = listed(kept[0] for kept in found)
        raise DataError(f"the split '{split}' is there more than once ({first}): keep one of them")
    _check_shards(found[0], split)
    return found[0]


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _check_shards(names: list[str], split: str) -> None:
    shards = [match for name in names if (match := _SHARD.search(name))]
    if not shards:
        return
    totals = {int(match[2]) for match in shards}
    if len(shards) != len(names) or len(totals) != 1 or len(shards) != max(totals):
        raise DataError(
            f"the split '{split}' is not complete: {len(names)} files are there "
            f"({listed(name.rpartition('/')[2] for name in names)}) and their names say {max(totals)}: "
            "upload the others"
        )
