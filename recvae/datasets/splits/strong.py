"""Strong generalisation: Liang, Krishnan, Hoffman and Jebara, WWW 2018, section 4.1.

Unseen users: part of their items is the fold-in, the rest are targets.
"""

import numpy as np

from recvae.datasets.events import Events
from recvae.datasets.splits.base import LIANG_SEED, TARGET_SHARE, Split, check_share, rows_of, vocabulary_of
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
    if heldout_users < 1:
        raise UsageError(f"got {heldout_users} held-out users, expected 1 or more for each of validation and test")
    present = np.flatnonzero(events.user_counts())  # (U,) codes ascend as the ids do
    n_train = len(present) - 2 * heldout_users
    if n_train < 1:
        raise DataError(
            f"got {len(present):,} users, expected more than 2 x {heldout_users:,} to hold out {heldout_users:,} for "
            f"each of validation and test; lower --heldout-users"
        )
    permuted = present[np.random.RandomState(seed).permutation(len(present))]  # (U,)
    row_of = np.empty(len(events.user_ids), dtype=np.int32)  # row within the permutation, by user code
    row_of[permuted] = np.arange(len(permuted))
    row = row_of[events.users]  # (E,)
    in_train = row < n_train
    vocabulary = vocabulary_of(events, in_train)
    train = rows_of(events, vocabulary, in_train, row, n_train)
    asked = events.keep(~in_train)  # the few events of held-out users: from here on E counts these
    row = row_of[asked.users] - n_train
    known = vocabulary.known(asked)
    parts = []
    for start in (0, heldout_users):
        here = (row >= start) & (row < start + heldout_users) & known
        is_target = _liang_targets(asked, here, seed, target_share)
        users = permuted[n_train + start : n_train + start + heldout_users]
        held_out = HeldOut(
            fold_in=rows_of(asked, vocabulary, here & ~is_target, row - start, heldout_users),
            targets=rows_of(asked, vocabulary, is_target, row - start, heldout_users),
            user_ids=events.user_ids[users],
        )
        parts.append(held_out)
    return Split(
        train=train,
        validation=parts[0],
        test=parts[1],
        item_ids=vocabulary.ids,
        protocol={
            "split": "strong",
            "seed": int(seed),
            "target_share": float(target_share),
            "heldout_users": int(heldout_users),
        },
        dropped={"held-out events on items not in training": int((~known).sum())},
        train_user_ids=events.user_ids[permuted[:n_train]],
    )


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
