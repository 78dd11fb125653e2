"""The files of a split, wherever they are: each is opened as a local file while it is read."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from workers.errors import StorageError


class Shard(Protocol):
    """One file of a split."""

    @property
    def name(self) -> str:
        """Relative to the data folder."""

    def open(self) -> AbstractContextManager[Path]:
        """The whole file on the local disk, for as long as the context lasts."""

    def peek(self) -> IO[bytes]:
        """The file for reading a few bytes here and there, without fetching the rest."""


@dataclass(frozen=True)
class LocalShard:
    """A file that is on the disk anyway."""

    path: Path
    name: str

    def open(self) -> AbstractContextManager[Path]:
        """The file itself."""
        return nullcontext(self.path)

    def peek(self) -> IO[bytes]:
        """The file itself."""
        return self.path.open("rb")


@contextmanager
def one_ahead(shards: Sequence[Shard]) -> Iterator[Iterator[Path]]:
    """The local paths of `shards` in order, each valid until the next is asked for.

    While one is read, the next is fetched in a thread. Where the cache has no room for two, the next is
    fetched when the one before it is done with. Raises StorageError.
    """
    pool = ThreadPoolExecutor(1, "shard")
    ahead: list[Future[_Held]] = []
    try:
        yield _paths(shards, pool, ahead)
    finally:
        for future in ahead:
            if not future.cancel() and future.exception() is None:
                future.result().close()
        pool.shutdown()


def _paths(shards: Sequence[Shard], pool: ThreadPoolExecutor, ahead: "list[Future[_Held]]") -> Iterator[Path]:
    for number, shard in enumerate(shards):
        held = _arrived(ahead) or _enter(shard)
        with held:
            if number + 1 < len(shards):
                ahead.append(pool.submit(_enter, shards[number + 1]))
            yield held.path


class _Held(ExitStack):
    path: Path


def _enter(shard: Shard) -> _Held:
    held = _Held()
    held.path = held.enter_context(shard.open())
    return held


def _arrived(ahead: "list[Future[_Held]]") -> _Held | None:
    """What the thread has fetched; None: nothing was asked for, or there was no room beside another."""
    if not ahead:
        return None
    try:
        return ahead.pop().result()
    except StorageError:
        return None
