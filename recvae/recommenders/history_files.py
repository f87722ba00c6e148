"""Files of histories, by the rules of logs, block by block: memory holds one block, and the distinct users and items.

    a table       one row per user and item: user, item[, weight], in any order
    JSON lines    one line per user: {"user": 7, "items": [318, 296]} or {"user": 7, "items": {"318": 2.0}}
    lists         a user and his items in each line

Every form that `recvae preprocess` reads is read. The rows of a user need not be together: they are sorted first, on
disk where they do not fit in memory.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from recvae.datasets.columns import COLUMN_NAMES, HISTORIES, Columns, plain_name
from recvae.datasets.reading.id_column import MISSING, IdColumn
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sinks import WrongValueError
from recvae.datasets.reading.tables import Table
from recvae.datasets.reading.times import quoted
from recvae.display import shown_id
from recvae.errors import DataError
from recvae.ids import MARKERS, MARKERS_AMONG_INTEGERS, REMARKS
from recvae.items import ItemIndex
from recvae.progress import Progress
from recvae.recommenders.histories import HistoryBlock
from recvae.recommenders.weights import RANGE_OF_WEIGHTS, are_weights
from recvae.storage.integrity import UNREADABLE

BLOCK = 10_000
"""Users per block."""


@dataclass(frozen=True)
class HistoryCounts:
    """How many rows and users a file has, and the rows that say nothing.

    Parameters
    ----------
    rows, users : int
        Rows read, and users with a row.
    left_out : dict of str to int
        Rows and lines that were left out, by reason; only counts above 0.
    """

    rows: int
    users: int
    left_out: dict[str, int] = field(default_factory=dict)


class HistoryFile:
    """A file of histories, checked from its first line to its last; use it in a `with` statement.

    Parameters
    ----------
    path : Path or str
        A file, a folder, a glob, or "-" for the standard input.
    options : LogFormat, optional
        What is known about it; the rest is guessed.
    progress : Progress, optional
        Called with the number of rows so far.

    Attributes
    ----------
    ratings : str or None
        The column of ratings, which is not read; see `ratings_among`.

    Raises
    ------
    UsageError
        If there is no such file, or a named column is not in it.
    DataError
        If it cannot be read, or a weight is out of range; the message names file, line and column.
    """

    def __init__(self, path: Path | str, options: LogFormat | None = None, progress: Progress | None = None) -> None:
        self._table = Table([path], options, HISTORIES)
        try:
            check = _Check(self._table)
            self._table.read(check, progress)
            self._group(options or LogFormat(), len(check))
            self.ratings = ratings_among(self._table.column_names, self._table.columns, options or LogFormat())
        except BaseException:
            self._table.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._table.__exit__(kind, error, trace)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each with its role."""
        columns = self._table.columns
        return tuple(f"{role} = {name}" for role in HISTORIES if (name := getattr(columns, role)))

    @property
    def checksum(self) -> str:
        """What tells one content from another."""
        return " ".join(report.sha256 for report in self._table.reports)

    def blocks(self, users: int = BLOCK) -> Iterator[HistoryBlock]:
        """Yield the histories, in the order in which users first appear.

        Parameters
        ----------
        users : int
            Users per block, >= 1; the last block may have fewer.

        Yields
        ------
        HistoryBlock
            For `Recommender.recommend_batch`; the users of all blocks have one type, int or str.
        """
        weight = ", weight" if self._has_weights else ""
        query = f"SELECT rank, item{weight} FROM histories JOIN ranks USING (number) ORDER BY rank, place"
        rest: list[pa.Table] = []
        done = 0  # users before the next block
        with self._table.errors(), self._table.execute(query) as reader:
            for batch in reader:
                rows = pa.table(batch)
                while len(rows):
                    ranks = rows["rank"].to_numpy()
                    end = int(np.searchsorted(ranks, done + users))  # rows are sorted by rank
                    rest.append(rows.slice(0, end))
                    rows = rows.slice(end)
                    if len(rows):
                        yield self._block(rest)
                        rest, done = [], done + users
        if rest:
            yield self._block(rest)

    def _block(self, parts: list[pa.Table]) -> HistoryBlock:
        rows = pa.concat_tables(parts)
        users = self._users[rows["rank"].to_numpy()]
        columns = {
            "user": pa.array(users, pa.int64() if users.dtype.kind == "i" else pa.string()),
            "item": rows["item"],
        }
        if self._has_weights:
            columns["weight"] = rows["weight"]
        return HistoryBlock(pa.table(columns))

    def _group(self, options: LogFormat, n_rows: int) -> None:
        """Number the users by their first rows, count what says nothing, and keep the rows where they can be sorted."""
        relation = f"({self._table.relation()})"
        self._table.run(f"CREATE TEMP TABLE found AS SELECT row_number() OVER () AS place, * FROM {relation}")
        self._table.run(
            "CREATE TEMP TABLE users AS SELECT row_number() OVER (ORDER BY first) - 1 AS number, * "
            "FROM (SELECT user, min(place) AS first, count(*) AS n_rows FROM found GROUP BY user)"
        )
        n_without_user = self._number_users(options)
        self._has_weights = "weight" in self._table.names("found")
        weight = ", weight" if self._has_weights else ""
        without = ", ".join(map(quoted, self._missing_items(options))) or "NULL"
        self._table.run(
            f"CREATE TEMP VIEW histories AS SELECT number, place{weight}, "
            f"CASE WHEN item::VARCHAR IN ({without}) THEN NULL ELSE item END AS item FROM found JOIN users "
            "ON found.user IS NOT DISTINCT FROM users.user"
        )
        left_out: Counter[str] = Counter()
        for report in self._table.reports:
            left_out.update(report.skipped)
        left_out["rows without a user id"] = n_without_user
        query = f"SELECT count(*) AS n FROM found WHERE item IS NULL OR item::VARCHAR IN ({without})"
        with self._table.execute(query) as reader:
            left_out["rows without an item"] = reader.read_all()["n"][0].as_py()
        counted = {reason: count for reason, count in left_out.items() if count}
        self.counts = HistoryCounts(rows=n_rows, users=len(self._users), left_out=counted)

    def has_item_of(self, items: ItemIndex) -> bool:
        """Whether a user has an item of a model; also true where no user has any item."""
        query = "SELECT DISTINCT item FROM histories WHERE item IS NOT NULL"
        is_empty = True
        with self._table.errors(), self._table.execute(query) as reader:
            for batch in reader:
                found = batch.column("item").to_pylist()
                is_empty &= not found
                if any(items.column_of(item) is not None for item in found):
                    return True
        return is_empty

    def _number_users(self, options: LogFormat) -> int:
        """Decide who the users are, in the order of their first rows; return the number of rows without one."""
        column = self._id_column("user", options)
        counts = []
        with self._table.errors(), self._table.execute("SELECT user, n_rows FROM users ORDER BY number") as reader:
            for batch in reader:
                column.append(batch.column("user"))
                counts.append(batch.column("n_rows").to_numpy())
        ids = column.finish()
        n_rows_of = np.concatenate(counts) if counts else np.empty(0, dtype=np.int64)
        known = ids.codes != MISSING
        codes, first = np.unique(ids.codes[known], return_index=True)
        order = np.argsort(first)  # by the first row: two spellings of an id are one user
        rank_of = np.empty(len(ids.ids), dtype=np.int64)
        rank_of[codes[order]] = np.arange(len(order))
        self._users = ids.ids[codes[order]]
        ranks = pa.table({"number": np.flatnonzero(known), "rank": rank_of[ids.codes[known]]})
        self._table.register("ranks", ranks)
        if not len(self._users):
            raise DataError(f"{self._table.name}: no row has a user id; choose another column with --user-col")
        return int(n_rows_of[~known].sum())

    def _id_column(self, role: str, options: LogFormat) -> IdColumn:
        """Return a column of ids by the rules of logs; what the model knows as an item is one."""
        name = f"{self._table.name}: the {role} column '{getattr(self._table.columns, role)}'"
        marks = (*options.null, *self._table.headings(role))
        return IdColumn(name, marks, options.kept if role == "item" else ())

    def _missing_items(self, options: LogFormat) -> list[str]:
        """Return the texts that mean "no item" in the file, such as NULL."""
        column = self._id_column("item", options)
        values: list[pa.Array] = []
        query = "SELECT DISTINCT item FROM found WHERE item IS NOT NULL"
        with self._table.errors(), self._table.execute(query) as reader:
            for batch in reader:
                column.append(batch.column("item"))
                values.append(batch.column("item"))
        found = pa.chunked_array(values, values[0].type) if values else pa.chunked_array([], pa.string())
        return [str(one) for one in found.filter(pa.array(column.finish().codes == MISSING)).to_pylist()]


