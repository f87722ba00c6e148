"""What pictures of accuracy and popularity are drawn from: the ranked items of several runs for the same users.

Letters in shape comments: U users, I items, T targets of all users, k ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recvae.errors import DataError
from recvae.evaluation.evaluate import rank_all
from recvae.interactions import HeldOut
from recvae.metrics import Metric, measure
from recvae.models.common.base import Model
from recvae.progress import Progress
from recvae.ranked_lists import look_up

KS = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of items to draw a metric at."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The ranked items of several runs for the same users.

    Parameters
    ----------
    ranked : dict of str to ndarray of shape (n_users, k), int
        By run; -1 where a list ended.
    held_out : HeldOut
        The users.
    train_counts : ndarray of shape (n_items,), int
        Training users of each item.
    n_train_users : int
        Training users in all.
    """

    ranked: dict[str, np.ndarray]
    held_out: HeldOut
    train_counts: np.ndarray
    n_train_users: int

    @cached_property
    def ks(self) -> list[int]:
        """The numbers of items to draw a metric at: those of `KS` that the lists reach."""
        most = min(ranked.shape[1] for ranked in self.ranked.values())
        return [k for k in KS if k <= most]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Items in the history of each user, (n_users,)."""
        return np.diff(self.held_out.fold_in.indptr)

    @property
    def popularity(self) -> np.ndarray:
        """The share of training users that have each item, (n_items,)."""
        return self.train_counts / self.n_train_users

    def values(self, metric: str, ks: Sequence[int]) -> dict[str, np.ndarray]:
        """Return a metric by run, of each user at each number of items: (n_users, n_ks), NaN without a target."""
        wanted = [Metric(metric, k) for k in ks]
        found = {name: measure(wanted, ranked, self.held_out.targets)[0] for name, ranked in self.ranked.items()}
        return {name: np.stack([values[str(one)] for one in wanted], axis=1) for name, values in found.items()}

    def first(self, k: int) -> dict[str, np.ndarray]:
        """Return the first k items by run, (n_users, k)."""
        return {name: ranked[:, :k] for name, ranked in self.ranked.items()}

    def targets_found(self, k: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return by run which targets are among the first k, (n_targets,), and the column and user of each target."""
        targets = self.held_out.targets
        users = np.repeat(np.arange(targets.shape[0], dtype=np.int64), np.diff(targets.indptr))  # (T,)
        wanted = users * targets.shape[1] + targets.indices  # each target as one number
        found = {}
        for name, ranked in self.ranked.items():
            lists = look_up(ranked, targets, k)
            rows, ranks = np.nonzero(lists.hits)
            found[name] = np.isin(wanted, rows * targets.shape[1] + lists.ranked[rows, ranks])
        return found, targets.indices, users


def rank_users(
    model: Model, held_out: HeldOut, k: int, progress: Progress | None = None, *, max_memory: int | None = None
) -> np.ndarray:
    """Rank all items for held-out users, without those of their histories.

    Parameters
    ----------
    model : Model
        Fitted.
    held_out : HeldOut
        The users.
    k : int
        Items for each, >= 1; at most all there are.
    progress : Progress, optional
        Called with the users done and the users in all.
    max_memory : int, optional
        Bytes that scoring may take.

    Returns
    -------
    ndarray of shape (n_users, k), int32
        Item columns, best first; -1 where a list ended.

    Raises
    ------
    DataError
        If no user has a target.
    NotFittedError, UsageError
        See `Model.recommend`.
    """
    if not held_out.has_targets:
        raise DataError("none of the held-out users has a target; hold out more users, or filter less")
    return rank_all(model, held_out, min(k, held_out.fold_in.shape[1]), progress, max_memory=max_memory)
