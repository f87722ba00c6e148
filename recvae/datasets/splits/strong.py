"""Strong generalisation: Liang, Krishnan, Hoffman and Jebara, WWW 2018, section 4.1.

Unseen users: part of their items is the fold-in, the rest are targets.
"""

from typing import Any

import numpy as np

from recvae.datasets.events import Events
from recvae.datasets.splits.base import (
    LIANG_SEED,
    TARGET_SHARE,
    Split,
    Vocabulary,
    check_share,
    rows_of,
    vocabulary_of,
)
from recvae.errors import DataError, UsageError
from recvae.interactions import HeldOut

# Letters in shape comments: E events, U users.

_MIN_ITEMS_TO_HOLD_OUT = 5  # users with fewer items keep them all in the fold-in (Liang et al.)


def strong(events: Events, heldout_users: int, seed: int = LIANG_SEED, target_share: float = TARGET_SHARE) -> Split:
    """Split by user, exactly as Liang et al. (2018) did in their published notebook.

    Users in ascending order of id are permuted with numpy's legacy generator; the last `heldout_users` are
    test users, those before validation users. Of each held-out user with at least five items,
    floor(target_share * n) become targets, drawn in ascending order of user id by a generator that is seeded
    again for each of the two parts.

    Parameters
    ----------
    events : Events
        Filtered events in file order; the order decides the item columns and the draws.
    heldout_users : int
        Number of users in each of validation and test, >= 1.
    seed : int
        98765 in the paper.
    target_share : float
        Share of a held-out user's items that become targets, in (0, 1).

    Returns
    -------
    Split
        Rows of train, validation and test follow the permutation of the users.

    Raises
    ------
    UsageError
        If `heldout_users` or `target_share` is out of range.
    DataError
        If there are too few users to hold out that many twice and still train.
    """
    check_share(target_share)
    present = np.flatnonzero(events.user_counts())  # (U,) codes ascend as the ids do
    permuted = present[permutation_of(len(present), heldout_users, seed)]  # (U,)
    n_train = len(present) - 2 * heldout_users
    row_of = np.empty(len(events.user_ids), dtype=np.int32)  # row within the permutation, by user code
    row_of[permuted] = np.arange(len(permuted))
    row = row_of[events.users]  # (E,)
    in_train = row < n_train
    vocabulary = vocabulary_of(events, in_train)
    train = rows_of(events, vocabulary, in_train, row, n_train)
    asked = events.keep(~in_train)  # the few events of held-out users: from here on E counts these
    parts = held_out_of(asked, vocabulary, permuted[n_train:], seed, target_share)
    return Split(
        train=train,
        validation=parts[0],
        test=parts[1],
        item_ids=vocabulary.ids,
        protocol=protocol_of(heldout_users, seed, target_share),
        dropped={DROPPED: int((~vocabulary.known(asked)).sum())},
        train_user_ids=events.user_ids[permuted[:n_train]],
    )


DROPPED = "held-out events on items not in training"
"""What the manifest calls events that are left out."""


def protocol_of(heldout_users: int, seed: int, target_share: float) -> dict[str, Any]:
    """Return the protocol for the manifest."""
    return {
        "split": "strong",
        "seed": int(seed),
        "target_share": float(target_share),
        "heldout_users": int(heldout_users),
    }


def permutation_of(n_users: int, heldout_users: int, seed: int) -> np.ndarray:
    """Return the order of the users, shape (n_users,): training users, then those of validation, then those of test.

    Parameters
    ----------
    n_users : int
        Users with an event, in ascending order of id.
    heldout_users, seed
        See `strong`.

    Raises
    ------
    UsageError, DataError
        See `strong`.
    """
    if heldout_users < 1:
        raise UsageError(f"got {heldout_users} held-out users, expected 1 or more for each of validation and test")
    if n_users - 2 * heldout_users < 1:
        raise DataError(
            f"got {n_users:,} users, expected more than 2 x {heldout_users:,} to hold out {heldout_users:,} for "
            f"each of validation and test; lower --heldout-users"
        )
    return np.random.RandomState(seed).permutation(n_users)


def held_out_of(
    asked: Events, vocabulary: Vocabulary, users: np.ndarray, seed: int, target_share: float
) -> tuple[HeldOut, HeldOut]:
    """Draw the targets of the held-out users.

    Parameters
    ----------
    asked : Events
        The events of held-out users only, in file order.
    vocabulary : Vocabulary
        The items of the training users.
    users : ndarray of shape (2 * heldout_users,)
        Codes of the users: those of validation, then those of test, in the order of their rows.
    seed, target_share
        See `strong`.

    Returns
    -------
    tuple of HeldOut
        Validation and test.
    """
    n_users = len(users) // 2
    row_of = np.empty(len(asked.user_ids), dtype=np.int32)
    row_of[users] = np.arange(len(users))
    row = row_of[asked.users]  # (E,)
    known = vocabulary.known(asked)
    parts = []
    for start in (0, n_users):
        here = (row >= start) & (row < start + n_users) & known
        is_target = _liang_targets(asked, here, seed, target_share)
        held_out = HeldOut(
            fold_in=rows_of(asked, vocabulary, here & ~is_target, row - start, n_users),
            targets=rows_of(asked, vocabulary, is_target, row - start, n_users),
            user_ids=asked.user_ids[users[start : start + n_users]],
        )
        parts.append(held_out)
    return parts[0], parts[1]


def _liang_targets(events: Events, here: np.ndarray, seed: int, share: float) -> np.ndarray:
    """Return which events (E,) of one held-out part are targets, drawn user by user as in the paper's code."""
    positions = np.flatnonzero(here)
    positions = positions[np.argsort(events.users[positions], kind="stable")]  # by user id, file order within
    _, starts, sizes = np.unique(events.users[positions], return_index=True, return_counts=True)  # (U,), (U,)
    starts, sizes = starts[sizes >= _MIN_ITEMS_TO_HOLD_OUT], sizes[sizes >= _MIN_ITEMS_TO_HOLD_OUT]
    shuffle = np.random.RandomState(seed).shuffle
    # One draw per user is part of the protocol: the generator is not seeded again between users. The paper's
    # choice(n, size=t, replace=False) shuffles 0 ... n - 1 and takes the first t; here the events are shuffled.
    for start, end in zip(starts.tolist(), (starts + sizes).tolist(), strict=True):
        shuffle(positions[start:end])
    n_targets = (share * sizes).astype(np.int64)  # (U,) as floor
    # Each user's first ones: the start of their events, plus 0 ... n_targets - 1
    within = np.arange(n_targets.sum()) - np.repeat(np.cumsum(n_targets) - n_targets, n_targets)
    is_target = np.zeros(len(events), dtype=bool)  # (E,)
    is_target[positions[np.repeat(starts, n_targets) + within]] = True
    return is_target
