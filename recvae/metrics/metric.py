"""All metrics by name, your own among them: written `name@k`, read from text, measured together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.errors import UsageError
from recvae.items import check_k
from recvae.metrics import accuracy, beyond, exposure
from recvae.ranked_lists import Background, RankedLists, Targets, look_up
from recvae.user_code import import_object

MetricFunction = Callable[[np.ndarray, sp.csr_matrix, int], Any]
"""(ranked (n_users, k), targets (n_users, n_items), k) -> one float per user; see `Metric`."""

HIGHER, LOWER, NEITHER = 1, -1, 0
"""Which values of a metric are better. Of NEITHER are those that say what lists are, and not how good."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """How a metric is computed, and which values of it are better.

    Parameters
    ----------
    per_user : callable, optional
        Lists -> one value per user, NaN where there is no target.
    of_all : callable, optional
        For a metric of all lists at once, in place of `per_user`; see `recvae.metrics.exposure.Exposure`.
    better : int
        HIGHER, LOWER or NEITHER.
    needs : str
        "" for lists and targets alone, "train" for a `Background` too, "features" for one with features of the items.
    """

    per_user: Callable[[RankedLists], np.ndarray] | None = None
    of_all: exposure.Exposure | None = None
    better: int = HIGHER
    needs: str = ""


METRICS = {
    "recall": Definition(per_user=accuracy.recall),
    "recall_all": Definition(per_user=accuracy.recall_all),
    "ndcg": Definition(per_user=accuracy.ndcg),
    "precision": Definition(per_user=accuracy.precision),
    "hit_rate": Definition(per_user=accuracy.hit_rate),
    "map": Definition(per_user=accuracy.average_precision),
    "mrr": Definition(per_user=accuracy.reciprocal_rank),
    "coverage": Definition(of_all=exposure.coverage),
    "gini": Definition(of_all=exposure.gini, better=LOWER),
    "novelty": Definition(per_user=beyond.novelty, better=NEITHER, needs="train"),
    "average_popularity": Definition(per_user=beyond.average_popularity, better=NEITHER, needs="train"),
    "relative_popularity": Definition(per_user=beyond.relative_popularity, better=NEITHER, needs="train"),
    "tail_share": Definition(per_user=beyond.tail_share, better=NEITHER, needs="train"),
    "tail_recall": Definition(per_user=beyond.tail_recall, needs="train"),
    "diversity": Definition(per_user=beyond.diversity, better=NEITHER, needs="train"),
    "feature_diversity": Definition(per_user=beyond.feature_diversity, better=NEITHER, needs="features"),
    "popularity_miscalibration": Definition(per_user=beyond.popularity_miscalibration, better=LOWER, needs="train"),
    "feature_miscalibration": Definition(per_user=beyond.feature_miscalibration, better=LOWER, needs="features"),
}
"""All metrics by name."""

NAMES = tuple(METRICS)


FEATURELESS = {
    "feature_diversity": " (diversity needs none)",
    "feature_miscalibration": " (popularity_miscalibration needs none)",
}


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
        without a target does not matter. While training, it is called with some of the users at a time.
    source : str
        MODULE:NAME where it was imported from because that was typed.

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
    source: str = field(default="", compare=False, repr=False)

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
    def path(self) -> str:
        """What `parse_metrics` reads: `name@k`, or `module:function@k` of your own."""
        module, name = (getattr(self.function, part, None) for part in ("__module__", "__qualname__"))
        written = f"{module}:{name}" if module and name else self.source  # which an object that can be called has not
        return f"{written or self.name}@{self.k}"

    @property
    def is_per_user(self) -> bool:
        """Whether it has one value per user; if not, it has one of all lists."""
        return self.function is not None or METRICS[self.name].per_user is not None

    @property
    def better(self) -> int:
        """Which values are better: HIGHER, of your own metrics too, LOWER or NEITHER."""
        return HIGHER if self.function is not None else METRICS[self.name].better

    @property
    def needs(self) -> str:
        """What it needs beside lists and targets; see `Definition`."""
        return "" if self.function is not None else METRICS[self.name].needs

    def per_user(self, ranked: np.ndarray, targets: Targets, background: Background | None = None) -> np.ndarray:
        """Return one value per user, shape (n_users,), NaN where a user has no target."""
        return self.of(look_up(ranked, targets, self.k, background))

    def of(self, lists: RankedLists) -> Any:
        """Return the values of lists of at least k ranks: one per user, or one for all.

        Raises
        ------
        UsageError
            See `check`; also if your own fails.
        """
        first = lists.first(self.k)
        if self.function is not None:
            return _own_values(self, first)
        self.check(lists.targets.shape[1], lists.background)
        definition = METRICS[self.name]
        if definition.per_user is not None:
            return definition.per_user(first)
        assert definition.of_all is not None  # it has one or the other
        return exposure.of_all(definition.of_all, first)

    def check(self, n_items: int, known: Background | None) -> None:
        """Refuse to measure what cannot be measured of these items.

        Raises
        ------
        UsageError
            If it needs a background or features that are not there, or lists of more items than there are.
        """
        if self.needs and known is None:
            raise UsageError(
                f"got {self} without the training interactions, which it needs; pass train=dataset.train to evaluate, "
                "or a Background"
            )
        if self.needs == "features" and (known is None or known.features is None):
            raise UsageError(
                f"got {self} for items without features, which it needs; prepare the data with --features, or leave "
                f"it out{FEATURELESS.get(self.name, '')}"
            )
        if (self.needs or self.name == "gini") and self.k > n_items:
            raise UsageError(f"got {self} for {n_items:,} items, expected a K of {n_items} or less; lower it")
        if self.name.endswith("diversity") and self.k < 2:
            raise UsageError(f"got {self}, expected a K of 2 or more: one item alone is not diverse")


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
    metrics: str | Sequence[str | Metric],
    ranked: np.ndarray,
    targets: Targets,
    background: Background | None = None,
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
    background : Background, optional
        What metrics beyond accuracy need.

    Returns
    -------
    per_user : dict of str to ndarray of shape (n_users,), float64
        By metric; NaN where a user has no target.
    overall : dict of str to float
        Metrics over all users at once, such as coverage.

    Raises
    ------
    UsageError, DataError
        As `recall_at_k` and `parse_metrics`; also if your own metric fails, or one needs what is not given.
    """
    wanted = parse_metrics(metrics)
    lists = look_up(ranked, targets, max(metric.k for metric in wanted), background)
    per_user = {str(metric): metric.of(lists) for metric in wanted if metric.is_per_user}
    overall = {str(metric): metric.of(lists) for metric in wanted if not metric.is_per_user}
    return per_user, overall


def resample(metrics: Sequence[Metric], ranked: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
    """Return each metric of all lists of users drawn again and again; see `recvae.metrics.exposure.resampled`.

    Parameters
    ----------
    metrics : sequence of Metric
        Those that have values per user are passed over.
    ranked, targets
        As in `measure`.
    """
    wanted = [metric for metric in metrics if not metric.is_per_user]
    if not wanted:
        return {}
    lists = look_up(ranked, targets, max(metric.k for metric in wanted))
    found = {}
    for metric in wanted:
        function = METRICS[metric.name].of_all
        assert function is not None  # which has no values per user
        found[str(metric)] = exposure.resampled(function, lists.first(metric.k))
    return found


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
    return Metric(name.partition(":")[2], int(cutoff), function, name) if is_own else Metric(name, int(cutoff))
