"""`python -m workers.convert SOURCE FOLDER`: one conversion, in a process whose memory is limited.

`secateur convert` starts it, shows its JSON lines, and gives the finished folder its name.
"""

import argparse
import hashlib
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from schemas.conversion import Advanced, Converted, Dropped, NotConverted
from workers.convert.pickled import load_pickled, out_of_memory
from workers.convert.sources import Sources, find_sources
from workers.convert.state_dict import Found, elements, find_state_dict, untie
from workers.errors import ModelError
from workers.models.folder import listed
from workers.process import die_with_parent

RESULT = "model.safetensors"
_PIECE = 16 * 2**20
_CANNOT_WRITE = (SafetensorError, OSError, RuntimeError, ValueError)

Say = Callable[[Advanced], None]


def main(arguments: list[str] | None = None) -> int:
    """The edge of the process: a refusal is a line on standard output and exit code 1."""
    options = _options(arguments)
    die_with_parent(options.parent)
    torch.set_num_threads(1)  # each thread would reserve address space, which the limit counts
    limit_memory(options.max_memory)
    try:
        sources = find_sources(options.source)
        done = convert(sources, options.folder, entry=options.entry, prefix=options.prefix, say=_say)
    except ModelError as error:
        # a pickle's names may hold lone surrogates, which no line could carry
        _say(NotConverted(reason=str(error).encode("utf-8", "backslashreplace").decode()))
        return 1
    except MemoryError:
        _say(NotConverted(reason=str(out_of_memory(options.source.name))))
        return 1
    _say(done)
    return 0


def limit_memory(count: int) -> None:
    """Let this process map `count` bytes more than it has now; torch then raises where it wants more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + count
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def convert(sources: Sources, folder: Path, *, entry: str | None, prefix: str | None, say: Say) -> Converted:
    """Write `model.safetensors` and the companions into `folder`, which is there. ModelError: refused."""
    found = _read(sources, entry, prefix, say)
    names = listed(path.name for path in sources.files)
    try:
        untied = untie(found.tensors, sources.bytes)
    except ModelError as error:
        raise ModelError(f"{names}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        raise out_of_memory(names) from error
    path = folder / RESULT
    _write(untied.tensors, untied.dropped, path, say)
    counts = elements(untied.tensors)
    for companion in sources.companions:
        shutil.copyfile(companion, folder / companion.name)
    return Converted(
        sources=[one.name for one in sources.files],
        found_under=found.under,
        prefix=found.prefix,
        tensors=len(untied.tensors),
        parameters=counts.total(),
        dtypes=dict(counts.most_common()),
        bytes=path.stat().st_size,
        sha256=_sha256(path, say),
        dropped=[Dropped(name=name, kept=kept) for name, kept in untied.dropped.items()],
        left_out=list(found.left_out),
        copied=[one.name for one in sources.companions],
        left_behind=list(sources.left_behind),
    )


def _read(sources: Sources, entry: str | None, prefix: str | None, say: Say) -> Found:
    """One state dict out of all files; shards must not name a tensor twice."""
    tensors: dict[str, Tensor] = {}
    left_out: list[str] = []
    under, cut = None, None
    done = 0
    for path in sources.files:
        say(Advanced(step="reading", done=done, total=sources.bytes))
        try:
            part = find_state_dict(load_pickled(path), entry=entry, prefix=prefix)
        except ModelError as error:
            named = str(error).startswith(path.name)
            raise error if named else ModelError(f"{path.name}: {error}") from error
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise ModelError(f"{path.name} holds {listed(sorted(twice))} again: give the shards of one model")
        tensors |= part.tensors
        left_out += part.left_out
        under, cut = part.under, part.prefix
        done += path.stat().st_size
    return Found(tensors, tuple(left_out), under, cut)


def _write(tensors: dict[str, Tensor], dropped: dict[str, str], path: Path, say: Say) -> None:
    """The file, on the disk and not only in its cache. Dropped names go into its metadata, as on the hub."""
    say(Advanced(step="writing", done=0, total=sum(one.nbytes for one in tensors.values())))
    try:
        save_file(tensors, path, metadata={"format": "pt", **dropped})
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except _CANNOT_WRITE as error:
        raise ModelError(f"{path} was not written: {error}") from error


def _sha256(path: Path, say: Say) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            done += len(piece)
            say(Advanced(step="checking", done=done, total=total))
    return digest.hexdigest()


def _say(line: Advanced | Converted | NotConverted) -> None:
    sys.stdout.write(line.model_dump_json() + "\n")
    sys.stdout.flush()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("workers.convert", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-memory", type=int, required=True)
    parser.add_argument("--entry")
    parser.add_argument("--prefix")
    parser.add_argument("--parent", type=int, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
