"""Users x items as sparse rows: what splitting, fitting and evaluating pass to each other.

Letters in shape comments here and everywhere: U users, I items, B users of one batch, N stored interactions.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import scipy.sparse as sp

from recvae.display import html_facts, plural
from recvae.errors import DataError

_CHUNK = 1 << 22
_SORTED_ALONE = 1 << 20  # integers that one core sorts before a thread has started
LEAST_WEIGHT, MOST_WEIGHT = 1e-9, 1e9
"""What an interaction may weigh: float32 holds squares of these, and sums over millions of users."""


def interactions(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """Build a matrix of ones from the positions of its interactions, which must be distinct.

    Parameters
    ----------
    rows, columns : ndarray of shape (n_interactions,), integer
        User row and item column of each interaction.
    shape : tuple of int
        (n_users, n_items).

    Returns
    -------
    csr_matrix of shape (n_users, n_items), float32
        Sorted int32 indices, every stored value 1.
    """
    position = rows.astype(np.int64) << column_bits(shape)  # (N,)
    position |= columns
    return of_positions(position, shape)


def column_bits(shape: tuple[int, int]) -> int:
    """Return how many bits hold a column, where row and column are one number: row << bits | column."""
    return int(shape[1]).bit_length()


def of_positions(position: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """Build a matrix of ones; see `interactions`.

    Parameters
    ----------
    position : ndarray of shape (n_interactions,), int64
        Row and column of each interaction as one number, see `column_bits`; it is used up.
    shape : tuple of int
        (n_users, n_items).
    """
    bits = column_bits(shape)
    sort_integers(position)  # faster than scipy's way over coordinates
    starts = np.searchsorted(position, np.arange(shape[0] + 1) << bits)  # (U + 1,)
    position &= (1 << bits) - 1
    columns = position.astype(np.int32)
    del position
    matrix = sp.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, starts), shape=shape)
    matrix.sum_duplicates()  # changes nothing, but lets scipy know that rows are sorted
    return matrix


def sort_integers(values: np.ndarray) -> None:
    """Sort integers (N,) in place, on all cores: part by part, which numpy's stable sort then only has to join.

    The last step needs half as much memory beside them.
    """
    n_parts = min(os.cpu_count() or 1, len(values) // _SORTED_ALONE)
    if n_parts > 1:
        with ThreadPoolExecutor(n_parts, thread_name_prefix="recvae-sort") as pool:
            list(pool.map(np.ndarray.sort, np.array_split(values, n_parts)))
    values.sort(kind="stable" if n_parts > 1 else None)


def in_chunks(n_rows: int) -> Iterator[slice]:
    """Yield slices that cover rows, for work whose temporary arrays must not be as long as a log."""
    for start in range(0, n_rows, _CHUNK):
        yield slice(start, min(start + _CHUNK, n_rows))


def counts_of(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """Return how often each code occurs, shape (n_codes,), int64; codes are not negative."""
    counts = np.zeros(n_codes, dtype=np.int64)
    for part in in_chunks(len(codes)):  # numpy would copy all of them as int64
        counts += np.bincount(codes[part], minlength=n_codes)
    return counts


class StoredRows(ABC):
    """A users x items matrix that lies on disk: its size and counts are known, its rows are read in parts."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Users and items."""

    @property
    @abstractmethod
    def nnz(self) -> int:
        """Number of interactions."""

    @property
    @abstractmethod
    def item_counts(self) -> np.ndarray:
        """The number of users of each item, shape (n_items,), int64."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say why they have no attribute of a matrix."""
            raise AttributeError(
                f"training rows that lie on disk (stream=True) have no '{name}'; load the data set without stream=True"
            )


def item_counts_of(matrix: sp.csr_matrix | StoredRows) -> np.ndarray:
    """Return the number of users of each item, shape (n_items,), int64."""
    return matrix.item_counts if isinstance(matrix, StoredRows) else counts_of(matrix.indices, matrix.shape[1])


def as_interactions(matrix: Any, name: str = "the interactions", n_items: int | None = None) -> sp.csr_matrix:
    """Check and normalise a users x items matrix given by the caller.

    Parameters
    ----------
    matrix : scipy sparse matrix of shape (n_users, n_items)
        Any sparse format and real number type. Stored zeros are dropped; duplicates are summed.
    name : str
        What messages call it.
    n_items : int, optional
        The number of columns it must have.

    Returns
    -------
    csr_matrix of shape (n_users, n_items), float32
        With sorted indices and no stored zeros; it shares the argument's memory if nothing had to change.

    Raises
    ------
    DataError
        If it is not sparse, has no rows or columns, has the wrong number of columns, or holds a value that is no real
        number, negative, NaN, infinite, or not 0 and outside of `LEAST_WEIGHT` to `MOST_WEIGHT`.
    """
    if isinstance(matrix, StoredRows):
        raise DataError(
            f"got rows that lie on disk (stream=True) for {name}, expected a matrix in memory; load the data set "
            "without stream=True"
        )
    if not sp.issparse(matrix):
        raise DataError(
            f"got {type(matrix).__name__} for {name}, expected a scipy sparse matrix of users x items; "
            "wrap it with scipy.sparse.csr_matrix(...)"
        )
    kind: np.dtype[Any] = cast(Any, matrix).dtype
    if kind.kind not in "biuf":
        raise DataError(f"got values of type {kind} in {name}, expected numbers; convert them to float32")
    # First floats, then rows: small integers would overflow where scipy adds duplicates up.
    wide = kind.kind == "f" and kind.itemsize > 4
    csr = sp.csr_matrix(cast(Any, matrix).astype(kind if wide else np.float32, copy=False))
    if csr.shape[0] == 0:
        raise DataError(f"got no users (rows) in {name}, expected at least one")
    if csr.shape[1] == 0 or (n_items is not None and csr.shape[1] != n_items):
        expected = "at least one" if n_items is None else f"{n_items:,}"
        raise DataError(
            f"got {csr.shape[1]:,} items (columns) in {name}, expected {expected}; "
            "use the item columns the model was fitted on"
        )
    _check_weights(csr.data, name)
    csr = csr.astype(np.float32, copy=False)
    if not csr.has_canonical_format or not csr.data.all():
        csr = csr.copy()  # the caller's matrix stays as it is
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def _check_weights(weights: np.ndarray, name: str) -> None:
    """Refuse stored values (N,) with which a model would compute nonsense."""
    if not len(weights):
        return
    least, most = weights.min(), weights.max()  # NaN if any is
    if not (least >= 0 and most < np.inf):
        raise DataError(f"{name} hold negative, NaN or infinite values, expected weights > 0; drop those entries")
    if least < LEAST_WEIGHT:
        least = weights.min(where=weights > 0, initial=most)
    if most > MOST_WEIGHT or 0 < least < LEAST_WEIGHT:
        raise DataError(
            f"got weights from {least:.3g} to {most:.3g} in {name}, expected 0, or {LEAST_WEIGHT:g} to "
            f"{MOST_WEIGHT:g}; are these ids or times? Divide all by one number, and set what is too small to 0"
        )


