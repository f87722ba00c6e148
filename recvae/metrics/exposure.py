"""What all lists together show of the catalogue: item coverage and the Gini index, with a bootstrap over users.

With c_i lists that show item i, ascending, and n items:

    coverage    items with c_i > 0 / n
    gini        sum_i (2 i - n - 1) c_i / (n sum_i c_i): 0 if all are shown equally often, (n - 1) / n if only one is

Fleder & Hosanagar, "Blockbuster Culture's Next Rise or Fall", Management Science 55, 2009, have the Gini index for
recommendations; the formula is that of RecBole's `giniindex` too.

All lists count, also those of users without a target.

Letters in shape comments: U users, I items, R resamples at a time.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from recvae.ranked_lists import RankedLists, Targets, look_up

N_RESAMPLES = 1000
_SEED = 0
BLOCK_BYTES = 24 << 20

Exposure = Callable[[np.ndarray], np.ndarray]
"""How many lists show each item, shape (n_items, n_resamples) -> a value for each resample, shape (n_resamples,)."""


def coverage(shown: np.ndarray) -> np.ndarray:
    """Return the share of items that any list shows, by resample."""
    return np.count_nonzero(shown, axis=0) / len(shown)


def gini(shown: np.ndarray) -> np.ndarray:
    """Return how unequally the lists show the items, by resample; 0 where they show none."""
    n_items = len(shown)
    ascending = np.sort(shown, axis=0)  # (I, R)
    total = shown.sum(axis=0)  # (R,)
    weighted = (2 * np.arange(1, n_items + 1) - n_items - 1) @ ascending  # (R,)
    return np.divide(weighted, n_items * total, out=np.zeros(len(total)), where=total > 0)


def of_all(function: Exposure, lists: RankedLists) -> float:
    """Return a value of all lists."""
    shown = np.bincount(lists.ranked[lists.ranked >= 0], minlength=lists.targets.shape[1])  # (I,)
    return float(function(shown[:, None].astype(np.float64))[0])


def resampled(function: Exposure, lists: RankedLists, n_resamples: int = N_RESAMPLES) -> np.ndarray:
    """Return the values of lists of users drawn again with replacement; the same draws for every model.

    Parameters
    ----------
    function : callable
        `coverage` or `gini`.
    lists : RankedLists
        Of at least one user.
    n_resamples : int
        How many times all users are drawn.

    Returns
    -------
    ndarray of shape (n_resamples,), float64
        Their standard deviation is the standard error of the value. Their mean is no estimate of it: a resample has
        63 % of the users, who reach fewer items.
    """
    n_users, n_items = len(lists.ranked), lists.targets.shape[1]
    shows = rows_of(lists).T.tocsr()  # (I, U)
    generator = np.random.default_rng(_SEED)
    values = np.empty(n_resamples)
    at_once = max(1, BLOCK_BYTES // (8 * (n_items + n_users)))
    for start in range(0, n_resamples, at_once):
        n = min(at_once, n_resamples - start)
        drawn = generator.integers(n_users, size=(n, n_users)) + n_users * np.arange(n)[:, None]  # (R, U)
        times = np.bincount(drawn.ravel(), minlength=n * n_users).reshape(n, n_users)  # (R, U)
        values[start : start + n] = function(shows @ times.T.astype(np.float64))  # (I, R) -> (R,)
    return values


def rows_of(lists: RankedLists) -> sp.csr_matrix:
    """Return lists as a matrix (U, I) that has 1 where a list shows an item."""
    found = lists.ranked >= 0  # (U, k)
    starts = np.append(0, np.cumsum(found.sum(axis=1)))
    columns = lists.ranked[found]
    rows = sp.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, starts), shape=lists.targets.shape)
    rows.sort_indices()
    return rows


def coverage_at_k(ranked: np.ndarray, targets: Targets, k: int) -> float:
    """Return the share of all items that appear in anyone's first k, in [0, 1].

    Parameters and errors are those of `recall_at_k`; `targets` only gives the number of items.
    """
    return of_all(coverage, look_up(ranked, targets, k))


def gini_at_k(ranked: np.ndarray, targets: Targets, k: int) -> float:
    """Return how unequally the items appear in anyone's first k: 0 for all alike, (n_items - 1) / n_items for only one.

    Parameters and errors are those of `recall_at_k`; `targets` only gives the number of items.
    """
    return of_all(gini, look_up(ranked, targets, k))
