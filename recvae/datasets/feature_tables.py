"""A table of items and their features, or of users and their attributes -> one block of features for each column.

Letters in shape comments: E rows of a batch, R rows of items of the data set.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recvae.datasets.columns import ATTRIBUTES, FEATURES
from recvae.datasets.feature_kinds import LISTS, WORDS, Block, LeftOutError, Values
from recvae.datasets.reading.id_column import IdColumn
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.datasets.reading.tables import Table
from recvae.errors import DataError, UsageError
from recvae.ids import spellings

MOST_WORDS = 200_000
"""The most words that all columns together may have."""

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas writes into Parquet beside the columns
_UNNAMED = "\u2063"  # what the reader puts behind a name that is empty or occurs twice


class Blocks(NamedTuple):
    """What a file of features holds: the blocks, remarks for the user, and where it comes from."""

    blocks: list[Block]
    warnings: list[str]
    source: dict[str, Any]


def read_table(
    given: "Sequence[Source | Path | str] | pa.Table",
    item_ids: np.ndarray,
    options: LogFormat,
    columns: Sequence[str] | None,
    row: str = "item",
) -> Blocks:
    """Read a table of features, by the rules of logs.

    Parameters
    ----------
    given : sequence of (Source, Path or str), or pyarrow.Table
        Files, or a table in memory.
    item_ids : ndarray of shape (n_items,), int64 or object (str)
        Ids of the items of the data set.
    options : LogFormat
        What is known about the files.
    columns : sequence of str, optional
        The columns to read; by default all but the ids.
    row : {"item", "user"}
        What a row is; of a user, all that is said here of items holds.

    Returns
    -------
    Blocks
        A block for each column.

    Raises
    ------
    UsageError
        If there is no such file or column.
    DataError
        If the table cannot be read, none of its items is in the data set, or a value cannot be used.
    """
    with Table(given, options, ATTRIBUTES if row == "user" else FEATURES, others=True) as table:
        ids = getattr(table.columns, row)
        warnings = _refuse_table(table, columns, row)
        names = _chosen(table, columns)
        sink = _Rows(f"{table.name}: the column '{ids}'", options.null, item_ids, row)
        sink.places = {name: f"other {table.others.index(name)}" for name in names}
        table.read(sink)
        files = [report.name for report in table.reports]
        source = {"file": Path(files[0]).name, "columns": {row: ids}}
        if table.reports[0].sha256:
            source["sha256"] = table.reports[0].sha256
        if len(files) > 1:
            source["files"] = len(files)
        name = table.name
    warnings += sink.remarks(name)
    blocks = []
    for column in names:
        where = f"{name}: column '{column}'"
        values = Values(column, where, sink.values(column, where), sink.rows, item_ids, frozenset(options.null), row)
        try:
            blocks.append(values.block(is_chosen=columns is not None))
        except LeftOutError as reason:
            warnings.append(str(reason))
    if not blocks:
        raise DataError(
            f"{name} has no column that can be a feature ({'; '.join(warnings)}); choose columns with --feature-col"
        )
    _limit_words(name, blocks)
    return Blocks(blocks, warnings, source)


def _refuse_table(table: Table, columns: Sequence[str] | None, row: str) -> list[str]:
    """Refuse a table without features; return remarks on columns that are not read."""
    twice = sorted({name.partition(_UNNAMED)[0] for name in table.others if _UNNAMED in name} - {""})
    if twice:
        raise DataError(f"{table.name} has several columns '{twice[0]}', expected different names; rename one of them")
    if table.has_lists_of_items:
        raise DataError(
            f"{table.name}: column '{table.columns.item}' holds lists of items, expected one item per row; "
            "write a row for each item"
        )
    if not table.others and not table.unreadable:
        raise DataError(f"{table.name} has no column but the {row} ids, expected features; add columns")
    remarks = [
        f"{table.name}: column '{name}' holds {kind[:60]}, expected numbers, texts or lists of these, and is left out"
        for name, kind in table.unreadable.items()
        if columns is None
    ]
    if columns is None and any(name.startswith(_UNNAMED) for name in table.others):
        remarks.append(f"{table.name}: a column without a name is left out")
    return remarks


def _chosen(table: Table, columns: Sequence[str] | None) -> list[str]:
    """Return the columns to read, in the order of the table."""
    for name in columns or ():
        if name in table.unreadable:
            raise DataError(
                f"{table.name}: column '{name}' holds {table.unreadable[name][:60]}, expected numbers, texts or lists "
                "of these; convert it, or leave it out"
            )
        if name not in table.others:
            named = [other for other in table.others if not other.startswith(_UNNAMED)]
            close = get_close_matches(name, named, n=1)
            hint = f"did you mean --feature-col {close[0]}?" if close else "choose some of them with --feature-col"
            raise UsageError(f"{table.name} has no column of features '{name}'; it has: {', '.join(named)}; {hint}")
    return [
        name
        for name in table.others
        if not name.startswith(_UNNAMED)
        and (name in columns if columns is not None else not _PANDAS_INDEX.fullmatch(name))
    ]


def _limit_words(name: str, blocks: list[Block]) -> None:
    words = {block.column.name: len(block.names) for block in blocks if block.column.kind in (WORDS, LISTS)}
    if sum(words.values()) > MOST_WORDS:
        most = max(words, key=lambda column: words[column])
        raise DataError(
            f"{name} has {sum(words.values()):,} different words, {words[most]:,} of them in column '{most}', expected "
            f"at most {MOST_WORDS:,}; choose other columns with --feature-col"
        )


class _Rows:
    """Collects the rows of the items of a data set; others are counted."""

    def __init__(self, name: str, null: Sequence[str], item_ids: np.ndarray, row: str) -> None:
        self.places: dict[str, str] = {}
        self._name, self._row = name, row
        self._item_ids = item_ids
        self._column_of = {str(item): column for column, item in enumerate(item_ids.tolist())}
        self._ids = IdColumn(name, null)
        self._kept: list[tuple[int, np.ndarray, pa.RecordBatch]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def append(self, batch: pa.RecordBatch) -> None:
        ids = batch.column(self._row).dictionary_encode()
        known = [-1 if one is None else self._known(one) for one in ids.dictionary.to_pylist()]
        found = np.array([*known, -1], dtype=np.int64)[ids.indices.fill_null(-1).to_numpy(zero_copy_only=False)]  # (E,)
        start = len(self)
        self._ids.append(ids)
        kept = batch.select(list(self.places.values())).filter(pa.array(found >= 0))
        self._kept.append((start, found[found >= 0], kept))

    def truncate(self, n_rows: int) -> None:
        self._ids.truncate(n_rows)
        self._kept = [one for one in self._kept if one[0] < n_rows]

    def _known(self, item: object) -> int:
        """Return the place of an item among those of the data set, -1 where it is none."""
        column = self._column_of.get(item if type(item) is str else str(item))  # nearly all are written alike
        if column is None:
            column = next((self._column_of[one] for one in spellings(item) if one in self._column_of), -1)
        return column

    @property
    def rows(self) -> np.ndarray:
        """The item of each row that was kept, shape (n_rows,), int64."""
        return np.concatenate([items for _, items, _ in self._kept])

    def values(self, name: str, where: str) -> pa.Array:
        """Return a column (R,) of the rows that were kept: texts, float64, or lists of one of these."""
        pieces = [batch.column(self.places[name]) for _, _, batch in self._kept]
        kinds = {piece.type for piece in pieces}
        if len(kinds) > 1:  # files that differ
            if len({pa.types.is_list(kind) for kind in kinds}) > 1:
                raise DataError(f"{where} holds lists in one file and single values in another; write both alike")
            texts = pa.list_(pa.string()) if pa.types.is_list(next(iter(kinds))) else pa.string()
            pieces = [piece.cast(texts) for piece in pieces]
        if pa.types.is_string(pieces[0].type):  # an array of texts holds no more than 2 GiB
            pieces = [piece.cast(pa.large_string()) for piece in pieces]
        return pa.concat_arrays(pieces)

    def remarks(self, name: str) -> list[str]:
        """Return what is to be said about the rows; refuse a table without any item of the data set."""
        ids = self._ids.finish()
        rows = self.rows
        n_missing = sum(ids.missing.values())
        if not len(rows):
            seen = repr(str(ids.ids[0])) if len(ids.ids) else "empty"
            raise DataError(
                f"{name}: none of its {len(ids.ids):,} {self._row}s is in the data set; its ids look like {seen}, "
                f"those of the data set like {str(self._item_ids[0])!r}; name the column of ids with --id-col"
            )
        counts = np.bincount(rows, minlength=len(self._item_ids))  # rows of each item
        found = []
        n_others = len(self) - n_missing - len(rows)
        if n_others:
            other = next(one for one in ids.ids.tolist() if self._known(one) < 0)
            found.append(f"{n_others:,} rows of {name} belong to {self._row}s that are not in training, e.g. {other}")
        if n_missing:
            found.append(f"{n_missing:,} rows of {name} have no {self._row} id")
        without = np.flatnonzero(counts == 0)
        if len(without):
            first = self._item_ids[without[0]]
            found.append(f"{len(without):,} of {len(counts):,} {self._row}s have no row in {name}, e.g. {first}")
        several = np.flatnonzero(counts > 1)
        if len(several):
            first = self._item_ids[several[0]]
            found.append(
                f"{len(several):,} {self._row}s have several rows in {name}, e.g. {first}; their words are joined"
            )
        return found
