"""From a fitted model to one value per user and metric, and from these to means with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from recvae.bundles.bundle import Bundle
from recvae.datasets.dataset import Dataset
from recvae.display import html_table
from recvae.errors import DataError, UsageError
from recvae.evaluation.same_data import check_fits
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


class Evaluation(NamedTuple):
    """What `evaluate` found; it can be unpacked: `per_user, overall = evaluate(...)`.

    Parameters
    ----------
    per_user : dict of str to ndarray of shape (n_users,), float64
        By metric; NaN where a user has no target.
    overall : dict of str to float
        Metrics over all users at once, such as coverage.
    """

    per_user: dict[str, np.ndarray]
    overall: dict[str, float]

    def summary(self, metric: str) -> Summary:
        """Return the mean of a metric, with its interval where it has values per user."""
        return summarise(self.per_user[metric]) if metric in self.per_user else Summary(self.overall[metric])

    @property
    def means(self) -> dict[str, float]:
        """The mean of each metric over the users that have a target."""
        found = {metric: self.summary(metric).mean for metric in (*self.per_user, *self.overall)}
        return {metric: mean for metric, mean in found.items() if mean is not None}

    def __repr__(self) -> str:
        """Return the means in one line."""
        return f"<Evaluation: {', '.join(f'{metric} {mean:.4f}' for metric, mean in self.means.items())}>"

    def _repr_html_(self) -> str:
        summaries = {metric: self.summary(metric) for metric in self.means}
        rows = [(metric, *(_figure(value) for value in (s.mean, s.low, s.high))) for metric, s in summaries.items()]
        return html_table("Evaluation", ["metric", "mean", "95 % interval from", "to"], rows)


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
    model: Model | Bundle,
    held_out: HeldOut | Dataset | tuple[Any, Any],
    metrics: str | Sequence[str | Metric] = DEFAULT_METRICS,
    progress: Progress | None = None,
    *,
    split: str | None = None,
    train: Any = None,
    features: Any = None,
    max_memory: int | None = None,
) -> Evaluation:
    """Rank all items for held-out users and measure how well their targets were found.

    Parameters
    ----------
    model : Model or Bundle
        Fitted; a bundle as `read_bundle` returns it.
    held_out : Dataset, HeldOut, or tuple of two sparse matrices
        A data set, whose test users are asked; or users with fold-in and targets. Items of the fold-in are never
        ranked.
    metrics : str or sequence of str and Metric
        What to measure, written `name@k`; see `recvae.metrics.parse_metrics`.
    progress : Progress, optional
        Called with the users done and the users in all, such as a `ProgressBar`.
    split : str, optional
        Users of the data set: "test", which is the default, or "validation".
    train : sparse matrix of shape (n_train_users, n_items), optional
        Training interactions, which novelty, diversity and the like are measured by; by default those of the data set.
    features : sparse matrix or ndarray of shape (n_items, n_features), optional
        Features of the items, with `train`; for `feature_diversity` and `feature_miscalibration`. By default those of
        the data set.
    max_memory : int, optional
        Bytes that scoring may take.

    Returns
    -------
    Evaluation
        `per_user` and `overall`, `means`, and `summary(metric)` with the interval of a mean.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    UsageError
        If there is no metric, one is unknown, fails or needs what is not given, or the model is known to be of other
        data than the data set, or to be trained on these users.
    DataError
        If no user has a target, the number of items differs, or a matrix is not one of interactions.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from recvae import HeldOut, Popularity
    >>> model = Popularity().fit(sp.csr_matrix([[1, 1, 0], [0, 1, 1], [0, 1, 1]]))
    >>> users = HeldOut(fold_in=sp.csr_matrix([[1, 0, 0]]), targets=sp.csr_matrix([[0, 1, 0]]))
    >>> evaluate(model, users, "recall@1")
    <Evaluation: recall@1 1.0000>
    >>> evaluate(model, users, "recall@1").per_user["recall@1"]
    array([1.])
    """
    wanted = parse_metrics(metrics)
    model, held_out, dataset = _asked(model, held_out, split)
    if dataset is not None and train is None:
        train = dataset.train
        features = dataset.features.matrix if features is None and dataset.features is not None else features
    background = None if train is None else Background(train=train, fold_in=held_out.fold_in, features=features)
    check_needs(wanted, held_out, background)
    ranked = rank_all(model, held_out, max(metric.k for metric in wanted), progress, max_memory=max_memory)
    return Evaluation(*measure(wanted, ranked, held_out.targets, background))


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
    k: int,
    progress: Progress | None = None,
    *,
    max_memory: int | None = None,
) -> np.ndarray:
    """Rank all items for held-out users.

    Parameters
    ----------
    model : Model
        Fitted.
    held_out : HeldOut
        Checked.
    k : int
        How deep, >= 1: for metrics, the largest of their k.
    progress : Progress, optional
        Called with the users done and the users in all.
    max_memory : int, optional
        Bytes that scoring may take.

    Returns
    -------
    ndarray of shape (n_users, k), int32
        Item columns, best first, -1 where a list ended; items of the fold-in are left out.
    """
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


def _asked(fitted: Any, users: Any, split: str | None) -> tuple[Model, HeldOut, Dataset | None]:
    """Return the model to ask, the checked users and their data set, of what `evaluate` is given."""
    if not isinstance(fitted, Model | Bundle):
        instead = f"; give .model of the {type(fitted).__name__}" if isinstance(_model_of(fitted), Model) else ""
        raise UsageError(f"got a {type(fitted).__name__}, expected a fitted model or a bundle{instead}")
    model = _model_of(fitted)
    model.check_fitted()
    if isinstance(users, Dataset):
        split = split or "test"
        part = users.part(split)
        check_fits({model.name: fitted}, users, split)
    elif split is not None:
        raise UsageError(f"got split='{split}' with a {type(users).__name__}; only a Dataset has splits, leave it out")
    elif isinstance(users, HeldOut | tuple):
        part = users
    else:
        raise UsageError(f"got a {type(users).__name__} to measure on, expected a Dataset or HeldOut users")
    fold_in = part.fold_in if isinstance(part, HeldOut) else part[0]
    dataset = users if isinstance(users, Dataset) else None
    return model, HeldOut.of(part, np.shape(fold_in)[-1]), dataset  # once, so that stored zeros are no targets


def _model_of(fitted: Any) -> Any:
    return fitted if isinstance(fitted, Model) else getattr(fitted, "model", None)


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


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
