"""How well targets were found: recall, NDCG and the like, one value per user.

Letters in shape comments: U users, k ranks.
"""

import numpy as np

from recvae.ranked_lists import RankedLists, Targets, look_up


def recall(lists: RankedLists) -> np.ndarray:
    """Return hits / min(k, n_targets), shape (n_users,)."""
    return lists.hits.sum(axis=1) / np.minimum(lists.k, lists.n_targets)


def recall_all(lists: RankedLists) -> np.ndarray:
    """Return hits / n_targets, shape (n_users,)."""
    return lists.hits.sum(axis=1) / lists.n_targets


def ndcg(lists: RankedLists) -> np.ndarray:
    """Return the discounted gain over that of the best list, shape (n_users,)."""
    discount = 1 / np.log2(np.arange(2, lists.k + 2))  # (k,)
    ideal = np.append(np.nan, np.cumsum(discount))  # (k + 1,) by number of hits
    n_ideal = np.minimum(lists.k, np.nan_to_num(lists.n_targets)).astype(np.int64)  # (U,)
    return (lists.hits @ discount) / ideal[n_ideal]


def precision(lists: RankedLists) -> np.ndarray:
    """Return hits / k, shape (n_users,)."""
    return lists.of_users_with_targets(lists.hits.sum(axis=1) / lists.k)


def hit_rate(lists: RankedLists) -> np.ndarray:
    """Return 1 where there is a hit, else 0, shape (n_users,)."""
    return lists.of_users_with_targets(np.asarray(lists.hits.any(axis=1)))


def average_precision(lists: RankedLists) -> np.ndarray:
    """Return the sum of precision at each hit / min(k, n_targets), shape (n_users,)."""
    precision = np.cumsum(lists.hits, axis=1) / np.arange(1, lists.k + 1)  # (U, k)
    return (lists.hits * precision).sum(axis=1) / np.minimum(lists.k, lists.n_targets)


def reciprocal_rank(lists: RankedLists) -> np.ndarray:
    """Return 1 / rank of the first hit, 0 without one, shape (n_users,)."""
    rank = lists.hits.argmax(axis=1) + 1  # (U,) of the first hit
    return lists.of_users_with_targets(np.where(lists.hits.any(axis=1), 1 / rank, 0.0))


def recall_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the share of reachable targets among the first k: hits / min(k, n_targets).

    Parameters
    ----------
    ranked : ndarray of shape (n_users, >= k), integer
        Item columns, best first, each once; -1 where a list ended.
    targets : scipy sparse matrix of shape (n_users, n_items)
        Entries above 0 are the targets.
    k : int
        Number of ranks that count, >= 1.

    Returns
    -------
    ndarray of shape (n_users,), float64
        Values in [0, 1]; NaN where a user has no target.

    Raises
    ------
    UsageError, DataError
        See `recvae.ranked_lists.look_up`.

    References
    ----------
    Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018, eq. 8.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> targets = sp.csr_matrix([[0, 1, 1, 0]])
    >>> recall_at_k(np.array([[1, 3]]), targets, k=2)
    array([0.5])
    """
    return recall(look_up(ranked, targets, k))


def recall_all_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return hits / n_targets, the recall of RecBole and LightGCN; below 1 by necessity where n_targets > k.

    Parameters, returns and errors are those of `recall_at_k`.
    """
    return recall_all(look_up(ranked, targets, k))


def ndcg_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the discounted gain over that of min(k, n_targets) hits at the top.

    Otherwise as `recall_at_k`. Gains are binary, the discount of rank j is 1 / log2(j + 1).

    References
    ----------
    Liang et al. 2018, section 4.2; ideal truncated at min(k, n_targets) as in their code.
    """
    return ndcg(look_up(ranked, targets, k))


def precision_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return hits / k. Parameters, returns and errors are those of `recall_at_k`."""
    return precision(look_up(ranked, targets, k))


def hit_rate_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return 1 where any of the first k is a target, else 0. Otherwise as `recall_at_k`."""
    return hit_rate(look_up(ranked, targets, k))


def average_precision_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the mean of precision at each hit, over min(k, n_targets). Otherwise as `recall_at_k`."""
    return average_precision(look_up(ranked, targets, k))


def reciprocal_rank_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return 1 / rank of the first hit, 0 without one in the first k. Otherwise as `recall_at_k`."""
    return reciprocal_rank(look_up(ranked, targets, k))