def whole_and_without_each(history: sp.csr_matrix, start: int, end: int) -> sp.csr_matrix:
    """Return some of these 1 + N rows: a user's history of N items, then the history without each item.

    Parameters
    ----------
    history : csr_matrix of shape (1, n_items), float32
        With sorted indices.
    start, end : int
        First row, and the row after the last.

    Returns
    -------
    csr_matrix of shape (end - start, n_items), float32
    """
    stays = np.arange(start, end)[:, None] != 1 + np.arange(history.nnz)  # (B, N)
    columns, values = (np.broadcast_to(x, stays.shape)[stays] for x in (history.indices, history.data))
    starts = np.append(0, stays.sum(axis=1).cumsum())  # (B + 1,)
    return sp.csr_matrix((values, columns, starts), shape=(end - start, history.shape[1]))


def chosen_of(column: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the values of a column chosen by a mask (E,) or by positions, in that order.

    numpy indexes by positions ten times as fast as by a mask; part by part, they take no memory to speak of.
    """
    if chosen.dtype != bool:
        return column[chosen]
    values = np.empty(int(np.count_nonzero(chosen)), dtype=column.dtype)
    done = 0
    for part in in_chunks(len(chosen)):
        here = column[part][np.flatnonzero(chosen[part])]
        values[done : done + len(here)] = here
        done += len(here)
    return values


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Users to evaluate on: the history that the model sees, and the items that it should find.

    Parameters
    ----------
    fold_in : csr_matrix of shape (n_users, n_items), float32
        The history given to the model; these items are never recommended.
    targets : csr_matrix of shape (n_users, n_items), float32
        The items that count as hits. A row may be empty; such users are left out of every mean.
    user_ids : ndarray of shape (n_users,)
        External ids of the users; by default their positions.
    """

    fold_in: sp.csr_matrix
    targets: sp.csr_matrix
    user_ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if self.fold_in.shape != self.targets.shape:
            raise DataError(
                f"got fold-in of shape {self.fold_in.shape} and targets of shape {self.targets.shape}, "
                "expected the same users and items in both"
            )
        if len(self.user_ids) not in (0, self.n_users):
            raise DataError(f"got {len(self.user_ids):,} user ids for {self.n_users:,} users, expected one for each")
        if not len(self.user_ids):
            object.__setattr__(self, "user_ids", np.arange(self.n_users))

    @classmethod
    def of(cls, value: "HeldOut | tuple[sp.spmatrix, sp.spmatrix]", n_items: int) -> Self:
        """Check and normalise held-out users given by the caller, as `HeldOut` or as (fold_in, targets).

        Raises
        ------
        DataError
            If either matrix is not a sparse users x items matrix with `n_items` columns.
        """
        fold_in, targets = (value.fold_in, value.targets) if isinstance(value, HeldOut) else value
        return cls(
            fold_in=as_interactions(fold_in, "the fold-in", n_items),
            targets=as_interactions(targets, "the targets", n_items),
            user_ids=value.user_ids if isinstance(value, HeldOut) else np.empty(0, dtype=np.int64),
        )

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return int(self.fold_in.shape[0])

    @property
    def has_targets(self) -> bool:
        """Whether any user has a target: without one there is no metric at all."""
        return self.targets.nnz > 0

    def n_without_target(self) -> int:
        """Return the number of users without a target, for whom there is no metric."""
        return int(np.count_nonzero(np.diff(self.targets.indptr) == 0))

    def __repr__(self) -> str:
        """Return them in one line: how many users, fold-in items and targets."""
        counts = ", ".join(f"{count:,} {what}" for what, count in self._counts().items())
        return f"<HeldOut: {counts}>"

    def _repr_html_(self) -> str:
        return html_facts(plural(self.n_users, "held-out user"), self._counts())

    def _counts(self) -> dict[str, int]:
        n_without = self.n_without_target()
        return {
            "users": self.n_users,
            **({"users without a target": n_without} if n_without else {}),
            "items": int(self.fold_in.shape[1]),
            "fold-in interactions": int(self.fold_in.nnz),
            "targets": int(self.targets.nnz),
        }
