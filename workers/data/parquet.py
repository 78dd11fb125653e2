"""Rows of parquet files, a few at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from workers.data.files import SplitFiles
from workers.errors import DataError
from workers.models.folder import listed

MAX_ROWS = 50_000_000
"""Of a split."""
_ROWS_AT_A_TIME = 256
_MAX_BATCH_BYTES = 2**29
BROKEN = (
    pyarrow.ArrowException,
    ArithmeticError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What pyarrow raises on damaged files, and on values that are not of their column's type."""


@dataclass(frozen=True)
class Table:
    """The parquet files of one split, as one table of `rows` rows."""

    files: SplitFiles
    rows: int

    def where(self, column: str) -> str:
        """The column and its split, for messages."""
        return f"column '{column}' of the split '{self.files.split}'"

    def column(self, name: str, chosen: np.ndarray | None = None) -> Iterator[list[tuple[int, Any]]]:
        """Chunks of (row number, Python value) of one column, in order; with `chosen` only those rows."""
        wanted = None if chosen is None else np.isin(np.arange(self.rows), chosen)
        start = 0
        for path in self.files.paths:
            for batch in _batches(path, name):
                end = start + len(batch)
                kept = np.arange(len(batch)) if wanted is None else np.flatnonzero(wanted[start:end])
                yield list(zip((kept + start).tolist(), _values(batch, kept, path), strict=True))
                start = end
        if start != self.rows:
            raise DataError(
                f"{self.where(name)} has {start:,} rows, and the files' footers say {self.rows:,}: "
                "write the files again"
            )


def open_table(files: SplitFiles, columns: Sequence[str]) -> Table:
    """Check that all `columns` are there; DataError names those that are, or the file that is broken."""
    rows = 0
    for path in files.paths:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                names, rows = file.schema_arrow.names, rows + file.metadata.num_rows
        except BROKEN as error:
            raise broken(path.name, error) from error
        refuse_missing(names, columns, path.name)
    if rows > MAX_ROWS:
        raise DataError(f"the split '{files.split}' has {rows:,} rows; at most {MAX_ROWS:,} are read")
    if rows == 0:
        raise DataError(f"the split '{files.split}' is empty ({listed(path.name for path in files.paths)})")
    return Table(files, rows)


def _batches(path: Path, column: str) -> Iterator[pyarrow.RecordBatch]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = _rows_at_a_time(file.metadata)
            yield from file.iter_batches(rows, columns=[column], use_threads=False)
    except BROKEN as error:
        raise broken(path.name, error) from error


def _rows_at_a_time(metadata: pyarrow.parquet.FileMetaData) -> int:
    """So few that they fit where each is as long as its whole row group says it is: a dictionary has a value
    once, and a batch has it in each row.

    Of a row group, not of its columns: for a damaged column, pyarrow 26 ends the process in `column()`.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    longest = max((group.total_byte_size for group in groups), default=1)
    return max(1, min(_ROWS_AT_A_TIME, _MAX_BATCH_BYTES // max(1, longest)))


def _values(batch: pyarrow.RecordBatch, kept: np.ndarray, path: Path) -> list[Any]:
    try:
        values: list[Any] = batch.column(0).take(pyarrow.array(kept)).to_pylist()
    except BROKEN as error:
        raise broken(path.name, error) from error
    return values


def refuse_missing(names: Sequence[str], columns: Sequence[str], file: str) -> None:
    """DataError where one of `columns` is not among the `names` of the file's columns."""
    for column in columns:
        if column not in names:
            raise DataError(
                f"{file} has no column '{column}' (it has {listed(names, 20)}): "
                "set data.input_column and data.label_column"
            )


def broken(file: str, error: Exception) -> DataError:
    """What to say of a file that pyarrow does not read."""
    return DataError(f"{file} is not a valid parquet file ({error}): upload it again")
