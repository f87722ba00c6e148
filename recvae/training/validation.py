"""What validation users choose by: epochs, weights of a blend, hyperparameters.

Letters in shape comments: U users, B users of a block, k ranks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.memory import in_blocks
from recvae.compute.ranks import ALONE, Ranks
from recvae.errors import UsageError
from recvae.interactions import HeldOut
from recvae.metrics import METRICS, Background, Metric, measure, parse_metrics
from recvae.metrics.metric import HIGHER
from recvae.ranking import block_rows, rank, rank_candidates
from recvae.training.shards import Shard, merged

OBJECTIVE = Metric("ndcg", 100)
"""What validation users choose by, where nothing else is asked for."""

Score = Callable[[sp.csr_matrix], torch.Tensor]
"""Block of users -> scores of shape (n_users, n_items)."""


def objective(given: str | Metric) -> Metric:
    """Return a metric to choose by: one whose mean over users should be high.

    Parameters
    ----------
    given : str or Metric
        Written `name@k`, or MODULE:FUNCTION@K for your own, whose higher values count as better.

    Raises
    ------
    UsageError
        If it is unknown or several, has no values per user, or says nothing of how good a list is.
    """
    found = parse_metrics([given] if isinstance(given, Metric) else given)
    if len(found) > 1:
        raise UsageError(f"got {len(found)} metrics to choose by ({given}), expected one; choose by {found[0]} alone")
    (metric,) = found
    if not metric.is_per_user:
        raise UsageError(
            f"got {metric} to choose by, which is of all lists at once, expected a metric with a value per user; use "
            f"{_choices()}"
        )
    if metric.better != HIGHER:
        raise UsageError(
            f"got {metric} to choose by, but a list with more of it is not better, expected one of: {_choices()}; or "
            "a function of your own that is higher for what you want"
        )
    return metric


def _choices() -> str:
    names = [name for name, known in METRICS.items() if known.per_user is not None and known.better == HIGHER]
    return ", ".join(names)


def check_objective(metric: Metric, validation: HeldOut | None, train: sp.csr_matrix) -> None:
    """Refuse to begin what could choose nothing in the end: the metric is tried on some lists of the validation users.

    Parameters
    ----------
    metric : Metric
        From `objective`.
    validation : HeldOut, optional
        Checked; without any, or without targets, nothing is chosen.
    train : csr_matrix of shape (n_train_users, n_items)
        Training interactions.

    Raises
    ------
    UsageError
        If it looks at more ranks than there are items, fails, or no validation user has a value of it.
    """
    n_items = train.shape[1]
    if metric == OBJECTIVE or validation is None or not validation.has_targets:
        return
    if metric.k > n_items:
        raise UsageError(f"got {metric} to choose by, expected a K of {n_items} or less: there are {n_items:,} items")
    first = np.tile(np.arange(metric.k), (validation.n_users, 1))  # (U, k)
    if np.isnan(metric.per_user(first, validation.targets, background_for([metric], validation, train))).all():
        raise UsageError(
            f"got {metric} to choose by, but no validation user has a value of it; choose by another, or hold out more "
            "users"
        )


def background_for(metrics: Sequence[Metric], validation: HeldOut, train: Any) -> Background | None:
    """Return what metrics beyond accuracy need of these users, None where none of these is one."""
    return Background(train=train, fold_in=validation.fold_in) if any(metric.needs for metric in metrics) else None


def validation_means(
    score: Score,
    validation: HeldOut,
    metrics: Sequence[Metric] = (OBJECTIVE,),
    rows: int | None = None,
    background: Background | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Return means over the validation users, each ranked once.

    Parameters
    ----------
    score : callable
        Block of users -> Tensor of shape (n_users, n_items).
    validation : HeldOut
        Checked.
    metrics : sequence of Metric
        With values per user.
    rows : int, optional
        How many users to score at a time; None for as many as `block_rows` says.
    background : Background, optional
        From `background_for`.
    ranks : Ranks
        Which of several processes this one is: each ranks a part of the users, or all users on its part of the items,
        whose scores alone `score` returns then; and all have the means over all.

    Returns
    -------
    dict of str to float
        By metric; one that no user has a value of is left out, such as all of them without targets.
    """
    k, names = max(metric.k for metric in metrics), list(dict.fromkeys(map(str, metrics)))
    first, last = (0, validation.n_users) if ranks.by_items else ranks.part_of(validation.n_users)
    parts: list[np.ndarray] = [np.empty((0, len(names)))]

    def work(start: int, end: int) -> None:
        fold_in = validation.fold_in[start:end]
        if ranks.by_items:
            ranked = rank_together(score, fold_in, k, ranks)  # (B, k)
        else:
            ranked, _ = rank(score(fold_in), k, seen=fold_in)  # (B, k)
        known = None if background is None else background.of_users(start, end)
        found, _ = measure(metrics, ranked, validation.targets[start:end], known)
        parts.append(np.stack([found[name] for name in names], axis=1))  # (B, metrics)

    at_a_time = rows or block_rows(validation.fold_in.shape[1])
    if ranks.by_items:
        ranks.check()
        at_a_time = min(ranks.gather(at_a_time))  # all go through the same blocks
    in_blocks(last - first, at_a_time, lambda start, end: work(first + start, first + end))
    of_all = np.concatenate(parts)  # (U, metrics)
    if ranks.by_users:
        ranks.check()
        of_all = ranks.gather_rows(torch.from_numpy(of_all)).numpy()  # each user once
    per_user = dict(zip(names, of_all.T.copy(), strict=True))  # (U,) each
    means = {name: float(np.nanmean(values)) for name, values in per_user.items() if not np.isnan(values).all()}
    if ranks.several:
        ranks.check()
        means = ranks.from_first(means)  # by whose last bits all keep an epoch or not, whatever their processors
    return means


