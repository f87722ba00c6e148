"""What takes the rows of a table, batch by batch, and how it says that a value cannot be used."""

from typing import Protocol

import pyarrow as pa


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
