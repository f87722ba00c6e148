"""Weak generalisation: the same users in training and test, some of whose items are hidden in training."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.datasets.events import Events
from recvae.datasets.splits.base import (
    LIANG_SEED,
    TARGET_SHARE,
    Split,
    check_seed,
    check_share,
    pair_hashes,
    rank_within_user,
    rows_of,
    timestamps_of,
    vocabulary_of,
)
from recvae.interactions import HeldOut

# Letters in shape comments: E events, U users.

MIN_EVENTS_TO_HOLD_OUT = 3
"""Users with fewer events are only in training (leave-last-out)."""


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


def leave_last_out(events: Events, seed: int = LIANG_SEED) -> Split:
    """Use each user's last event as the test target and the one before as the validation target.

    Users with fewer than three events are only in training. Each user has their own last event, so that later events
    of other users are in training; if that matters, use `time`.

    Where the last events of a user have equal times, in whole seconds, the seed decides which of them are the targets:
    they are ordered by a hash of the seed, the user's id and the item's id, so that the order of the lines makes no
    difference. Then the protocol has the seed, and as `tied_users` the number of users for whom it decided.

    Parameters
    ----------
    events : Events
        Filtered events with timestamps.
    seed : int
        Decides among equal times, >= 0.

    Returns
    -------
    Split
        One row per user in each part, in ascending order of user id.

    Raises
    ------
    UsageError
        If the log has no timestamps, or the seed is out of range.
    """
    check_seed(seed)
    times = timestamps_of(events, "leave-last-out")
    order = np.lexsort((times, events.users))  # (E,) user by user, the last event last
    is_tied = _is_tied(events.users[order], times[order])  # (E,) with another event of the same user
    tied = order[is_tied]
    draw = pair_hashes(events.user_ids[events.users[tied]], events.item_ids[events.items[tied]], seed)
    order[is_tied] = tied[np.lexsort((events.items[tied], draw, times[tied], events.users[tied]))]
    counts = events.user_counts()
    last = (np.cumsum(counts) - 1)[counts >= MIN_EVENTS_TO_HOLD_OUT]  # (U,) places in that order
    targets = np.zeros((2, len(events)), dtype=bool)
    for is_target, place in zip(targets, (last, last - 1), strict=True):
        is_target[order[place]] = True
    before = times[order[last - 1]]  # (U,)
    n_tied = int(np.count_nonzero((times[order[last]] == before) | (before == times[order[last - 2]])))
    protocol = {"split": "leave-last-out", **({"seed": int(seed), "tied_users": n_tied} if n_tied else {})}
    return _same_users(events, targets[0], targets[1], protocol)


def _is_tied(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return which events (E,), ordered by user and time, have the time of another event of the user."""
    is_same = np.zeros(len(users) + 1, dtype=bool)  # as the event before
    is_same[1:-1] = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    return is_same[1:] | is_same[:-1]


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
        train_user_ids=ids,
    )
