"""Ranked items and the targets of their users: what every ranking metric is computed from.

Letters in shape comments: U users, I items, N interactions, F features, k ranks.
"""

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from recvae.errors import UsageError
from recvae.interactions import StoredRows, as_interactions, item_counts_of
from recvae.items import check_k

Targets = Any  # a scipy sparse matrix of any format, of which scipy has no common type that checkers know


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """What metrics beyond accuracy know of items and users: nothing of it depends on the lists.

    Parameters
    ----------
    train : scipy sparse matrix of shape (n_train_users, n_items)
        Training interactions; entries above 0 count, whatever their weight.
    fold_in : scipy sparse matrix of shape (n_users, n_items)
        The histories that the lists were made for.
    features : scipy sparse matrix or ndarray of shape (n_items, n_features), optional
        Features of the items.

    Raises
    ------
    DataError
        If the interactions are not sparse, or are of different numbers of items.
    UsageError
        If the features are not of these items.
    """

    train: Any
    fold_in: Any
    features: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.train, StoredRows):  # whose counts are known
            object.__setattr__(self, "train", as_interactions(self.train, "the training interactions"))
        object.__setattr__(self, "fold_in", as_interactions(self.fold_in, "the fold-in", self.n_items))
        if self.features is not None and self.features.shape[0] != self.n_items:
            raise UsageError(
                f"got features of {self.features.shape[0]:,} items, expected a row for each of the {self.n_items:,} "
                "items, in the order of their columns"
            )

    @property
    def n_items(self) -> int:
        """Items of the catalogue."""
        return int(self.train.shape[1])

    @property
    def n_train_users(self) -> int:
        """Training users."""
        return int(self.train.shape[0])

    def of_users(self, start: int, end: int) -> "Background":
        """Return what is known for some of the lists: rows from `start` to before `end`."""
        assert len(self.by_popularity) == self.n_items  # worked out once, for all parts
        part = copy(self)
        object.__setattr__(part, "fold_in", self.fold_in[start:end])
        return part

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of training users of each item, shape (n_items,), int64."""
        return item_counts_of(self.train)

    @cached_property
    def by_popularity(self) -> np.ndarray:
        """Item columns (n_items,), the most popular first; equally popular ones by column."""
        return np.argsort(-self.counts, kind="stable")


@dataclass(frozen=True)
class RankedLists:
    """The first k ranked items of each user, and what was found.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, k), int64
        Item columns, best first; -1 where a list ended.
    hits : ndarray of shape (n_users, k), bool
        Which of them are targets.
    n_targets : ndarray of shape (n_users,), float64
        NaN where a user has none.
    targets : csr_matrix of shape (n_users, n_items)
        The targets themselves.
    background : Background, optional
        What metrics beyond accuracy need.
    """

    ranked: np.ndarray
    hits: np.ndarray
    n_targets: np.ndarray
    targets: sp.csr_matrix
    background: Background | None = None

    @property
    def k(self) -> int:
        """The number of ranks."""
        return self.hits.shape[1]

    def first(self, k: int) -> "RankedLists":
        """Return the same with fewer ranks."""
        return replace(self, ranked=self.ranked[:, :k], hits=self.hits[:, :k])

    def of_users_with_targets(self, values: ArrayLike) -> np.ndarray:
        """Return values (n_users,) with NaN for users without a target."""
        return np.where(np.isnan(self.n_targets), np.nan, values)


def look_up(ranked: np.ndarray, targets: Targets, k: int, background: Background | None = None) -> RankedLists:
    """Check ranked items and targets, and look up which of the first k are targets.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, >= k), integer
        Item columns, best first, each once; -1 where a list ended, which never is a target.
    targets : scipy sparse matrix of shape (n_users, n_items)
        Entries above 0 are the targets.
    k : int
        Number of ranks that count, >= 1.
    background : Background, optional
        What metrics beyond accuracy need, of the same users and items.

    Raises
    ------
    UsageError
        If k is not a whole number >= 1, or above the ranks given, the shapes do not fit, the ranked items are not whole
        numbers in range, a list has an item twice, or the background is of other users or items.
    DataError
        If `targets` are not sparse, or hold a value that is negative, NaN or infinite.
    """
    check_k(k)
    ranked = _as_array(ranked)
    nobody = sp.issparse(targets) and cast(Any, targets).shape[0] == 0  # to rank for nobody is no mistake
    targets = sp.csr_matrix(cast(Any, targets)) if nobody else as_interactions(targets, "the targets")
    if ranked.ndim != 2 or ranked.shape[1] < k or ranked.shape[0] != targets.shape[0]:
        raise UsageError(
            f"got ranked items of shape {ranked.shape} for {targets.shape[0]} users and k={k}, "
            f"expected shape ({targets.shape[0]}, {k} or more); rank more items or lower k"
        )
    if background is not None and background.fold_in.shape != targets.shape:
        raise UsageError(
            f"got a background of {background.fold_in.shape[0]:,} users and {background.n_items:,} items for targets "
            f"of {targets.shape[0]:,} and {targets.shape[1]:,}; its fold_in has a row for each list, its train a "
            "column for each item"
        )
    first = _checked(ranked[:, :k], targets.shape[1])  # (U, k)
    n_items = targets.shape[1]
    rows = np.repeat(np.arange(targets.shape[0], dtype=np.int64), np.diff(targets.indptr))
    wanted = rows * n_items + targets.indices  # each target as one number, ascending
    counts = np.diff(targets.indptr).astype(np.float64)  # (U,)
    n_targets = np.where(counts > 0, counts, np.nan)  # (U,)
    if not len(wanted):
        return RankedLists(first, np.zeros(first.shape, dtype=bool), n_targets, targets, background)
    keys = np.arange(len(first), dtype=np.int64)[:, None] * n_items + first  # (U, k)
    place = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
    return RankedLists(first, (wanted[place] == keys) & (first >= 0), n_targets, targets, background)


def _as_array(ranked: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(ranked)
    except ValueError as error:
        raise UsageError(
            f"got ranked items that are no array ({error}), expected as many for each user; fill shorter lists with -1"
        ) from error


def _checked(first: np.ndarray, n_items: int) -> np.ndarray:
    """Return ranked items (U, k) as int64, after refusing what cannot be columns, and items that are ranked twice."""
    if not first.size:
        return first.astype(np.int64)
    if first.dtype.kind not in "iu":
        raise UsageError(
            f"got ranked items of type {first.dtype}, expected whole numbers: item columns, best first, and -1 where a "
            "list ended; scores have to be ranked first"
        )
    if first.max() >= n_items or first.min() < -1:
        raise UsageError(
            f"got ranked items from {first.min()} to {first.max()}, expected item columns from 0 to "
            f"{n_items - 1}, or -1 where a list ended"
        )
    ascending = np.sort(first, axis=1)  # (U, k)
    is_repeated = (ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0)  # (U, k - 1)
    if is_repeated.any():  # every repetition would count as a further hit
        user, rank = np.argwhere(is_repeated)[0].tolist()
        raise UsageError(
            f"got item column {ascending[user, rank]} more than once in the list of row {user}, expected each item "
            "once; remove repetitions, and fill shorter lists with -1"
        )
    return first.astype(np.int64)
