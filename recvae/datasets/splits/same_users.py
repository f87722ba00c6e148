"""Weak generalisation: the same users in training and test, some of whose items are hidden in training."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.datasets.events import Events
from recvae.datasets.splits.base import (
    LIANG_SEED,
    TARGET_SHARE,
    Split,
    check_share,
    rank_within_user,
    rows_of,
    timestamps_of,
    vocabulary_of,
)
from recvae.interactions import HeldOut

# Letters in shape comments: E events, U users.


def holdout(events: Events, seed: int = LIANG_SEED, target_share: float = TARGET_SHARE) -> Split:
    """Split each user's items at random: the same users in training, validation and test.

    Of a user's n items, t = floor(target_share * n) are test targets and floor(target_share * (n - t)) of the
    others validation targets. At test time the validation targets are part of the fold-in.

    Parameters
    ----------
    events : Events
        Filtered events.
    seed : int
        Seed of the draw.
    target_share : float
        Share of items that become targets, in (0, 1).

    Returns
    -------
    Split
        One row per user in each part, in ascending order of user id.

    Raises
    ------
    UsageError
        If `target_share` is out of range.
    """
    check_share(target_share)
    rank, size = rank_within_user(events, np.random.default_rng(seed).random(len(events)))
    n_test = (target_share * size).astype(np.int64)  # (E,) as floor
    n_validation = (target_share * (size - n_test)).astype(np.int64)
    protocol = {"split": "holdout", "seed": int(seed), "target_share": float(target_share)}
    is_validation = (rank >= n_test) & (rank < n_test + n_validation)
    return _same_users(events, rank < n_test, is_validation, protocol)


def leave_last_out(events: Events) -> Split:
    """Use each user's last event as the test target and the one before as the validation target.

    Users with fewer than three events are only in training. Each user has their own last event, so that later events
    of other users are in training; if that matters, use `time`.

    Raises
    ------
    UsageError
        If the log has no timestamps.
    """
    order = timestamps_of(events, "leave-last-out")
    # Later first: rank 0 is the last event. File order decides among equal times.
    rank, size = rank_within_user(events, -np.argsort(np.argsort(order, kind="stable"), kind="stable"))
    return _same_users(events, (rank == 0) & (size >= 3), (rank == 1) & (size >= 3), {"split": "leave-last-out"})


def _same_users(events: Events, is_test: np.ndarray, is_validation: np.ndarray, protocol: dict[str, Any]) -> Split:
    """Split the events of every user; the vocabulary is that of what is left for training."""
    in_train = ~is_test & ~is_validation
    vocabulary = vocabulary_of(events, in_train)
    known = vocabulary.known(events)
    users, row = np.unique(events.users, return_inverse=True)

    def part(chosen: np.ndarray) -> sp.csr_matrix:
        return rows_of(events, vocabulary, chosen & known, row, len(users))

    ids = events.user_ids[users]
    train = part(in_train)
    return Split(
        train=train,
        validation=HeldOut(fold_in=train, targets=part(is_validation), user_ids=ids),
        test=HeldOut(fold_in=part(~is_test), targets=part(is_test), user_ids=ids),
        item_ids=vocabulary.ids,
        protocol=protocol,
        dropped={"held-out events on items not in training": int((~known).sum())},
    )
