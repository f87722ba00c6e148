"""What lists are besides right: popular or novel, of the tail, diverse, like the user's history. One value per user.

With p(i) the share of training users who have item i, and list(u) the first k items of user u:

    novelty                   mean of -log2 p(i) over the list, in bits: Zhou et al. 2010; Castells et al. 2015
    average_popularity        mean number of training users over the list: Yin et al. 2012 (ARP), RecBole
    relative_popularity       mean p(i) over the list
    tail_share                share of the list that is in the tail
    tail_recall               hits in the tail / min(k, targets in the tail)
    diversity                 1 - mean cosine of two items of the list: the items' columns of the training data
    feature_diversity         the same with the items' features
    popularity_miscalibration Jensen-Shannon divergence, base 2, between the shares of popular, medium and rare items
                              in the history and in the list: Abdollahpouri et al. 2021
    feature_miscalibration    Kullback-Leibler divergence of Steck 2018 between the shares of features in both

The tail is all items but the 20 % with the most training users. Popular items are the most popular ones that together
have 20 % of the training interactions, rare items the least popular ones that have the last 20 %.

A list without items has no value (NaN), but a tail_recall of 0. For novelty, an item that no training user has counts
as if one had it.

Letters in shape comments: U users, B users of a block, I items, D dimensions of item vectors, F features, k ranks.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError
from recvae.interactions import StoredRows
from recvae.metrics.exposure import BLOCK_BYTES, rows_of
from recvae.ranked_lists import Background, RankedLists

HEAD_SHARE = 0.2  # of the items: the short head; all others are the tail
GROUPS = {"popular": 0.2, "medium": 0.6, "rare": 0.2}  # shares of the training interactions
_SMOOTHING = 0.01  # alpha of Steck 2018, eq. 3


def novelty(lists: RankedLists) -> np.ndarray:
    """Return the mean self-information of a list's items in bits, shape (n_users,)."""
    known = background_of(lists)
    return _mean_of_list(lists, -np.log2(np.maximum(known.counts, 1) / known.n_train_users))


def average_popularity(lists: RankedLists) -> np.ndarray:
    """Return the mean number of training users of a list's items, shape (n_users,)."""
    return _mean_of_list(lists, background_of(lists).counts.astype(np.float64))


def relative_popularity(lists: RankedLists) -> np.ndarray:
    """Return the mean share of the training users that have a list's items, shape (n_users,)."""
    known = background_of(lists)
    return _mean_of_list(lists, known.counts / known.n_train_users)


def tail_share(lists: RankedLists) -> np.ndarray:
    """Return the share of a list's items that are in the tail, shape (n_users,)."""
    return _mean_of_list(lists, is_tail(background_of(lists)).astype(np.float64))


def tail_recall(lists: RankedLists) -> np.ndarray:
    """Return the recall of the targets in the tail, shape (n_users,); NaN for users who have none there."""
    tail, targets = is_tail(background_of(lists)), lists.targets
    rows = np.repeat(np.arange(targets.shape[0]), np.diff(targets.indptr))
    n_tail = np.bincount(rows[tail[targets.indices]], minlength=targets.shape[0])  # (U,)
    hits = (lists.hits & tail[lists.ranked]).sum(axis=1)  # (U,); where a list ended is no hit
    reachable = np.minimum(lists.k, n_tail)
    return np.divide(hits, reachable, out=np.full(len(hits), np.nan), where=reachable > 0)


def is_tail(known: Background) -> np.ndarray:
    """Return which items are not in the short head, shape (n_items,), bool."""
    tail = np.ones(known.n_items, dtype=bool)
    tail[known.by_popularity[: round(HEAD_SHARE * known.n_items)]] = False
    return tail


def group_of_items(known: Background) -> np.ndarray:
    """Return the place in `GROUPS` of each item, shape (n_items,), int64: 0 popular, 1 medium, 2 rare."""
    counts = known.counts[known.by_popularity]
    before = np.append(0, np.cumsum(counts)[:-1])  # (I,) interactions of more popular items
    borders = np.cumsum(list(GROUPS.values()))[:-1] * counts.sum()
    groups = np.empty(known.n_items, dtype=np.int64)
    groups[known.by_popularity] = np.searchsorted(borders, before, side="right")
    return groups


def diversity(lists: RankedLists) -> np.ndarray:
    """Return 1 - the mean cosine of two of a list's items in the training data, shape (n_users,)."""
    train = background_of(lists).train
    if isinstance(train, StoredRows):
        raise UsageError(
            "got diversity with training rows that lie on disk (stream=True), which it needs in memory; load the data "
            "set without stream=True, or leave it out"
        )
    return _diversity(lists, _unit_rows(sp.csr_matrix(train.T, copy=True), binary=True))


def feature_diversity(lists: RankedLists) -> np.ndarray:
    """Return 1 - the mean cosine of the features of two of a list's items, shape (n_users,).

    Features that are 0 or 1 count, such as genres; all of them, e.g. embeddings, where there are no such ones.
    """
    features = features_of(lists)
    words = _words(features)
    chosen = words if words.shape[1] else sp.csr_matrix(features, copy=True)
    return _diversity(lists, _unit_rows(chosen, binary=False))