def rank_together(score: Score, fold_in: sp.csr_matrix, k: int, ranks: Ranks) -> np.ndarray:
    """Return the k best items of each user, of all processes that share them; see `recvae.ranking.rank`.

    Parameters
    ----------
    score : callable
        Block of users -> scores of the items of this process.
    fold_in : csr_matrix of shape (n_users, n_items)
        What they have seen, of all items; the same users in all processes.
    k : int
        Number of ranks.
    ranks : Ranks
        Which of the processes this one is.

    Returns
    -------
    ndarray of shape (n_users, k), int64
        The same in all processes.

    Raises
    ------
    MemoryError
        If memory has run out in one process: in all, so that all try again with fewer users.
    """
    shard = Shard(fold_in.shape[1], ranks)
    with ranks.together():
        found, best = rank(score(fold_in), k, seen=shard.of_rows(fold_in))  # (B, k)
        found = np.where(found >= 0, found + shard.first, -1)
        ranks.check()
        shape = (ranks.size, *found.shape)
        columns = ranks.gather_rows(torch.from_numpy(found)).numpy().reshape(shape)  # (n, B, k)
        scores = ranks.gather_rows(torch.from_numpy(best)).numpy().reshape(shape)
        ranked, _ = rank_candidates(*merged(columns, scores), k)  # (B, k)
        ranks.check()
    return ranked


Look = Callable[[Score, int | None], tuple[float | None, float | None]]
"""(scores of a block of users, users at a time) -> NDCG@100 of the validation users, and the metric to choose by."""


def look_at(validation: HeldOut | None, metric: Metric, train: Any, ranks: Ranks = ALONE) -> Look:
    """Return a function that looks at the validation users; it returns None of what none of them has.

    Parameters
    ----------
    validation : HeldOut, optional
        Checked.
    metric : Metric
        From `objective`.
    train : csr_matrix of shape (n_train_users, n_items)
        Training interactions.
    ranks : Ranks
        See `validation_means`.
    """
    if validation is None:
        return lambda score, rows: (None, None)  # noqa: ARG005
    metrics = [OBJECTIVE] if metric == OBJECTIVE else [OBJECTIVE, metric]
    background = background_for(metrics, validation, train)

    def look(score: Score, rows: int | None) -> tuple[float | None, float | None]:
        means = validation_means(score, validation, metrics, rows, background, ranks)
        return means.get(str(OBJECTIVE)), means.get(str(metric))

    return look


def other_metric(chosen_by: str, metric: Metric) -> str:
    """Say that a run cannot be continued with another metric than it has."""
    return (
        f"has chosen its epochs by {chosen_by}, this run chooses by {metric.path}; resume with the same metric, or "
        "train again without --resume"
    )


def validation_ndcg(score: Score, validation: HeldOut, rows: int | None = None) -> float | None:
    """Return the mean NDCG@100 of the validation users, None if none of them has a target; see `validation_means`."""
    return validation_means(score, validation, rows=rows).get(str(OBJECTIVE))
