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

Ranking is always over all items. Users without a target have NaN and are left out of means. Lists with an item twice
are refused. A new metric is a function of `RankedLists` and an entry in `METRICS`; your own needs neither: `Metric`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError
from recvae.items import check_k
from recvae.ranked_lists import RankedLists, Targets, look_up
from recvae.user_code import import_object

MetricFunction = Callable[[np.ndarray, sp.csr_matrix, int], Any]
"""(ranked (n_users, k), targets (n_users, n_items), k) -> one float per user; see `Metric`."""

# Letters in shape comments: U users, I items, k ranks.


def _recall(lists: RankedLists) -> np.ndarray:
    return lists.hits.sum(axis=1) / np.minimum(lists.k, lists.n_targets)


def _recall_all(lists: RankedLists) -> np.ndarray:
    return lists.hits.sum(axis=1) / lists.n_targets


def _ndcg(lists: RankedLists) -> np.ndarray:
    discount = 1 / np.log2(np.arange(2, lists.k + 2))  # (k,)
    ideal = np.append(np.nan, np.cumsum(discount))  # (k + 1,) by number of hits
    n_ideal = np.minimum(lists.k, np.nan_to_num(lists.n_targets)).astype(np.int64)  # (U,)
    return (lists.hits @ discount) / ideal[n_ideal]


def _precision(lists: RankedLists) -> np.ndarray:
    return lists.of_users_with_targets(lists.hits.sum(axis=1) / lists.k)


def _hit_rate(lists: RankedLists) -> np.ndarray:
    return lists.of_users_with_targets(np.asarray(lists.hits.any(axis=1)))


def _average_precision(lists: RankedLists) -> np.ndarray:
    precision = np.cumsum(lists.hits, axis=1) / np.arange(1, lists.k + 1)  # (U, k)
    return (lists.hits * precision).sum(axis=1) / np.minimum(lists.k, lists.n_targets)


def _reciprocal_rank(lists: RankedLists) -> np.ndarray:
    rank = lists.hits.argmax(axis=1) + 1  # (U,) of the first hit
    return lists.of_users_with_targets(np.where(lists.hits.any(axis=1), 1 / rank, 0.0))


def _coverage(lists: RankedLists) -> float:
    n_items = lists.targets.shape[1]
    listed = np.zeros(n_items + 1, dtype=bool)  # (I + 1,); -1, where a list ended, marks the one too many
    listed[lists.ranked] = True
    return np.count_nonzero(listed[:-1]) / n_items


@dataclass(frozen=True)
class Definition:
    """How a metric is computed: one value per user, NaN where there is no target, or one value for all of them."""

    function: Callable[[RankedLists], Any]
    is_per_user: bool = True


METRICS = {
    "recall": Definition(_recall),
    "recall_all": Definition(_recall_all),
    "ndcg": Definition(_ndcg),
    "precision": Definition(_precision),
    "hit_rate": Definition(_hit_rate),
    "map": Definition(_average_precision),
    "mrr": Definition(_reciprocal_rank),
    "coverage": Definition(_coverage, is_per_user=False),
}
"""All metrics by name."""

NAMES = tuple(METRICS)


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
    >>> targets = sp.csr_matrix([[0, 1, 1, 0]])
    >>> recall_at_k(np.array([[1, 3]]), targets, k=2)
    array([0.5])
    """
    return _recall(look_up(ranked, targets, k))


def recall_all_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return hits / n_targets, the recall of RecBole and LightGCN; below 1 by necessity where n_targets > k.

    Parameters, returns and errors are those of `recall_at_k`.
    """
    return _recall_all(look_up(ranked, targets, k))


def ndcg_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the discounted gain over that of min(k, n_targets) hits at the top.

    Otherwise as `recall_at_k`. Gains are binary, the discount of rank j is 1 / log2(j + 1).

    References
    ----------
    Liang et al. 2018, section 4.2; ideal truncated at min(k, n_targets) as in their code.
    """
    return _ndcg(look_up(ranked, targets, k))


def precision_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return hits / k. Parameters, returns and errors are those of `recall_at_k`."""
    return _precision(look_up(ranked, targets, k))


def hit_rate_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return 1 where any of the first k is a target, else 0. Otherwise as `recall_at_k`."""
    return _hit_rate(look_up(ranked, targets, k))


def average_precision_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return the mean of precision at each hit, over min(k, n_targets). Otherwise as `recall_at_k`."""
    return _average_precision(look_up(ranked, targets, k))


