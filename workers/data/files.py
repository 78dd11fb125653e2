"""Which files of a data folder make up a split."""

import re
from dataclasses import dataclass
from pathlib import Path

from workers.errors import DataError
from workers.models.folder import listed, names_in

_SHARD = re.compile(r"-(\d+)-of-(\d+)\.parquet$")


@dataclass(frozen=True)
class SplitFiles:
    """One `.npz` file, or parquet files in the order of their names."""

    split: str
    paths: tuple[Path, ...]

    @property
    def is_npz(self) -> bool:
        return self.paths[0].suffix == ".npz"


def find_split(folder: Path, split: str) -> SplitFiles:
    """The files of `split`, as the hub names them; DataError says which files were found instead."""
    files = find_optional_split(folder, split)
    if files is None:
        raise DataError(
            f"no files of the split '{split}' (the folder holds {names_in(folder)}): give {split}.parquet, "
            f"{split}-00000-of-00002.parquet and so on, the same under data/, or {split}.npz"
        )
    return files


def find_optional_split(folder: Path, split: str) -> SplitFiles | None:
    """The files of `split`; None: there are none. DataError where they are there twice, or not complete."""
    found = [
        paths
        for paths in (
            sorted(folder.glob(f"{split}.npz")),
            sorted(folder.glob(f"{split}.parquet")),
            sorted(folder.glob(f"{split}-*.parquet")),
            sorted(folder.glob(f"data/{split}.parquet")),
            sorted(folder.glob(f"data/{split}-*.parquet")),
        )
        if paths
    ]
    if not found:
        return None
    if len(found) > 1:
        names = listed(path.relative_to(folder).as_posix() for paths in found for path in paths[:1])
        raise DataError(f"the split '{split}' is there more than once ({names}): keep one of them")
    _check_shards(found[0], split)
    return SplitFiles(split, tuple(found[0]))


def _check_shards(paths: list[Path], split: str) -> None:
    shards = [match for path in paths if (match := _SHARD.search(path.name))]
    if not shards:
        return
    totals = {int(match[2]) for match in shards}
    if len(shards) != len(paths) or len(totals) != 1 or len(shards) != max(totals):
        raise DataError(
            f"the split '{split}' is not complete: {len(paths)} files are there "
            f"({listed(path.name for path in paths)}) and their names say {max(totals)}: upload the others"
        )