def options_like(
    manifest: Mapping[str, Any], known: LogFormat | None = None, items: ItemIndex | None = None
) -> LogFormat:
    """Return how a file of histories is probably written: as the log that the model was trained on.

    Parameters
    ----------
    manifest : mapping
        The manifest of the training data; it has the names of its columns.
    known : LogFormat, optional
        What the user says about the file.
    items : ItemIndex, optional
        The items of the model: one that is called "null" is an item here too.

    Returns
    -------
    LogFormat
        A column of the training data is preferred where the file has it; named columns must be there. The column of
        ratings is among them where low ratings were left out of the training data.
    """
    try:
        trained = manifest["source"]["reading"]["columns"]
        roles = ("user", "item", "rating") if _left_out_ratings(manifest) else ("user", "item")
        usual = {role: str(trained[role]) for role in roles if trained[role]}
    except UNREADABLE:  # data that no log was read for, or of an earlier version
        usual = {}
    kept = () if items is None else tuple(_doubtful(items))
    return replace(known or LogFormat(), usual=tuple(usual.items()), kept=kept)


def _left_out_ratings(manifest: Mapping[str, Any]) -> bool:
    """Whether rows with a low rating were left out of the training data."""
    try:
        steps = pairwise(manifest["filters"]["steps"])  # "as read" is the first
        return any(step["name"].startswith("rating ") and step["events"] < before["events"] for before, step in steps)
    except UNREADABLE:
        return False


