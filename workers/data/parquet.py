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

_ROWS_AT_A_TIME = 256


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
        wanted = np.isin(np.arange(self.rows), chosen) if chosen is not None else np.full(self.rows, True)
        start = 0
        for path in self.files.paths:
            for batch in _batches(path, name):
                kept = np.flatnonzero(wanted[start : start + len(batch)])
                values = batch.column(0).take(pyarrow.array(kept)).to_pylist()
                yield list(zip((kept + start).tolist(), values, strict=True))
                start += len(batch)


def open_table(files: SplitFiles, columns: Sequence[str]) -> Table:
    """Check that all `columns` are there; DataError names those that are, or the file that is broken."""
    rows = 0
    for path in files.paths:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                names, rows = file.schema_arrow.names, rows + file.metadata.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise _broken(path, error) from error
        for column in columns:
            if column not in names:
                raise DataError(
                    f"{path.name} has no column '{column}' (it has {listed(names, 20)}): "
                    "set data.input_column and data.label_column"
                )
    if rows == 0:
        raise DataError(f"the split '{files.split}' is empty ({listed(path.name for path in files.paths)})")
    return Table(files, rows)


def _batches(path: Path, column: str) -> Iterator[pyarrow.RecordBatch]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(_ROWS_AT_A_TIME, columns=[column], use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name} is not a valid parquet file ({error}): upload it again")
