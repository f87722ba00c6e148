"""The item index: which item each column stands for, what it is called, and how often it was consumed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Letters in shape comments: I items.


@dataclass(frozen=True, kw_only=True)
class ItemIndex:
    """The items of a data set or bundle, in column order.

    Parameters
    ----------
    ids : ndarray of shape (n_items,), int64 or object (str)
        External ids.
    titles : ndarray of shape (n_items,), object (str or None), optional
        Titles, where known.
    train_counts : ndarray of shape (n_items,), int64
        Number of training users of each item.
    """

    ids: np.ndarray
    titles: np.ndarray | None
    train_counts: np.ndarray

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ids)

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {str(item): column for column, item in enumerate(self.ids.tolist())}

    def column_of(self, item: object) -> int | None:
        """Look an item up by its external id; None where it is not known. 318, "318" and 318.0 are the same item."""
        # Data frames make floats of integers wherever one was missing.
        whole = isinstance(item, float | np.floating) and float(item).is_integer()
        return self._columns.get(str(int(cast(float, item)) if whole else item))

    def mask_of(self, items: Iterable[object]) -> np.ndarray:
        """Return which items are among these, shape (n_items,), bool; ids that are not known are ignored."""
        mask = np.zeros(len(self), dtype=bool)
        mask[[column for column in map(self.column_of, items) if column is not None]] = True
        return mask

    def title_of(self, column: int) -> str | None:
        """Return the title of a column, None where it is not known."""
        return None if self.titles is None else self.titles[column]

    def write(self, path: Path) -> None:
        """Write the index as Parquet: columns id, title (null where unknown) and train_count."""
        titles = pa.nulls(len(self), pa.string()) if self.titles is None else pa.array(self.titles, pa.string())
        columns = {"id": ids_to_arrow(self.ids), "title": titles, "train_count": pa.array(self.train_counts)}
        pq.write_table(pa.table(columns), path, write_page_checksum=True)

    @classmethod
    def read(cls, path: Path) -> "ItemIndex":
        """Read an index back from Parquet."""
        table = pq.read_table(path, page_checksum_verification=True)
        titles = table["title"]
        return cls(
            ids=ids_from_arrow(table["id"]),
            titles=None if titles.null_count == len(titles) else np.array(titles.to_pylist(), dtype=object),
            train_counts=table["train_count"].to_numpy(),
        )


def ids_to_arrow(ids: np.ndarray) -> pa.Array:
    """Return external ids as an Arrow array of int64 or string."""
    return pa.array(ids.tolist(), type=pa.int64() if ids.dtype.kind in "iu" else pa.string())


def ids_from_arrow(column: pa.ChunkedArray) -> np.ndarray:
    """Return external ids as int64 or object (str)."""
    return np.array(column.to_pylist(), dtype=np.int64 if pa.types.is_integer(column.type) else object)
