"""Ranking metrics on numpy: ranked items and targets in, one value per user out.

With n targets of a user and hit(j) = 1 where the item at rank j (from 1) is a target:

    recall@k       hits in the first k / min(k, n)                              Liang et al. 2018, eq. 8
    recall_all@k   hits in the first k / n                                      RecBole, LightGCN
    ndcg@k         sum_j hit(j) / log2(j + 1), over its value for min(k, n) hits at the top
    precision@k    hits in the first k / k
    hit_rate@k     1 if there is any hit in the first k
    map@k          sum_j hit(j) * precision@j / min(k, n)
    mrr@k          1 / rank of the first hit, 0 without one
    coverage@k     share of all items that are in anyone's first k: one value for the whole, not per user

Ranking is always over all items. Users without a target have NaN and are left out of means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError
from recvae.interactions import as_interactions
from recvae.items import check_k

Targets = Any  # a scipy sparse matrix of any format, of which scipy has no common type that checkers know

# Letters in shape comments: U users, I items, k ranks.


def _hits(ranked: np.ndarray, targets: Targets, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the first k ranked items are targets, (U, k) bool; -1 never is.

    And the number of targets of each user, (U,) float, NaN where there is none.
    """
    check_k(k)
    ranked = np.asarray(ranked)
    nobody = sp.issparse(targets) and cast(Any, targets).shape[0] == 0  # to rank for nobody is no mistake
    targets = sp.csr_matrix(cast(Any, targets)) if nobody else as_interactions(targets, "the targets")
    if ranked.ndim != 2 or ranked.shape[1] < k or ranked.shape[0] != targets.shape[0]:
        raise UsageError(
            f"got ranked items of shape {ranked.shape} for {targets.shape[0]} users and k={k}, "
            f"expected shape ({targets.shape[0]}, {k} or more); rank more items or lower k"
        )
    first = ranked[:, :k].astype(np.int64)  # (U, k)
    if first.size and (first.max() >= targets.shape[1] or first.min() < -1):
        raise UsageError(
            f"got ranked items from {first.min()} to {first.max()}, expected item columns from 0 to "
            f"{targets.shape[1] - 1}, or -1 where a list ended"
        )
    n_items = targets.shape[1]
    rows = np.repeat(np.arange(targets.shape[0], dtype=np.int64), np.diff(targets.indptr))
    wanted = rows * n_items + targets.indices  # each target as one number, ascending
    counts = np.diff(targets.indptr).astype(np.float64)  # (U,)
    n_targets = np.where(counts > 0, counts, np.nan)  # (U,)
    if not len(wanted):
        return np.zeros(first.shape, dtype=bool), n_targets
    keys = np.arange(len(first), dtype=np.int64)[:, None] * n_items + first  # (U, k)
    place = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
    return (wanted[place] == keys) & (first >= 0), n_targets