def reciprocal_rank_at_k(ranked: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """Return 1 / rank of the first hit, 0 without one in the first k. Otherwise as `recall_at_k`."""
    return _reciprocal_rank(look_up(ranked, targets, k))


def coverage_at_k(ranked: np.ndarray, targets: Targets, k: int) -> float:
    """Return the share of all items that appear in anyone's first k, in [0, 1].

    Parameters and errors are those of `recall_at_k`; `targets` only gives the number of items.
    """
    return _coverage(look_up(ranked, targets, k))


@dataclass(frozen=True)
class Metric:
    """A metric and its cut-off, written `name@k`.

    Parameters
    ----------
    name : str
        One of `NAMES`, or the name of your own.
    k : int
        Number of ranks that count, >= 1.
    function : callable, optional
        Your own: (ranked, targets, k) -> one float per user. `ranked` has shape (n_users, k), int64: item columns, best
        first, -1 where a list ended. `targets` is a csr_matrix of shape (n_users, n_items). What is returned for users
        without a target does not matter.

    Raises
    ------
    UsageError
        If the name is unknown, your own has the name of another metric, or k is not a whole number >= 1.

    Examples
    --------
    >>> def first_hit(ranked, targets, k):
    ...     return [float(targets[user, items[0]] > 0) for user, items in enumerate(ranked)]
    >>> Metric("first_hit", 2, first_hit).per_user(np.array([[1, 0], [1, 0]]), sp.csr_matrix([[0, 1], [1, 0]]))
    array([1., 0.])
    """

    name: str
    k: int
    function: MetricFunction | None = None

    def __post_init__(self) -> None:
        check_k(self.k)
        if self.function is None and self.name not in METRICS:
            raise UsageError(f"got metric '{self.name}', expected one of: {', '.join(NAMES)}; or pass its function")
        if self.function is not None and self.name in METRICS:
            raise UsageError(f"got your own metric called {self.name}, a name that recvae uses; choose another name")
        if self.function is not None and not callable(self.function):
            raise UsageError(
                f"got a {type(self.function).__name__} for the metric {self}, expected a function: "
                "(ranked, targets, k) -> one float per user"
            )

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"

    @property
    def is_per_user(self) -> bool:
        """Whether it has one value per user, and so an interval."""
        return self.function is not None or METRICS[self.name].is_per_user

    def per_user(self, ranked: np.ndarray, targets: Targets) -> np.ndarray:
        """Return one value per user, shape (n_users,), NaN where a user has no target."""
        return self.of(look_up(ranked, targets, self.k))

    def of(self, lists: RankedLists) -> Any:
        """Return the values of lists of at least k ranks: one per user, or one for all."""
        first = lists.first(self.k)
        return METRICS[self.name].function(first) if self.function is None else _own_values(self, first)


def _own_values(metric: Metric, lists: RankedLists) -> np.ndarray:
    """Call a user's own function, and refuse what is not one number per user who has a target."""
    assert metric.function is not None
    n_users = len(lists.ranked)
    expected = f"expected ({n_users},), one float per user"
    try:
        found = metric.function(lists.ranked.copy(), lists.targets.copy(), metric.k)  # which may be changed there
        values = np.asarray(found, dtype=np.float64)
    except Exception as error:
        raise UsageError(
            f"the metric {metric} failed with {type(error).__name__}: {error}; it was called with ranked items of "
            f"shape {lists.ranked.shape}, targets of shape {lists.targets.shape} and k={metric.k}; fix the function"
        ) from error
    if values.shape != (n_users,):
        raise UsageError(f"got values of shape {values.shape} from the metric {metric}, {expected}; fix the function")
    wrong = np.count_nonzero(~np.isfinite(values) & ~np.isnan(lists.n_targets))
    if wrong:
        raise UsageError(
            f"got NaN or infinity from the metric {metric} for {wrong:,} users who have a target, expected numbers; "
            "return 0 where nothing was found"
        )
    return lists.of_users_with_targets(values)


def measure(
    metrics: str | Sequence[str | Metric], ranked: np.ndarray, targets: Targets
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return several metrics of the same lists; targets are looked up in them once, for all metrics.

    Parameters
    ----------
    metrics : str or sequence of str and Metric
        At least one; see `parse_metrics`.
    ranked : ndarray of shape (n_users, >= the largest k), integer
        Item columns, best first, each once; -1 where a list ended.
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
        As `recall_at_k` and `parse_metrics`; also if your own metric fails.
    """
    wanted = parse_metrics(metrics)
    lists = look_up(ranked, targets, max(metric.k for metric in wanted))
    per_user = {str(metric): metric.of(lists) for metric in wanted if metric.is_per_user}
    overall = {str(metric): metric.of(lists) for metric in wanted if not metric.is_per_user}
    return per_user, overall


def parse_metrics(given: str | Sequence[str | Metric]) -> list[Metric]:
    """Return the metrics written as "recall@20,ndcg@100,my_module:serendipity@10", in the order given.

    Parameters
    ----------
    given : str or sequence of str and Metric
        Names with their cut-off, separated by commas; each counts once. MODULE:FUNCTION imports your own, see `Metric`.

    Raises
    ------
    UsageError
        If there is none, a metric is unknown, its cut-off is not a whole number >= 1, or your own cannot be imported.

    Examples
    --------
    >>> [str(metric) for metric in parse_metrics("recall@20, ndcg@100")]
    ['recall@20', 'ndcg@100']
    """
    words = given.split(",") if isinstance(given, str) else list(given)
    metrics: dict[str, Metric] = {}
    for metric in (word if isinstance(word, Metric) else _parse_metric(word) for word in words):
        known = metrics.setdefault(str(metric), metric)
        if known.function is not metric.function:
            raise UsageError(f"got two metrics called {metric}, expected a name of its own for each; rename a function")
    if not metrics:
        raise UsageError("got no metric, expected at least one, such as recall@20")
    return list(metrics.values())


def _parse_metric(word: Any) -> Metric:
    """Read one metric."""
    if not isinstance(word, str):
        raise UsageError(
            f"got a {type(word).__name__} among the metrics, expected a text such as 'ndcg@10', or "
            "Metric('my_metric', 10, my_function) for your own"
        )
    name, _, cutoff = (part.strip() for part in word.partition("@"))
    is_own = ":" in name
    name = name if is_own else name.lower()
    word = f"{name}@{cutoff}" if "@" in word else name
    if not is_own and name not in NAMES:
        close = get_close_matches(name, NAMES, n=1)
        known = f"known: {', '.join(NAMES)}; your own: MODULE:FUNCTION@K"
        hint = f"did you mean {close[0]}@{cutoff or 10}?" if close else known
        raise UsageError(f"got metric '{word}', expected NAME@K such as recall@20; {hint}")
    if not cutoff.isdecimal() or int(cutoff) < 1:
        raise UsageError(f"got metric '{word}', expected a whole number after the @, such as {name}@20")
    function = import_object(name, "metric") if is_own else None
    return Metric(name.partition(":")[2] if is_own else name, int(cutoff), function)