def ratings_among(names: Sequence[str], columns: Columns, options: LogFormat) -> str | None:
    """Return the column of ratings of a table of histories, which is not read: every row counts as an interaction.

    Parameters
    ----------
    names : sequence of str
        All columns of the table.
    columns : Columns
        Those that are read.
    options : LogFormat
        From `options_like`.

    Returns
    -------
    str or None
        Its name; None where there is none, or where the training data has the low ratings, too.
    """
    trained = dict(options.usual).get("rating")
    if trained is None:
        return None
    free = [name for name in names if name not in (*columns.ids, columns.weight)]
    likely = [name for name in free if name == trained or plain_name(name) in COLUMN_NAMES["rating"]]
    return trained if trained in likely else next(iter(likely), None)


def _doubtful(items: ItemIndex) -> Iterator[str]:
    """Yield the items of a model that would mean "no item" in a log."""
    yield from (word for word in sorted(MARKERS | MARKERS_AMONG_INTEGERS) if items.column_of(word) is not None)
    if items.ids.dtype == object:
        yield from (word for word in items.ids if word.startswith(REMARKS))


class _Check:
    """Looks at every row before the first is answered: weights are checked, the rest is read anew."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._n_rows = 0

    def __len__(self) -> int:
        return self._n_rows

    def append(self, batch: pa.RecordBatch) -> None:
        if "weight" in batch.schema.names:
            weights: np.ndarray = batch.column("weight").to_numpy(zero_copy_only=False)  # null as NaN
            wrong = ~are_weights(weights)
            if self._table.weights_may_be_missing:
                wrong &= batch.column("weight").is_valid().to_numpy(zero_copy_only=False)
            if wrong.any():
                raise WrongValueError("weight", RANGE_OF_WEIGHTS, self._n_rows + int(wrong.argmax()), int(wrong.sum()))
        self._n_rows += len(batch)

    def truncate(self, n_rows: int) -> None:
        self._n_rows = n_rows


def no_item_known(file: HistoryFile, items: ItemIndex) -> str:
    """Return what to do with a file of which a model knows no item: its ids beside the model's, and likely causes."""
    item = next((one for block in file.blocks(1) for one in block.table["item"].to_pylist() if one is not None), None)
    return ids_differ(item, items)


def ids_differ(item: object, items: ItemIndex) -> str:
    """Return what to do where the model knows none of the items, given one of these."""
    return (
        f"one of its items is {shown_id(item)}, while the model's ids look like {shown_id(items.id_of(0))}; name the "
        "column of items with --item-col, write ids as in the training data, or choose a run of this file's data set"
    )


def users_of(block: HistoryBlock) -> list[Any]:
    """Return the first and the last user of a block."""
    return [block.table["user"][place].as_py() for place in (0, -1)]
