"""From a fitted model to numbers with intervals: per-user values, means, paired differences, one report.

Every number comes with its protocol, the part it was measured on and the fingerprint of the data.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import stdtrit

from recvae.errors import DataError, UsageError
from recvae.interactions import HeldOut
from recvae.items import ids_to_arrow
from recvae.metrics import Metric, measure
from recvae.models.common.base import Model
from recvae.ranking import block_rows
from recvae.storage.files import write_file

DEFAULT_METRICS = "recall@20,recall@50,ndcg@100"
CONFIDENCE = 0.95

# Letters in shape comments: U users, B users of a block, k ranks.


@dataclass(frozen=True)
class Summary:
    """A mean over users with its standard error and 95 % interval; the latter None for a single value.

    Parameters
    ----------
    mean, se, low, high : float or None
        Student's t interval of the mean over the users that have a target.
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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one run reached on some held-out users.

    Parameters
    ----------
    name : str
        What tables call it.
    model : str
        Name of the model.
    hyperparameters : dict
        Its settings.
    per_user : dict of str to ndarray of shape (n_users,)
        Values of each per-user metric, NaN where a user has no target.
    overall : dict of str to float
        Values of metrics that are not per user.
    is_baseline : bool
        Whether others are compared against it.
    note : str
        How its hyperparameters were chosen, for a tuned baseline.
    """

    name: str
    model: str
    hyperparameters: dict[str, Any]
    per_user: dict[str, np.ndarray]
    overall: dict[str, float] = field(default_factory=dict)
    is_baseline: bool = False
    note: str = ""

    def summary(self, metric: str) -> Summary:
        """Return the mean and interval of a metric."""
        return summarise(self.per_user[metric]) if metric in self.per_user else Summary(self.overall[metric])


def evaluate(
    model: Model,
    held_out: HeldOut,
    metrics: Sequence[Metric],
    progress: Callable[[int, int], None] | None = None,
    *,
    max_memory: int | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Rank all items for held-out users and measure how well their targets were found.

    Parameters
    ----------
    model : Model
        Fitted.
    held_out : HeldOut
        Users with fold-in and targets; items of the fold-in are never ranked.
    metrics : sequence of Metric
        What to measure.
    progress : callable, optional
        Called with the users done and the users in all.
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
        If there is no metric.
    DataError
        If no user has a target, the number of items differs, or a matrix is not one of interactions.
    """
    if not metrics:
        raise UsageError(f"got no metric, expected at least one, such as {DEFAULT_METRICS}")
    held_out = HeldOut.of(held_out, held_out.fold_in.shape[1])  # once, so that stored zeros are no targets
    if held_out.n_without_target() == held_out.n_users:
        raise DataError("none of the held-out users has a target; hold out more users, or filter less")
    k = max(metric.k for metric in metrics)
    ranked = np.empty((held_out.n_users, k), dtype=np.int32)  # (U, k)
    rows = block_rows(held_out.fold_in.shape[1])
    for start in range(0, held_out.n_users, rows):
        block = held_out.fold_in[start : start + rows]
        ranked[start : start + rows], _ = model.recommend(block, k, max_memory=max_memory)  # (B, k)
        if progress is not None:
            progress(min(start + rows, held_out.n_users), held_out.n_users)
    return measure(metrics, ranked, held_out.targets)


def main_metric(metrics: Sequence[str]) -> str:
    """Return the metric that decides: the last NDCG, else the first that has values per user, else the first.

    Parameters
    ----------
    metrics : sequence of str
        Written `name@k`; at least one.
    """
    ndcg = [metric for metric in metrics if metric.startswith("ndcg@")]
    per_user = [metric for metric in metrics if not metric.startswith("coverage@")]
    return (ndcg[-1:] or per_user[:1] or [*metrics])[0]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Several runs on the same users.

    Parameters
    ----------
    manifest : dict
        Of the data set.
    split : str
        "validation" or "test".
    user_ids : ndarray of shape (n_users,)
        External ids of the users.
    n_users : int
        Users that have a target.
    metrics : list of str
        In the order of the columns.
    evaluations : list of Evaluation
        In the order of the rows.
    """

    manifest: dict[str, Any]
    split: str
    user_ids: np.ndarray
    n_users: int
    metrics: list[str]
    evaluations: list[Evaluation]

    @property
    def main_metric(self) -> str:
        """The metric that decides which baseline is the strongest; see `main_metric`."""
        return main_metric(self.metrics)

    def best(self, metric: str) -> float:
        """Return the highest mean of a metric over all runs."""
        return max(evaluation.summary(metric).mean or 0.0 for evaluation in self.evaluations)

    def strongest_baseline(self) -> Evaluation | None:
        """Return the baseline with the highest mean of the main metric, None without baselines."""
        baselines = [evaluation for evaluation in self.evaluations if evaluation.is_baseline]
        return max(baselines, key=lambda e: e.summary(self.main_metric).mean or 0.0, default=None)

    def difference(self, evaluation: Evaluation, baseline: Evaluation, metric: str) -> Summary | None:
        """Return the mean over users of evaluation - baseline with its interval, None for an overall metric."""
        if metric not in evaluation.per_user:
            return None
        return summarise(evaluation.per_user[metric] - baseline.per_user[metric])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it; see the README for its form."""
        baseline = self.strongest_baseline()
        runs = []
        for evaluation in self.evaluations:
            run: dict[str, Any] = {
                "name": evaluation.name,
                "model": evaluation.model,
                "hyperparameters": evaluation.hyperparameters,
                "baseline": evaluation.is_baseline,
                "metrics": {metric: asdict(evaluation.summary(metric)) for metric in self.metrics},
            }
            if evaluation.note:
                run["note"] = evaluation.note
            if baseline is not None and evaluation is not baseline:
                pairs = {metric: self.difference(evaluation, baseline, metric) for metric in self.metrics}
                run["difference"] = {
                    "to": baseline.name,
                    "metrics": {metric: asdict(pair) for metric, pair in pairs.items() if pair is not None},
                }
            runs.append(run)
        return {
            "dataset": self.manifest.get("name"),
            "protocol": self.manifest.get("protocol"),
            "fingerprint": self.manifest.get("fingerprint"),
            "split": self.split,
            "n_users": self.n_users,
            "n_users_without_target": len(self.user_ids) - self.n_users,
            "confidence": CONFIDENCE,
            "runs": runs,
        }

    def write_per_user(self, path: Path) -> None:
        """Write one row per run and user as Parquet: run, user, and a column per metric (null without a target).

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        tables = []
        for evaluation in self.evaluations:
            names = pa.array([evaluation.name] * len(self.user_ids), pa.string())
            columns = {"run": names, "user": ids_to_arrow(self.user_ids)}
            columns |= {name: pa.array(values, from_pandas=True) for name, values in evaluation.per_user.items()}
            tables.append(pa.table(columns))
        with write_file(path) as aside:
            pq.write_table(pa.concat_tables(tables), aside)
