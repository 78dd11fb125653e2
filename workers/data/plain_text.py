"""Plain text files, a few thousand characters at a time."""

from collections.abc import Iterator
from pathlib import Path

from workers.errors import DataError

_CHARACTERS = 1 << 16


def pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in pieces that end with a line, or after 65,536 characters without one.

    DataError where it is not UTF-8.
    """
    rest = ""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            while new := file.read(_CHARACTERS):
                text = rest + new
                end = text.rfind("\n") + 1 or (len(text) if len(text) >= _CHARACTERS else 0)
                if end:
                    yield text[:end]
                rest = text[end:]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 ({error.reason} near byte {error.start} of a part): "
            "write it again in UTF-8"
        ) from error
    if rest:
        yield rest
