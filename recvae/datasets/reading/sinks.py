"""What takes the rows of a table, batch by batch, and how it says that a value cannot be used."""

from typing import Protocol

import duckdb
import pyarrow as pa

from recvae.datasets.reading.dialects import JSON_LINES, LISTS, TABLE
from recvae.datasets.reading.line_numbers import line_of
from recvae.datasets.reading.scans import MEMORY, Scan
from recvae.errors import DataError

_SHOWN = 60  # letters of a value in a message


class Sink(Protocol):
    """What takes the batches of a table."""

    def append(self, batch: pa.RecordBatch) -> None:
        """Take a batch, with the columns named by their roles."""
        ...

    def __len__(self) -> int:
        """Return the number of rows so far."""
        ...

    def truncate(self, n_rows: int) -> None:
        """Forget all rows but the first: a file is read again in another way."""
        ...


class WrongValueError(Exception):
    """Raised by a sink about a value that cannot be used; the table tells where it stands.

    Parameters
    ----------
    role, expected : str
        The role of the column, and what should stand there.
    row : int
        The row, counted over all files.
    count : int
        How many such rows there are in the same batch.
    """

    def __init__(self, role: str, expected: str, row: int, count: int = 1) -> None:
        super().__init__(role)
        self.role = role
        self.expected = expected
        self.row = row
        self.count = count

    def described(self, scan: Scan, row: int, connection: duckdb.DuckDBPyConnection) -> DataError:
        """Return the error for a user: file, line, column and what it holds.

        Parameters
        ----------
        scan : Scan
            The file.
        row : int
            The row in this file.
        connection : duckdb.DuckDBPyConnection
            What reads it.
        """
        is_text = scan.form in (TABLE, LISTS, JSON_LINES)
        place = f"line {line_of(scan, row, connection)}" if is_text else f"row {row + 1}"
        name = getattr(scan.columns, self.role) or scan.columns.item
        text = "" if scan.is_list else _text(connection, scan, row, name)
        holds = f"holds {text[:_SHOWN]!r}" if text.strip() else "is empty"
        what = f"{scan.name} {place}: column '{name}' {holds}, expected {self.expected}"
        if self.role == "weight" and scan.is_list:
            what = f"{scan.name} {place}: a weight in '{name}' is out of range or no number, expected {self.expected}"
        if scan.form == MEMORY:
            return DataError(f"{what}; repair or remove it")
        more = f" ({self.count - 1:,} more such rows nearby)" if self.count > 1 else ""
        switch = f", or leave it out with --no-{self.role}, or such rows with --on-bad-row skip"
        switch = switch if self.role in ("rating", "time") else ""
        way_out = "repair or remove the row"
        way_out += "" if self.role == "weight" else f", name another column with --{self.role}-col"
        return DataError(f"{what}; {way_out}{switch}{more}")


def _text(connection: duckdb.DuckDBPyConnection, scan: Scan, row: int, name: str) -> str:
    """Return what a column holds in a row of a file, as it is written there."""
    query = f"SELECT {scan.column(name)}::VARCHAR FROM {scan.relation} WHERE {scan.kept} LIMIT 1 OFFSET {row}"
    found = connection.execute(query).fetchall()
    return "" if not found or found[0][0] is None else found[0][0]