def popularity_miscalibration(lists: RankedLists) -> np.ndarray:
    """Return how much the popularity of a list's items is unlike that of the history, shape (n_users,), in [0, 1]."""
    known = background_of(lists)
    groups = group_of_items(known)
    one_hot = sp.csr_matrix(
        (np.ones(len(groups)), groups, np.arange(len(groups) + 1)), shape=(len(groups), len(GROUPS))
    )
    history, shown = _shares(known.fold_in, one_hot), _shares(rows_of(lists), one_hot)  # (U, 3), (U, 3)
    middle = (history + shown) / 2
    return lists.of_users_with_targets((_relative(history, middle) + _relative(shown, middle)) / (2 * np.log(2)))


def feature_miscalibration(lists: RankedLists) -> np.ndarray:
    """Return how much the features of a list's items are unlike those of the history, shape (n_users,), >= 0.

    Features that are 0 or 1 count, such as genres. An item with several has an equal share of each.
    """
    words = _words(features_of(lists))
    if not words.shape[1]:
        raise UsageError(
            "got no feature that is 0 or 1 for feature_miscalibration, expected words such as genres; numbers and "
            "embeddings have no shares"
        )
    of_item = _over_rows(words)
    values = np.full(len(lists.ranked), np.nan)
    shows, history = rows_of(lists), background_of(lists).fold_in
    for users in _blocks(lists, of_item.shape[1]):
        before, shown = _shares(history[users], of_item), _shares(shows[users], of_item)  # (B, F), (B, F)
        shown = np.where(np.isnan(shown), 0.0, shown)  # nothing is known of a list's items: as unlike as can be
        values[users] = _relative(before, (1 - _SMOOTHING) * shown + _SMOOTHING * before)
    return np.where((lists.ranked >= 0).any(axis=1), values, np.nan)


def background_of(lists: RankedLists) -> Background:
    """Return what is known beside the lists."""
    assert lists.background is not None  # `Metric.of` has refused it
    return lists.background


def features_of(lists: RankedLists) -> sp.csr_matrix:
    """Return the features of the items as sparse rows (I, F)."""
    return sp.csr_matrix(background_of(lists).features)


def _mean_of_list(lists: RankedLists, values: np.ndarray) -> np.ndarray:
    """Return the mean of a value of items (I,) over each list, (U,)."""
    found = lists.ranked >= 0  # (U, k)
    n, total = found.sum(axis=1), np.where(found, values[lists.ranked], 0.0).sum(axis=1)
    return lists.of_users_with_targets(np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0))


def _diversity(lists: RankedLists, vectors: sp.csr_matrix) -> np.ndarray:
    """Return 1 - the mean cosine of two items of each list, (U,); 0 where fewer than two have a vector.

    The length of the sum of n unit vectors has all cosines in it: |sum|^2 = n + 2 * the sum over pairs.
    """
    has_vector = np.diff(vectors.indptr) > 0  # (I,)
    shows = rows_of(lists)
    values = np.full(len(lists.ranked), np.nan)
    for users in _blocks(lists, vectors.shape[1]):
        rows = shows[users]
        n = rows @ has_vector.astype(np.float64)  # (B,)
        total = rows @ vectors  # (B, D)
        squared = np.asarray(total.multiply(total).sum(axis=1), dtype=np.float64).ravel()  # (B,)
        pairs = n * (n - 1)
        cosine = np.divide(squared - n, pairs, out=np.ones(len(n)), where=pairs > 0)
        values[users] = np.where(np.diff(rows.indptr) == 0, np.nan, np.maximum(1 - cosine, 0.0))
    return values


def _unit_rows(matrix: sp.csr_matrix, *, binary: bool) -> sp.csr_matrix:
    """Return rows of length 1, or of 0 where nothing is stored; the matrix is used up."""
    matrix.eliminate_zeros()
    matrix = matrix.astype(np.float64)
    if binary:
        matrix.data[:] = 1
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())  # (I,)
    matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
    return matrix


def _words(features: sp.csr_matrix) -> sp.csr_matrix:
    """Return the features (I, F) of which every value is 0 or 1."""
    other = np.unique(features.indices[(features.data != 0) & (features.data != 1)])
    return sp.csr_matrix(features[:, np.setdiff1d(np.arange(features.shape[1]), other)])


def _over_rows(words: sp.csr_matrix) -> sp.csr_matrix:
    """Return the share of each feature in each item, rows that add up to 1, or to 0 where an item has none."""
    words = words.astype(np.float64)
    words.eliminate_zeros()
    words.data /= np.repeat(np.diff(words.indptr), np.diff(words.indptr))
    return words


def _shares(items: sp.csr_matrix, of_item: sp.csr_matrix) -> np.ndarray:
    """Return the mean of shares (I, F) over the items of each row (B, I): (B, F), NaN where none has any."""
    present = sp.csr_matrix((np.ones(items.nnz), items.indices, items.indptr), shape=items.shape)
    total = (present @ of_item).toarray()  # (B, F)
    n = total.sum(axis=1, keepdims=True)  # (B, 1) items that have any
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _relative(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence (B,) in nats of shares from others that are above 0 where they are."""
    ratio = np.divide(one, other, out=np.ones_like(one), where=one > 0)  # a share of 0 adds nothing
    divergence = (one * np.log(ratio)).sum(axis=1)
    return np.maximum(divergence, 0.0)  # below only by rounding; NaN stays


def _blocks(lists: RankedLists, width: int) -> Iterator[np.ndarray]:
    """Yield rows of users that have a target, so many that 24 bytes for each and a width fit into a block."""
    users = np.flatnonzero(~np.isnan(lists.n_targets))
    at_once = max(1, BLOCK_BYTES // (24 * max(1, width)))
    for start in range(0, len(users), at_once):
        yield users[start : start + at_once]
