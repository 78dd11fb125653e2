"""A file that `torch.save` wrote, read by torch's restricted unpickler after a look at its outside."""

import pickle
import re
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from workers.errors import ModelError

MAX_PICKLE_BYTES = 64 * 2**20
"""Of the part that holds names and shapes; that of a model with 10,000 tensors has 2 MB."""
MOST_GROWTH = 1.01
"""Bytes of all members over bytes of the file. torch stores them as they are, so more is a bomb."""

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""torch.serialization.MAGIC_NUMBER, pickled: how torch before 1.6 began its files."""
_OUT_OF_MEMORY = ("memory", "mmap", "alloc")
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)
"""What torch.load raises on damaged files."""


def load_pickled(path: Path) -> Any:
    """What the file holds, its tensors mapped from the file where its format allows it.

    Only tensors, containers, numbers and strings are ever made (`weights_only=True`). ModelError: it names
    anything else, is packed so that it grows, is damaged, or takes more memory than this process may have.
    """
    is_zip = _check_outside(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError as error:
        raise out_of_memory(path.name) from error
    except _DAMAGED as error:
        raise _explained(path, error) from error


def out_of_memory(name: str) -> ModelError:
    """The sentence for a file that does not fit the limit."""
    return ModelError(
        f"{name} takes more memory than this conversion may have, and a sound file takes little more than "
        "its own size: if you trust it, raise --max-memory"
    )


def _check_outside(path: Path) -> bool:
    """Whether the file is a zip archive, as torch 1.6 and newer write. ModelError: it is nothing we read."""
    if path.suffix.lower() == ".safetensors":
        raise ModelError(f"{path.name} is in safetensors already: there is nothing to convert")
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
    if start.startswith(_ZIP):
        _check_archive(path)
        return True
    if _is_tar(path):
        raise ModelError(
            f"{path.name} is in the tar format of torch 0.1, which has no safe reader: load it with that "
            "torch in a container and save its state dict with a newer one"
        )
    if start != _LEGACY:
        raise ModelError(f"{path.name} is not a file that torch.save wrote: give the state dict's file")
    return False


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError) as error:
        raise ModelError(f"{path.name} is a damaged archive ({error}): download it again") from error
    names = [member.filename for member in members]
    if any(name.endswith(("/constants.pkl", "/archive_format")) for name in names):
        raise ModelError(
            f"{path.name} is a program (TorchScript or torch.export), not a state dict: save "
            "model.state_dict() with torch.save, or give the .pt2 file as it is"
        )
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    grown = sum(member.file_size for member in members) > MOST_GROWTH * path.stat().st_size
    if packed or grown:
        raise ModelError(
            f"{path.name} is packed so that it grows when it is opened{_such_as(packed)}, which torch.save "
            "never does: refused as a decompression bomb; save the state dict again with torch.save"
        )
    pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ModelError(f"{path.name} holds no data.pkl: it is not a file that torch.save wrote")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise ModelError(
            f"{path.name} has {pickles[0].file_size:,} bytes of names; at most {MAX_PICKLE_BYTES:,} are read"
        )


def _such_as(packed: list[str]) -> str:
    return f" ('{packed[0][:100]}' is compressed)" if packed else ""


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, mode="r:"):
            return True
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return False


def _explained(path: Path, error: BaseException) -> ModelError:
    text = str(error)
    named = re.search(r"(?:GLOBAL|Unsupported global: GLOBAL|Trying to call|class) ([\w.<>]+)", text)
    if isinstance(error, pickle.UnpicklingError) and named:
        return ModelError(
            f"{path.name} asks for '{named[1]}' to be called or built, which could run code: refused. A "
            "state dict needs nothing of the kind: if you trust the file, load it where it was made and save "
            "model.state_dict() with torch.save"
        )
    if isinstance(error, RuntimeError | OSError) and any(word in text.lower() for word in _OUT_OF_MEMORY):
        return out_of_memory(path.name)
    # torch puts a page of advice around what went wrong
    cause = (text.rpartition("WeightsUnpickler error: ")[2].strip().splitlines() or ["no message"])[0][:200]
    return ModelError(
        f"{path.name} is not a sound file of torch.save ({type(error).__name__}: {cause}): download it "
        "again, or save the state dict again"
    )
