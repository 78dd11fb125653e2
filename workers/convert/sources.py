"""Which files of a path hold the state dict, and which come along with it."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from workers.errors import ModelError
from workers.models.folder import listed

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
MAX_COMPANION_BYTES = 64 * 2**20
MAX_INDEX_BYTES = 16 * 2**20

_NOT_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.md", "LICENSE*", "NOTICE*")
_INDEXES = ("*.index.json",)


@dataclass(frozen=True)
class Sources:
    """The pickles to read, in order, and the other files of their folder."""

    files: tuple[Path, ...]
    companions: tuple[Path, ...] = ()
    left_behind: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of the pickles."""
        return sum(path.stat().st_size for path in self.files)


def find_sources(path: Path) -> Sources:
    """A file, or a folder in the layout of the hub. ModelError names what is missing or not clear."""
    if path.is_file():
        return Sources((path,))
    if not path.is_dir():
        raise ModelError(f"{path} does not exist: give a file, or a folder with {SINGLE}")
    files = _pickles(path)
    others = sorted(one for one in path.iterdir() if one not in files)
    companions = tuple(one for one in others if _comes_along(one))
    return Sources(files, companions, tuple(one.name for one in others if one not in companions))


def _pickles(folder: Path) -> tuple[Path, ...]:
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if (folder / INDEX).is_file():
        return _shards(folder)
    found = sorted(
        one
        for one in folder.iterdir()
        if one.is_file() and one.suffix.lower() in PICKLES and not one.name.startswith(_NOT_WEIGHTS)
    )
    if len(found) == 1:
        return (found[0],)
    names = listed(one.name for one in found) if found else "none of them"
    raise ModelError(
        f"{folder} holds neither {SINGLE} nor {INDEX}, and of other state dicts {names}: give the file itself"
    )


def _shards(folder: Path) -> tuple[Path, ...]:
    if (folder / INDEX).stat().st_size > MAX_INDEX_BYTES:
        raise ModelError(f"{INDEX} has more than the {MAX_INDEX_BYTES:,} bytes that are read")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{INDEX} is not valid JSON ({error}): download it again") from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{INDEX} has no 'weight_map': download it again")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(PICKLES):
            raise ModelError(f"{INDEX} names '{name}', which is not a *.bin file of this folder")
        if not (folder / name).is_file():
            raise ModelError(f"{INDEX} names {name}, which is not in the folder: download it")
    return tuple(folder / name for name in names)


def _comes_along(path: Path) -> bool:
    """Configs, tokenizers and texts. No code, no weights, and no link to elsewhere."""
    if path.is_symlink() and path.resolve().parent not in _own_places(path.parent.resolve()):
        return False
    if not path.is_file() or path.stat().st_size > MAX_COMPANION_BYTES:
        return False
    named = any(fnmatchcase(path.name, pattern) for pattern in _COMPANIONS)
    return named and not any(fnmatchcase(path.name, pattern) for pattern in _INDEXES)


def _own_places(folder: Path) -> tuple[Path, ...]:
    """The folder, and where the hub's cache keeps what `snapshots/…/` links to."""
    return folder, folder.parent.parent / "blobs"
