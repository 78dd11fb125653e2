"""A file on its way down: written at any offset, known to be partial, and gone on with after a crash."""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.settings import MiB

OWN = (".part", ".part.json", ".part.json.new")
"""How names end that are used here, and so cannot be those of files."""
SYNC_BYTES = 256 * MiB
"""At most so much is fetched again after a power cut; syncing more often slowed the download."""


@dataclass(frozen=True)
class Plan:
    """Which object, and in which ranges. Another plan starts the file again."""

    etag: str
    bytes: int
    range_bytes: int

    @property
    def ranges(self) -> int:
        """How many there are."""
        return -(-self.bytes // self.range_bytes)

    def span(self, index: int) -> tuple[int, int]:
        """Where range `index` starts and ends."""
        start = index * self.range_bytes
        return start, min(start + self.range_bytes, self.bytes)


@dataclass
class Partial:
    """`<file>.part` and beside it `<file>.part.json`, which says what of it is done. Threads may share it."""

    path: Path
    plan: Plan
    done: dict[int, list[int]] = field(default_factory=dict)
    """Range → the CRC-32s of the object's parts in it; empty where nobody asked for them."""
    _fd: int = -1
    _unsynced: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, final: Path, plan: Plan) -> "Partial":
        """Go on with what is there if it is of the same plan, else begin."""
        final.parent.mkdir(parents=True, exist_ok=True)
        made = cls(final.with_name(final.name + ".part"), plan)
        if made._note.exists() and final.exists():
            final.replace(made.path)  # a crash came between this name and the last of the others
        made.done = made._remembered()
        if not made.done:
            made.discard()  # the note first, or it would speak for the new file
        made._fd = os.open(made.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return made

    @property
    def missing(self) -> list[int]:
        """The ranges that are not there yet."""
        return [index for index in range(self.plan.ranges) if index not in self.done]

    @property
    def bytes_done(self) -> int:
        """Bytes of the finished ranges."""
        return sum(end - start for start, end in map(self.plan.span, self.done))

    def write(self, offset: int, view: memoryview) -> None:
        """Put the bytes where they belong. OSError when the disk is full."""
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count

    def finish_range(self, index: int, crcs: Sequence[int]) -> None:
        """Remember that range `index` is complete. The note is written only after the bytes are on disk."""
        start, end = self.plan.span(index)
        with self._lock:
            self.done[index] = list(crcs)
            self._unsynced += end - start
            if self._unsynced >= min(SYNC_BYTES, 8 * self.plan.range_bytes):
                self._remember()

    def publish(self) -> Path:
        """Give the complete file its name: whoever sees that name sees all of it. `forget` comes later."""
        self.close()
        final = self.path.with_name(self.path.name.removesuffix(".part"))
        return self.path.replace(final)

    def forget(self) -> None:
        """Drop the note, when all files of the folder have their names."""
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget it all: the object changed, or the bytes are wrong."""
        self._unsynced = 0
        self.close()
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what is there for the next time."""
        if self._fd < 0:
            return
        try:
            if self._unsynced:
                self._remember()
        finally:
            os.close(self._fd)
            self._fd = -1

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def _remember(self) -> None:
        os.fdatasync(self._fd)
        plan = [self.plan.etag, self.plan.bytes, self.plan.range_bytes]
        draft = self._note.with_name(self._note.name + ".new")
        with draft.open("w") as file:
            json.dump({"plan": plan, "done": self.done}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._note)
        self._unsynced = 0

    def _remembered(self) -> dict[int, list[int]]:
        try:
            note = json.loads(self._note.read_text())
            same = note["plan"] == [self.plan.etag, self.plan.bytes, self.plan.range_bytes]
            if same and self.path.exists():
                return {int(index): list(crcs) for index, crcs in note["done"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}  # no note, or one that cannot be read: begin again
        return {}
