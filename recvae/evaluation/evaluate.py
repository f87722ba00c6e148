"""From a fitted model to one value per user and metric, and from these to means with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from recvae.errors import DataError
from recvae.interactions import HeldOut
from recvae.metrics import METRICS, Background, Metric, measure, parse_metrics
from recvae.metrics.metric import HIGHER
from recvae.models.common.base import Model
from recvae.progress import Progress
from recvae.ranking import block_rows

DEFAULT_METRICS = "recall@20,recall@50,ndcg@100"
CONFIDENCE = 0.95

# Letters in shape comments: U users, B users of a block, k ranks.


@dataclass(frozen=True)
class Summary:
    """A mean over users, or a value of all lists, with its standard error and 95 % interval; None of a single value.

    Parameters
    ----------
    mean, se, low, high : float or None
        Student's t interval of the mean over the users that have a target; of a value of all lists, that of the
        standard deviation over resamples of the users.
    """

    mean: float | None
    se: float | None = None
    low: float | None = None
    high: float | None = None


def summarise(values: np.ndarray) -> Summary:
    """Return mean, standard error and 95 % interval of one value per user, NaN left out.

    Parameters
    ----------
    values : ndarray of shape (n_users,)
        Metric values, or differences of two runs on the same users.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return Summary(None)
    mean = float(values.mean())
    if n == 1:
        return Summary(mean)
    se = float(values.std(ddof=1) / np.sqrt(n))
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * se
    return Summary(mean, se, mean - half, mean + half)


def summarise_resampled(value: float, resampled: np.ndarray | None) -> Summary:
    """Return a value of all lists with the standard error and the 95 % interval that resampling of users gives.

    Parameters
    ----------
    value : float
        Of all users.
    resampled : ndarray of shape (n_resamples,), optional
        Of users drawn with replacement; without them, the value is alone.
    """
    if resampled is None or len(resampled) < 2:
        return Summary(value)
    se = float(resampled.std(ddof=1))
    half = float(ndtri((1 + CONFIDENCE) / 2)) * se
    return Summary(value, se, value - half, value + half)


def evaluate(
    model: Model,
    held_out: HeldOut,
    metrics: str | Sequence[str | Metric] = DEFAULT_METRICS,
    progress: Progress | None = None,
    *,
    train: Any = None,
    features: Any = None,
    max_memory: int | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Rank all items for held-out users and measure how well their targets were found.

    Parameters
    ----------
    model : Model
        Fitted.
    held_out : HeldOut
        Users with fold-in and targets; items of the fold-in are never ranked.
    metrics : str or sequence of str and Metric
        What to measure, written `name@k`; see `recvae.metrics.parse_metrics`.
    progress : Progress, optional
        Called with the users done and the users in all, such as a `ProgressBar`.
    train : sparse matrix of shape (n_train_users, n_items), optional
        Training interactions, which novelty, diversity and the like are measured by.
    features : sparse matrix or ndarray of shape (n_items, n_features), optional
        Features of the items, with `train`; for `feature_diversity` and `feature_miscalibration`.
    max_memory : int, optional
        Bytes that scoring may take.

    Returns
    -------
    per_user : dict of str to ndarray of shape (n_users,), float64
        By metric; NaN where a user has no target.
    overall : dict of str to float
        Metrics over all users at once, such as coverage.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    UsageError
        If there is no metric, or one is unknown, fails, or needs what is not given.
    DataError
        If no user has a target, the number of items differs, or a matrix is not one of interactions.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recvae import HeldOut, Popularity
    >>> model = Popularity().fit(sp.csr_matrix([[1, 1, 0], [0, 1, 1], [0, 1, 1]]))
    >>> users = HeldOut(fold_in=sp.csr_matrix([[1, 0, 0]]), targets=sp.csr_matrix([[0, 1, 0]]))
    >>> evaluate(model, users, "recall@1")[0]["recall@1"]
    array([1.])
    """
    wanted = parse_metrics(metrics)
    held_out = HeldOut.of(held_out, held_out.fold_in.shape[1])  # once, so that stored zeros are no targets
    background = None if train is None else Background(train=train, fold_in=held_out.fold_in, features=features)
    check_needs(wanted, held_out, background)
    ranked = rank_all(model, held_out, wanted, progress, max_memory=max_memory)
    return measure(wanted, ranked, held_out.targets, background)


def check_needs(metrics: Sequence[Metric], held_out: HeldOut, background: Background | None) -> None:
    """Refuse metrics that cannot be measured of these users, before anything is ranked.

    Raises
    ------
    UsageError
        If a metric needs training interactions or features that are not given, or more ranks than there are items.
    DataError
        If no user has a target.
    """
    if not held_out.has_targets:
        raise DataError("none of the held-out users has a target; hold out more users, or filter less")
    for metric in metrics:
        metric.check(held_out.fold_in.shape[1], background)


def rank_all(
    model: Model,
    held_out: HeldOut,
    metrics: Sequence[Metric],
    progress: Progress | None = None,
    *,
    max_memory: int | None = None,
) -> np.ndarray:
    """Rank all items for held-out users, as deep as the metrics look.

    Parameters
    ----------
    model : Model
        Fitted.
    held_out : HeldOut
        Checked.
    metrics : sequence of Metric
        At least one.
    progress : Progress, optional
        Called with the users done and the users in all.
    max_memory : int, optional
        Bytes that scoring may take.

    Returns
    -------
    ndarray of shape (n_users, k), int32
        Item columns, best first, -1 where a list ended; items of the fold-in are left out.
    """
    k = max(metric.k for metric in metrics)
    ranked = np.empty((held_out.n_users, k), dtype=np.int32)  # (U, k)
    rows = block_rows(held_out.fold_in.shape[1])
    for start in range(0, held_out.n_users, rows):
        block = held_out.fold_in[start : start + rows]
        ranked[start : start + rows], _ = model.recommend(block, k, max_memory=max_memory)  # (B, k)
        if progress is not None:
            progress(min(start + rows, held_out.n_users), held_out.n_users, "users")
    return ranked


def better_of(metric: str) -> int:
    """Return which values of a metric written `name@k` are better; higher ones of your own."""
    known = METRICS.get(metric.partition("@")[0])
    return HIGHER if known is None else known.better


def main_metric(metrics: Sequence[str]) -> str:
    """Return the metric that decides: the last NDCG, else the first that has values per user and should be high.

    Parameters
    ----------
    metrics : sequence of str
        Written `name@k`; at least one. Where none is as said, the first with values per user decides, else the first.
    """
    ndcg = [metric for metric in metrics if metric.startswith("ndcg@")]
    overall = {name for name, definition in METRICS.items() if definition.per_user is None}
    per_user = [metric for metric in metrics if metric.partition("@")[0] not in overall]
    high = [metric for metric in per_user if better_of(metric) == HIGHER]
    return (ndcg[-1:] or high[:1] or per_user[:1] or [*metrics])[0]
