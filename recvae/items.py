"""The item index: the id, the title and the training count of each item column.

Importing this needs only numpy, for a service without Arrow.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recvae.display import plural
from recvae.errors import UsageError
from recvae.ids import spellings

if TYPE_CHECKING:
    import pyarrow as pa

# Letters in shape comments: I items.


@dataclass(frozen=True, kw_only=True)
class ItemIndex:
    """The items of a data set or bundle, in column order.

    Parameters
    ----------
    ids : ndarray of shape (n_items,), int64 or object (str)
        External ids.
    titles : ndarray of shape (n_items,), object (str or None), optional
        Titles, if known.
    train_counts : ndarray of shape (n_items,), int64
        Number of training users of each item.
    """

    ids: np.ndarray
    titles: np.ndarray | None
    train_counts: np.ndarray

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Return it in one line: how many items there are, and whether they have titles."""
        return f"<ItemIndex: {plural(len(self), 'item')}, {'no titles' if self.titles is None else 'with titles'}>"

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {str(item): column for column, item in enumerate(self.ids.tolist())}

    def column_of(self, item: object) -> int | None:
        """Return the column of an external id, None if unknown; 318, "318", " 318" and 318.0 are the same id."""
        column = self._columns.get(item if type(item) is str else str(item))
        if column is None:
            column = next((self._columns[one] for one in spellings(item) if one in self._columns), None)
        return column

    def mask_of(self, items: Iterable[object]) -> np.ndarray:
        """Return which items have one of these ids, shape (n_items,), bool; unknown ids are ignored."""
        mask = np.zeros(len(self), dtype=bool)
        mask[[column for column in map(self.column_of, items) if column is not None]] = True
        return mask

    def id_of(self, column: int) -> int | str:
        """Return the external id of a column, as a Python int or str."""
        return self.ids[[column]].tolist()[0]

    def title_of(self, column: int) -> str | None:
        """Return the title of a column, None if unknown."""
        return None if self.titles is None else self.titles[column]

    def search(self, text: str, limit: int = 10) -> list[int]:
        """Search items by title, or by id if they have no title.

        Parameters
        ----------
        text : str
            Words that must all occur in the title; case and accents are ignored.
        limit : int
            Maximum number of items.

        Returns
        -------
        list of int
            Columns: first titles that begin with the text, then titles in which each word begins a word, then others;
            within each group the most popular first.
        """
        wanted = _folded(text)
        words = wanted.split()
        found = []
        for column, title in enumerate(self._searchable):
            if all(word in title for word in words):
                begins = all(f" {word}" in f" {title}" for word in words)
                place = 0 if title.startswith(wanted) else 1 if begins else 2
                found.append((place, -int(self.train_counts[column]), column))
        return [column for _, _, column in sorted(found)[:limit]] if words else []

    @cached_property
    def _searchable(self) -> list[str]:
        titles = self.ids.tolist() if self.titles is None else self.titles.tolist()
        return [_folded(str(item if title is None else title)) for item, title in zip(self.ids, titles, strict=True)]

    def write(self, path: Path) -> None:
        """Write the index as Parquet: columns id, title (null where unknown) and train_count."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        titles = pa.nulls(len(self), pa.string()) if self.titles is None else pa.array(self.titles, pa.string())
        columns = {"id": ids_to_arrow(self.ids), "title": titles, "train_count": pa.array(self.train_counts)}
        pq.write_table(pa.table(columns), path, write_page_checksum=True)

    @classmethod
    def read(cls, path: Path) -> "ItemIndex":
        """Read an index back from Parquet."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, page_checksum_verification=True) as file:  # `read_table` would import pandas
            table = file.read()
        titles = table["title"]
        return cls(
            ids=ids_from_arrow(table["id"]),
            titles=None if titles.null_count == len(titles) else np.array(titles.to_pylist(), dtype=object),
            train_counts=np.array(table["train_count"].to_pylist(), dtype=np.int64),  # `to_numpy` would import pandas
        )


DEFAULT_K = 10
"""Default number of recommended items."""


def check_k(k: int) -> None:
    """Refuse a number of items that is not a whole number >= 1.

    Raises
    ------
    UsageError
        If it is not.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise UsageError(f"got k={k!r}, expected a whole number of items, 1 or more")


def _folded(text: str) -> str:
    """Return a text without case, accents and punctuation, for comparing."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    kept = "".join(char if char.isalnum() else " " for char in plain if not unicodedata.combining(char))
    return " ".join(kept.split())


def ids_to_arrow(ids: np.ndarray) -> "pa.Array":
    """Return external ids as an Arrow array of int64 or string."""
    import pyarrow as pa

    return pa.array(ids.tolist(), type=pa.int64() if ids.dtype.kind in "iu" else pa.string())


def ids_from_arrow(column: "pa.ChunkedArray") -> np.ndarray:
    """Return external ids of an Arrow column as int64 or object (str)."""
    import pyarrow as pa

    return np.array(column.to_pylist(), dtype=np.int64 if pa.types.is_integer(column.type) else object)


_MOST_EXACT = 2**53 - 1


def json_id(item: int | str) -> int | str:
    """Return an id as a JSON value: integers beyond 2^53 become strings, because JavaScript would round them."""
    return str(item) if isinstance(item, int) and abs(item) > _MOST_EXACT else item
