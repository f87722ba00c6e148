"""Evaluation protocols: who is trained on, who is asked, what they are given and what they should find.

    strong           unseen users: part of their items is folded in, the rest are targets (Liang et al. 2018)
    holdout          the same users: a random share of each user's items are targets
    leave-last-out   the same users: the last item of each is the test target, the one before for validation
    time             one global moment: nothing after it is known in training
    ready-made       a train / test pair made elsewhere

In every protocol the items are those of the training part, in order of first appearance there, as in the
paper's own code. Events on other items are dropped from the held-out parts and counted.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp

from recvae.errors import DataError, UsageError
from recvae.events import Events
from recvae.interactions import HeldOut, interactions

PROTOCOLS = ("strong", "holdout", "leave-last-out", "time")
LIANG_SEED = 98765
_MIN_ITEMS_TO_HOLD_OUT = 5  # users with fewer items keep them all in the fold-in (Liang et al.)

# Letters in shape comments: E events, U users, I items (see interactions.py).


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a protocol makes of the events.

    Parameters
    ----------
    train : csr_matrix of shape (n_train_users, n_items), float32
        The training interactions.
    validation, test : HeldOut
        The users asked while training, and once at the end.
    item_ids : ndarray of shape (n_items,)
        External ids of the columns.
    dropped : dict of str to int
        What had to be left out, by reason.
    """

    train: sp.csr_matrix
    validation: HeldOut
    test: HeldOut
    item_ids: np.ndarray
    dropped: dict[str, int] = field(default_factory=dict)


