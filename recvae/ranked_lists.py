"""Ranked items and the targets of their users: what every ranking metric is computed from.

Letters in shape comments: U users, I items, k ranks.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from recvae.errors import UsageError
from recvae.interactions import as_interactions
from recvae.items import check_k

Targets = Any  # a scipy sparse matrix of any format, of which scipy has no common type that checkers know


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
    """

    ranked: np.ndarray
    hits: np.ndarray
    n_targets: np.ndarray
    targets: sp.csr_matrix

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


def look_up(ranked: np.ndarray, targets: Targets, k: int) -> RankedLists:
    """Check ranked items and targets, and look up which of the first k are targets.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, >= k), integer
        Item columns, best first, each once; -1 where a list ended, which never is a target.
    targets : scipy sparse matrix of shape (n_users, n_items)
        Entries above 0 are the targets.
    k : int
        Number of ranks that count, >= 1.

    Raises
    ------
    UsageError
        If k is not a whole number >= 1, or above the ranks given, the shapes do not fit, the ranked items are not whole
        numbers in range, or a list has an item twice.
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
    first = _checked(ranked[:, :k], targets.shape[1])  # (U, k)
    n_items = targets.shape[1]
    rows = np.repeat(np.arange(targets.shape[0], dtype=np.int64), np.diff(targets.indptr))
    wanted = rows * n_items + targets.indices  # each target as one number, ascending
    counts = np.diff(targets.indptr).astype(np.float64)  # (U,)
    n_targets = np.where(counts > 0, counts, np.nan)  # (U,)
    if not len(wanted):
        return RankedLists(first, np.zeros(first.shape, dtype=bool), n_targets, targets)
    keys = np.arange(len(first), dtype=np.int64)[:, None] * n_items + first  # (U, k)
    place = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
    return RankedLists(first, (wanted[place] == keys) & (first >= 0), n_targets, targets)


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
