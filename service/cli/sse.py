"""Server-sent events, as the HTML standard defines their format (section 9.2.6)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One event of a stream."""

    id: str
    event: str
    data: str


def decode(chunks: Iterable[bytes]) -> Iterator[Message]:
    """The messages in a stream of bytes; comments are skipped, and so is a message without its end."""
    id, event, data = "", "", list[str]()
    for line in _lines(chunks):
        if not line:
            if data:
                yield Message(id, event or "message", "\n".join(data))
            event, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            id = value
        elif field == "event":
            event = value
        elif field == "data":
            data.append(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines only. str.splitlines would also break at U+2028, which JSON may hold."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