def split_events(
    events: Events,
    protocol: str = "strong",
    *,
    heldout_users: int | None = None,
    seed: int = LIANG_SEED,
    target_share: float = 0.2,
) -> Split:
    """Split events by the protocol of that name.

    Parameters
    ----------
    events : Events
        Filtered events in file order.
    protocol : str
        One of `PROTOCOLS`.
    heldout_users : int, optional
        For `strong`: users in each of validation and test. By default a tenth of the users, at least 1 and at
        most 10,000.
    seed : int
        Seed of every draw, >= 0.
    target_share : float
        For `strong` and `holdout`: share of a user's items that become targets, in (0, 1).

    Returns
    -------
    Split
        Train, validation and test.

    Raises
    ------
    UsageError
        If there is no such protocol, or an argument is out of range.
    DataError
        If the events do not allow the split.
    """
    if seed < 0 or seed >= 2**32:
        raise UsageError(f"got seed {seed}, expected 0 to 4294967295")
    if protocol == "strong":
        if heldout_users is None:
            heldout_users = min(10_000, max(1, int(np.count_nonzero(events.user_counts())) // 10))
        return strong(events, heldout_users, seed, target_share)
    if protocol == "holdout":
        return holdout(events, seed, target_share)
    if protocol == "leave-last-out":
        return leave_last_out(events)
    if protocol == "time":
        return time(events)
    raise UsageError(f"got split '{protocol}', expected one of: {', '.join(PROTOCOLS)}")


def strong(events: Events, heldout_users: int, seed: int = LIANG_SEED, target_share: float = 0.2) -> Split:
    """Split by user, bit for bit as Liang et al. (2018) did in their published notebook.

    Users in ascending order of id are permuted with numpy's legacy generator; the last `heldout_users` are
    test users, those before validation users. Of each held-out user with at least five items,
    floor(target_share * n) become targets, drawn in ascending order of user id by a generator seeded anew for
    each of the two parts.

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
    _check_share(target_share)
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
    row_of = np.empty(len(events.user_ids), dtype=np.int64)  # row within the permutation, by user code
    row_of[permuted] = np.arange(len(permuted))
    row = row_of[events.users]  # (E,)
    vocabulary = _vocabulary(events, row < n_train)
    train = _rows(events, vocabulary, row < n_train, row, n_train)
    parts = []
    for start in (n_train, n_train + heldout_users):
        here = (row >= start) & (row < start + heldout_users) & vocabulary.known(events)
        is_target = _liang_targets(events, here, seed, target_share)
        held_out = HeldOut(
            fold_in=_rows(events, vocabulary, here & ~is_target, row - start, heldout_users),
            targets=_rows(events, vocabulary, is_target, row - start, heldout_users),
            user_ids=events.user_ids[permuted[start : start + heldout_users]],
        )
        parts.append(held_out)
    dropped = {"held-out events on items not in training": int(((row >= n_train) & ~vocabulary.known(events)).sum())}
    return Split(train=train, validation=parts[0], test=parts[1], item_ids=vocabulary.ids, dropped=dropped)


def _liang_targets(events: Events, here: np.ndarray, seed: int, share: float) -> np.ndarray:
    """Return which events (E,) of one held-out part are targets, drawn user by user as in the paper's code."""
    positions = np.flatnonzero(here)
    positions = positions[np.argsort(events.users[positions], kind="stable")]  # by user id, file order within
    _, starts, sizes = np.unique(events.users[positions], return_index=True, return_counts=True)
    generator = np.random.RandomState(seed)
    enough = sizes >= _MIN_ITEMS_TO_HOLD_OUT
    # One draw per user is part of the protocol: the generator's state runs on from user to user.
    drawn = [
        start + generator.choice(size, size=int(share * size), replace=False)
        for start, size in zip(starts[enough].tolist(), sizes[enough].tolist(), strict=True)
    ]
    is_target = np.zeros(len(events), dtype=bool)  # (E,)
    if drawn:
        is_target[positions[np.concatenate(drawn).astype(np.int64)]] = True
    return is_target


def holdout(events: Events, seed: int = LIANG_SEED, target_share: float = 0.2) -> Split:
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
    _check_share(target_share)
    rank, size = _rank_within_user(events, np.random.default_rng(seed).random(len(events)))
    n_test = (target_share * size).astype(np.int64)  # (E,) as floor
    n_validation = (target_share * (size - n_test)).astype(np.int64)
    return _same_users(events, is_test=rank < n_test, is_validation=(rank >= n_test) & (rank < n_test + n_validation))


def leave_last_out(events: Events) -> Split:
    """Take each user's last event as the test target and the one before as the validation target.

    Users with fewer than three events are only trained on. Each user has a "last" moment of his own, so other
    users' later events are in training; where that matters, use `time`.

    Raises
    ------
    UsageError
        If the log has no timestamps.
    """
    order = _timestamps(events, "leave-last-out")
    # Later first: rank 0 is the last event. File order decides among equal times.
    rank, size = _rank_within_user(events, -np.argsort(np.argsort(order, kind="stable"), kind="stable"))
    return _same_users(events, is_test=(rank == 0) & (size >= 3), is_validation=(rank == 1) & (size >= 3))


def time(events: Events, validation_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Split at global moments: train before the first, validation targets up to the second, test targets after.

    Only users with a history before the moment and a target after it are asked.

    Parameters
    ----------
    events : Events
        Filtered events with timestamps.
    validation_share, test_share : float
        Shares of all events that fall into the two last periods, in (0, 1).

    Returns
    -------
    Split
        No event of training is as late as any validation target, and none of validation as any test target.

    Raises
    ------
    UsageError
        If the log has no timestamps.
    DataError
        If a period would be empty.
    """
    moments = np.sort(_timestamps(events, "time"))
    n_later = int(test_share * len(moments)), int((validation_share + test_share) * len(moments))
    test_start, validation_start = (int(moments[len(moments) - max(1, n)]) for n in n_later)
    stamps = _timestamps(events, "time")
    in_train, in_test = stamps < validation_start, stamps >= test_start
    if not in_train.any() or validation_start == test_start:
        raise DataError(
            "the timestamps are too few or too alike to cut the log at two moments; check the time column, "
            "or use another --split"
        )
    vocabulary = _vocabulary(events, in_train)
    known = vocabulary.known(events)
    users = np.unique(events.users[in_train])
    rows = np.searchsorted(users, events.users)
    train = _rows(events, vocabulary, in_train, rows, len(users))
    validation = _asked(events, vocabulary, in_train, ~in_train & ~in_test & known)
    test = _asked(events, vocabulary, ~in_test & known, in_test & known)
    dropped = {"later events on items not in training": int((~in_train & ~known).sum())}
    return Split(train=train, validation=validation, test=test, item_ids=vocabulary.ids, dropped=dropped)


def ready_made(train: Events, test: Events, seed: int = LIANG_SEED, validation_share: float = 0.1) -> Split:
    """Take a train / test pair made elsewhere, and carve the validation targets out of its training part.

    The items are those of the training file as it came, so that numbers stay comparable with others'. At
    test time a user's whole training history is the fold-in.

    Parameters
    ----------
    train, test : Events
        The two files.
    seed : int
        Seed of the draw of validation targets.
    validation_share : float
        Share of each user's training items that become validation targets, in (0, 1); rounded down.

    Returns
    -------
    Split
        One row per training user, in ascending order of user id.

    Raises
    ------
    DataError
        If the files share no user or no item.
    """
    vocabulary = _vocabulary(train, np.ones(len(train), dtype=bool))
    rank, size = _rank_within_user(train, np.random.default_rng(seed).random(len(train)))
    is_validation = rank < (validation_share * size).astype(np.int64)
    n_users = len(train.user_ids)
    row = pd.Index(train.user_ids).get_indexer(pd.Index(test.user_ids))[test.users]  # (E,) -1 where unknown
    column = pd.Index(vocabulary.ids).get_indexer(pd.Index(test.item_ids))[test.items]
    known = (row >= 0) & (column >= 0)
    if not known.any():
        raise DataError(
            "no test event has a user and an item of the training file; check that both files use the same ids"
        )
    whole = _rows(train, vocabulary, np.ones(len(train), dtype=bool), train.users, n_users)
    targets = interactions(row[known], column[known], whole.shape)
    fold_in = _rows(train, vocabulary, ~is_validation, train.users, n_users)
    validation_targets = _rows(train, vocabulary, is_validation, train.users, n_users)
    dropped = {
        "test events of users not in training": int((row < 0).sum()),
        "test events on items not in training": int(((row >= 0) & (column < 0)).sum()),
    }
    return Split(
        train=fold_in,
        validation=HeldOut(fold_in=fold_in, targets=validation_targets, user_ids=train.user_ids),
        test=HeldOut(fold_in=whole, targets=targets, user_ids=train.user_ids),
        item_ids=vocabulary.ids,
        dropped=dropped,
    )


@dataclass(frozen=True)
class _Vocabulary:
    """The items of the training part: their ids in column order, and the column of each item code (-1: none)."""

    ids: np.ndarray
    column_of: np.ndarray

    def known(self, events: Events) -> np.ndarray:
        return self.column_of[events.items] >= 0  # (E,)


def _vocabulary(events: Events, in_train: np.ndarray) -> _Vocabulary:
    codes = pd.unique(events.items[in_train])  # (I,) in order of first appearance
    column_of = np.full(len(events.item_ids), -1, dtype=np.int64)
    column_of[codes] = np.arange(len(codes))
    return _Vocabulary(events.item_ids[codes], column_of)


def _rows(events: Events, vocabulary: _Vocabulary, chosen: np.ndarray, row: np.ndarray, n_rows: int) -> sp.csr_matrix:
    columns = vocabulary.column_of[events.items[chosen]]
    return interactions(row[chosen], columns, (n_rows, len(vocabulary.ids)))


def _rank_within_user(events: Events, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each event's rank (E,) among its user's events by ascending key, and how many that user has (E,)."""
    order = np.lexsort((key, events.users))
    counts = events.user_counts()
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(events), dtype=np.int64)
    rank[order] = np.arange(len(events)) - starts[events.users[order]]
    return rank, counts[events.users]


def _same_users(events: Events, is_test: np.ndarray, is_validation: np.ndarray) -> Split:
    """Split the events of every user; the vocabulary is that of what is left for training."""
    in_train = ~is_test & ~is_validation
    vocabulary = _vocabulary(events, in_train)
    known = vocabulary.known(events)
    users, row = np.unique(events.users, return_inverse=True)

    def part(chosen: np.ndarray) -> sp.csr_matrix:
        return _rows(events, vocabulary, chosen & known, row, len(users))

    ids = events.user_ids[users]
    train = part(in_train)
    return Split(
        train=train,
        validation=HeldOut(fold_in=train, targets=part(is_validation), user_ids=ids),
        test=HeldOut(fold_in=part(~is_test), targets=part(is_test), user_ids=ids),
        item_ids=vocabulary.ids,
        dropped={"held-out events on items not in training": int((~known).sum())},
    )


def _asked(events: Events, vocabulary: _Vocabulary, history: np.ndarray, targets: np.ndarray) -> HeldOut:
    """Return the users that have both a history and a target."""
    users = np.intersect1d(events.users[history], events.users[targets])
    if not len(users):
        raise DataError("no user has events both before and after the moment of the split; use another --split")
    asked = np.isin(events.users, users)
    row = np.searchsorted(users, events.users)
    return HeldOut(
        fold_in=_rows(events, vocabulary, history & asked, row, len(users)),
        targets=_rows(events, vocabulary, targets & asked, row, len(users)),
        user_ids=events.user_ids[users],
    )


def _timestamps(events: Events, protocol: str) -> np.ndarray:
    if events.timestamps is None:
        raise UsageError(f"the split '{protocol}' needs timestamps and the log has none; name them with --time-col")
    return events.timestamps


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise UsageError(f"got target share {share}, expected a number between 0 and 1, such as 0.2")
