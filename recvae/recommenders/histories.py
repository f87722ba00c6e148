"""Histories of users in any form (lists, dictionaries, matrices, tables), turned into rows of interactions.

Importing this needs only numpy, for a service without scipy and pandas.

Letters in shape comments: U users, N interactions, I items.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from recvae.datasets.columns import COLUMN_NAMES, HISTORIES, Columns, find_columns, plain_name
from recvae.errors import RecvaeError, UsageError
from recvae.items import ItemIndex
from recvae.recommenders.id_lists import as_list, check_exact, check_id, is_column, listed_ids, refuse_matrix
from recvae.recommenders.table_columns import coded, numbers
from recvae.recommenders.weights import EXPECTED_WEIGHT, are_weights, weight_of

if TYPE_CHECKING:
    import pyarrow as pa
    import scipy.sparse as sp

History = Iterable[int | str] | Mapping[int | str, float]
"""External ids, or external ids with their weights."""


_MOST_COLUMNS = 12  # of a table that is given as a mapping

_NO_ITEM = -2  # the column of a missing item; -1 is that of an unknown one


@dataclass(frozen=True)
class HistoryBlock:
    """Histories of some users as a file has them: the columns user, item and maybe weight.

    Parameters
    ----------
    table : pyarrow.Table
        The rows of a user are together. An item may be missing: its user has no known history, and still gets an
        answer.
    """

    table: "pa.Table"


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The histories of some users, as sparse rows for a model.

    Parameters
    ----------
    users : list
        Their ids; positions if they have none.
    columns : ndarray of shape (n_interactions,), int32
        Columns of the known items, user by user, ascending.
    weights : ndarray of shape (n_interactions,), float32
        Weight of each interaction; 1 by default.
    offsets : ndarray of shape (n_users + 1,), int64
        Start of each user's items, and the end of the last user's.
    n_items : int
        Number of items of the index.
    unknown : list of list
        The unknown ids of each user, as they were given.
    """

    users: list[Any]
    columns: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    n_items: int
    unknown: list[list[Any]]

    @classmethod
    def joined(cls, parts: "Sequence[Histories]") -> Self:
        """Concatenate the users of several histories, at least one; users become positions."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])  # (U,)
        return cls(
            users=list(range(len(lengths))),
            columns=np.concatenate([part.columns for part in parts]),
            weights=np.concatenate([part.weights for part in parts]),
            offsets=np.append(0, lengths.cumsum()),
            n_items=parts[0].n_items,
            unknown=[unknown for part in parts for unknown in part.unknown],
        )

    @property
    def is_empty(self) -> np.ndarray:
        """Which users have no known item, shape (n_users,), bool."""
        return np.diff(self.offsets) == 0

    @property
    def matrix(self) -> "sp.csr_matrix":
        """A sparse matrix of shape (n_users, n_items), float32, which shares the memory."""
        import scipy.sparse as sp

        shape = (len(self.offsets) - 1, self.n_items)
        matrix = sp.csr_matrix((self.weights, self.columns, self.offsets), shape=shape)
        matrix.has_canonical_format = True  # columns ascend; scipy would check every entry
        return matrix

    def of(self, chosen: np.ndarray) -> Self:
        """Return the histories of some users, in the same order.

        Parameters
        ----------
        chosen : ndarray of shape (n_users,), bool
            Which users.
        """
        if chosen.all():
            return self
        places = np.repeat(chosen, np.diff(self.offsets))  # (U,) -> (N,)
        numbers = np.flatnonzero(chosen).tolist()
        return type(self)(
            users=[self.users[number] for number in numbers],
            columns=self.columns[places],
            weights=self.weights[places],
            offsets=np.append(0, np.diff(self.offsets)[chosen].cumsum()),
            n_items=self.n_items,
            unknown=[self.unknown[number] for number in numbers],
        )

    def emptied(self, chosen: np.ndarray) -> Self:
        """Return the same users, with the histories of some emptied.

        Parameters
        ----------
        chosen : ndarray of shape (n_users,), bool
            Users whose items are removed.
        """
        if not chosen.any():
            return self
        lengths = np.diff(self.offsets)  # (U,)
        places = np.repeat(~chosen, lengths)  # (U,) -> (N,)
        return type(self)(
            users=self.users,
            columns=self.columns[places],
            weights=self.weights[places],
            offsets=np.append(0, np.where(chosen, 0, lengths).cumsum()),
            n_items=self.n_items,
            unknown=self.unknown,
        )


def history_of(given: object, items: ItemIndex) -> Histories:
    """Read the history of one user.

    Parameters
    ----------
    given : iterable of int or str, or mapping of these to weights
        External ids in any order, where repetitions count once; or ids with weights, see `is_weight`.
    items : ItemIndex
        The known items.

    Raises
    ------
    UsageError
        If it is a single id, a table, a matrix or a row of one instead of a list of ids, or a weight is out of range.
    """
    return _from_lists([0], [given], items)


def histories_of(given: object, items: ItemIndex) -> Histories:
    """Read the histories of many users.

    Parameters
    ----------
    given : object
        A sequence of histories (see `history_of`), a mapping or a pandas Series of users to histories, a scipy sparse
        matrix of users x items in the columns of the index, or a table (pandas, polars, Arrow) with a row for each user
        and item.
        A table's columns are found by the names that `recvae preprocess` knows: user and item, and weight if present.
    items : ItemIndex
        The known items.

    Returns
    -------
    Histories
        In the given order; for a table, in the order in which users first appear.

    Raises
    ------
    UsageError
        If it is none of these, such as a dense matrix or a mapping of columns, or a weight is out of range.
    DataError
        If a matrix has another number of columns or values that are no weights, or a table has no column that is
        recognised as user or item.
    """
    if isinstance(given, HistoryBlock):
        return _from_table(given.table, items, may_lack_items=True)
    if hasattr(given, "tocsr"):
        return _from_matrix(given, items)
    if hasattr(given, "__arrow_c_stream__") and not is_column(given):
        import pyarrow as pa

        try:
            table = pa.table(given)
        except (pa.ArrowException, ValueError) as error:
            raise UsageError(
                f"got a table that Arrow cannot read: {error}; expected one type per column, e.g. only strings"
            ) from error
        return _from_table(table, items)
    if isinstance(given, Mapping):
        _refuse_columns(given)
        return _from_lists(list(given), list(given.values()), items)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise UsageError(f"got {given!r} for histories, expected a list of lists of ids, a sparse matrix or a table")
    refuse_matrix(given)
    histories = as_list(given)
    is_series = hasattr(given, "loc")  # of pandas, whose index has the users
    users = as_list(cast(Any, given).index) if is_series else list(range(len(histories)))
    return _from_lists(users, histories, items)


def _refuse_columns(given: Mapping[Any, object]) -> None:
    """Refuse columns of user and item, or a row of them: their names are no users, and no items."""
    if len(given) > _MOST_COLUMNS or not all(isinstance(name, str) for name in given):
        return
    if not any(plain_name(name) in COLUMN_NAMES["user"] for name in given):  # nearly always, and quickly
        return
    try:
        found = find_history_columns(list(given), "the histories")
    except RecvaeError:
        return  # names of something else
    raise UsageError(
        f"got columns of {found.user} and {found.item} for histories, expected ids; make a table of them, e.g. with "
        "pandas.DataFrame(...)"
    )


def _from_lists(users: list[Any], histories: list[Any], items: ItemIndex) -> Histories:
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    unknown: list[list[Any]] = []
    for row, history in enumerate(histories):
        unknown.append([])
        if isinstance(history, Mapping):
            _refuse_columns(history)
            pairs = list(history.items())
            check_exact(history)
        else:
            pairs = [(item, 1.0) for item in listed_ids(history, len(items))]
        for item, weight in pairs:
            column = items.column_of(item)
            if column is None:
                check_id(item)
                unknown[-1].append(item)
                continue
            rows.append(row)
            columns.append(column)
            weights.append(weight_of(weight, item))
    return _by_user(np.array(rows), np.array(columns), np.array(weights), users, unknown, len(items))


def _from_matrix(matrix: Any, items: ItemIndex) -> Histories:
    from recvae.interactions import as_interactions

    n_users = matrix.shape[0]
    if not n_users:
        return _from_lists([], [], items)
    rows = as_interactions(matrix, "the histories", len(items))
    return Histories(
        users=list(range(n_users)),
        columns=rows.indices,
        weights=rows.data,
        offsets=rows.indptr,
        n_items=len(items),
        unknown=[[] for _ in range(n_users)],
    )


def _from_table(table: "pa.Table", items: ItemIndex, may_lack_items: bool = False) -> Histories:
    import pyarrow as pa

    found = find_history_columns(table.column_names, "the table")
    user, item = found.user, found.item
    for name in (user, item):
        if pa.types.is_nested(table[name].type):
            raise UsageError(f"got {table[name].type} in {name}, expected one id per row; use one row per item")
    rows, users = coded(table[user], user)  # (N,), different ids
    codes, ids = coded(table[item], item)
    if (rows < 0).any() or ((codes < 0).any() and not may_lack_items):
        raise UsageError(f"got empty cells in {user} or {item}, expected a user and an item in every row")
    column_of = [items.column_of(value) for value in ids]
    known_columns = [-1 if column is None else column for column in column_of]
    columns = np.array([*known_columns, _NO_ITEM], dtype=np.int64)[codes]  # (N,), the last for a missing item
    weights = np.ones(len(rows))
    if found.weight is not None:
        weights = numbers(table[found.weight])
        if may_lack_items:
            weights[np.isnan(weights)] = 1
        if not are_weights(weights).all():
            raise UsageError(f"got invalid values in the column {found.weight}, {EXPECTED_WEIGHT}; remove these rows")
    unknown: list[list[Any]] = [[] for _ in range(len(users))]
    for place in np.flatnonzero(columns == -1).tolist():
        unknown[rows[place]].append(ids[codes[place]])
    is_known = columns >= 0
    return _by_user(rows[is_known], columns[is_known], weights[is_known], users, unknown, len(items))


def find_history_columns(names: list[str], where: str) -> Columns:
    """Choose the columns of a table of histories; see `columns.find_columns`, which says what it raises."""
    return find_columns(names, HISTORIES, where, "rename it to '{role}'")


def _by_user(
    rows: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
    users: list[Any],
    unknown: list[list[Any]],
    n_items: int,
) -> Histories:
    """Order interactions by user and item; of repeated items, the largest weight counts."""
    order = np.lexsort((-weights, columns, rows))
    rows, columns, weights = (x[order] for x in (rows, columns, weights))  # (N,)
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    lengths = np.bincount(rows[is_first].astype(np.int64), minlength=len(users))  # (U,)
    return Histories(
        users=users,
        columns=columns[is_first].astype(np.int32),
        weights=weights[is_first].astype(np.float32),
        offsets=np.append(0, lengths.cumsum()),
        n_items=n_items,
        unknown=unknown,
    )