def _recall(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    return hits.sum(axis=1) / np.minimum(hits.shape[1], n_targets)


def _recall_all(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    return hits.sum(axis=1) / n_targets


def _ndcg(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    k = hits.shape[1]
    discount = 1 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.append(np.nan, np.cumsum(discount))  # (k + 1,) by number of hits
    n_ideal = np.minimum(k, np.nan_to_num(n_targets)).astype(np.int64)  # (U,)
    return (hits @ discount) / ideal[n_ideal]


def _precision(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(n_targets), np.nan, hits.sum(axis=1) / hits.shape[1])


def _hit_rate(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(n_targets), np.nan, hits.any(axis=1))


def _average_precision(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    k = hits.shape[1]
    precision = np.cumsum(hits, axis=1) / np.arange(1, k + 1)  # (U, k)
    return (hits * precision).sum(axis=1) / np.minimum(k, n_targets)


def _reciprocal_rank(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    value = np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)
    return np.where(np.isnan(n_targets), np.nan, value)


_OF_HITS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "recall": _recall,
    "recall_all": _recall_all,
    "ndcg": _ndcg,
    "precision": _precision,
    "hit_rate": _hit_rate,
    "map": _average_precision,
    "mrr": _reciprocal_rank,
}
"""Each metric per user: from hits in the first k (U, k) and numbers of targets (U,) to values (U,)."""


def recall_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the share of reachable targets among the first k: hits / min(k, n_targets).

    Parameters
    ----------
    ranked : ndarray of shape (n_users, >= k), integer
        Item columns, best first; -1 where a list ended.
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
    UsageError
        If k is not a whole number >= 1, or above the ranks given, or the shapes do not fit.
    DataError
        If `targets` are not sparse, or hold a value that is negative, NaN or infinite.

    References
    ----------
    Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018, eq. 8.

    Examples
    --------
    >>> targets = sp.csr_matrix([[0, 1, 1, 0]])
    >>> recall_at_k(np.array([[1, 3]]), targets, k=2)
    array([0.5])
    """
    return _recall(*_hits(ranked, targets, k))


def recall_all_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return hits / n_targets, the recall of RecBole and LightGCN; below 1 by necessity where n_targets > k.

    Parameters, returns and errors are those of `recall_at_k`.
    """
    return _recall_all(*_hits(ranked, targets, k))


def ndcg_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the discounted gain over that of min(k, n_targets) hits at the top.

    Parameters, returns and errors are those of `recall_at_k`. Gains are binary, the discount of rank j is
    1 / log2(j + 1).

    References
    ----------
    Liang et al. 2018, section 4.2; ideal truncated at min(k, n_targets) as in their code.
    """
    return _ndcg(*_hits(ranked, targets, k))


def precision_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return hits / k. Parameters, returns and errors are those of `recall_at_k`."""
    return _precision(*_hits(ranked, targets, k))


def hit_rate_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return 1 where any of the first k is a target, else 0. Otherwise as `recall_at_k`."""
    return _hit_rate(*_hits(ranked, targets, k))


def average_precision_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the mean of precision at each hit, over min(k, n_targets). Otherwise as `recall_at_k`."""
    return _average_precision(*_hits(ranked, targets, k))


def reciprocal_rank_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return 1 / rank of the first hit, 0 without one in the first k. Otherwise as `recall_at_k`."""
    return _reciprocal_rank(*_hits(ranked, targets, k))


def coverage_at_k(ranked: np.ndarray, targets: Targets, k: int) -> float:
    """Return the share of all items that appear in anyone's first k, in [0, 1].

    Parameters and errors are those of `recall_at_k`; `targets` only gives the number of items.
    """
    _hits(ranked, targets, k)  # the same checks
    return _coverage(np.asarray(ranked)[:, :k], targets.shape[1])


def _coverage(ranked: np.ndarray, n_items: int) -> float:
    listed = np.zeros(n_items + 1, dtype=bool)  # (I + 1,); -1, where a list ended, marks the one too many
    listed[ranked] = True
    return np.count_nonzero(listed[:-1]) / n_items


PER_USER: dict[str, Callable[[np.ndarray, Targets, int], np.ndarray]] = {
    "recall": recall_at_k,
    "recall_all": recall_all_at_k,
    "ndcg": ndcg_at_k,
    "precision": precision_at_k,
    "hit_rate": hit_rate_at_k,
    "map": average_precision_at_k,
    "mrr": reciprocal_rank_at_k,
}
NAMES = (*PER_USER, "coverage")


@dataclass(frozen=True)
class Metric:
    """A metric and its cut-off, written `name@k`.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    k : int
        Number of ranks that count, >= 1.
    """

    name: str
    k: int

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"

    @property
    def is_per_user(self) -> bool:
        """Whether it has one value per user, and so an interval."""
        return self.name in PER_USER

    def per_user(self, ranked: np.ndarray, targets: Targets) -> np.ndarray:
        """Return one value per user, shape (n_users,), NaN where a user has no target."""
        return PER_USER[self.name](ranked, targets, self.k)


def measure(
    metrics: Sequence[Metric], ranked: np.ndarray, targets: Targets
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return several metrics of the same lists; targets are looked up in them once, for all metrics.

    Parameters
    ----------
    metrics : sequence of Metric
        At least one.
    ranked : ndarray of shape (n_users, >= the largest k), integer
        Item columns, best first; -1 where a list ended.
    targets : scipy sparse matrix of shape (n_users, n_items)
        Entries above 0 are the targets.

    Returns
    -------
    per_user : dict of str to ndarray of shape (n_users,), float64
        By metric; NaN where a user has no target.
    overall : dict of str to float
        Metrics over all users at once, such as coverage.

    Raises
    ------
    UsageError, DataError
        As `recall_at_k`.
    """
    hits, n_targets = _hits(ranked, targets, max(metric.k for metric in metrics))  # (U, k), (U,)
    per_user = {str(m): _OF_HITS[m.name](hits[:, : m.k], n_targets) for m in metrics if m.is_per_user}
    overall = {str(m): _coverage(ranked[:, : m.k], targets.shape[1]) for m in metrics if not m.is_per_user}
    return per_user, overall


def parse_metrics(text: str | Sequence[str]) -> list[Metric]:
    """Read metrics written as "recall@20,ndcg@100".

    Parameters
    ----------
    text : str or sequence of str
        Names with their cut-off, separated by commas; each counts once.

    Returns
    -------
    list of Metric
        In the order given.

    Raises
    ------
    UsageError
        If a metric is unknown or its cut-off is not a whole number >= 1.

    Examples
    --------
    >>> [str(metric) for metric in parse_metrics("recall@20, ndcg@100")]
    ['recall@20', 'ndcg@100']
    """
    words = text.split(",") if isinstance(text, str) else list(text)
    metrics: dict[str, Metric] = {}
    for word in (word.strip().lower() for word in words):
        name, _, cutoff = word.partition("@")
        if name not in NAMES:
            close = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {close[0]}@{cutoff or 10}?" if close else f"known: {', '.join(NAMES)}"
            raise UsageError(f"got metric '{word}', expected NAME@K such as recall@20; {hint}")
        if not cutoff.isdecimal() or int(cutoff) < 1:
            raise UsageError(f"got metric '{word}', expected a whole number after the @, such as {name}@20")
        metric = Metric(name, int(cutoff))
        metrics[str(metric)] = metric
    return list(metrics.values())
