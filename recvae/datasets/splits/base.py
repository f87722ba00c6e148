"""The result of a protocol, and the steps that protocols share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp
from pandas.util import hash_array

from recvae.datasets.events import Events
from recvae.errors import UsageError
from recvae.interactions import HeldOut, column_bits, in_chunks, of_positions

# Letters in shape comments: E events, U users, I items (see interactions.py).

SPLIT = "strong"
"""The default protocol."""

LIANG_SEED = 98765
"""The seed of Liang et al. (2018), and the default seed of every split."""

TARGET_SHARE = 0.2
"""Share of a user's items that become targets (strong, holdout)."""

LATER_SHARE = 0.1
"""Share of the events (time), or of a user's items (ready-made), that become targets."""

ONE_HELD_OUT_OF, MOST_HELD_OUT = 10, 10_000
"""Users in each of validation and test (strong): one in 10, at most 10,000."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """The training part and the held-out users of a log.

    Parameters
    ----------
    train : csr_matrix of shape (n_train_users, n_items), float32
        The training interactions.
    validation, test : HeldOut
        The users evaluated during training, and the users evaluated once at the end.
    item_ids : ndarray of shape (n_items,)
        External ids of the columns.
    protocol : dict
        For the manifest: the name as "split", and every setting that was used.
    dropped : dict of str to int
        Numbers of dropped events, by reason.
    train_user_ids : ndarray of shape (n_train_users,), optional
        External ids of the training rows, each once.
    """

    train: sp.csr_matrix
    validation: HeldOut
    test: HeldOut
    item_ids: np.ndarray
    protocol: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    train_user_ids: np.ndarray | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The items of the training part: ids in column order, and the column of each item code (-1: none)."""

    ids: np.ndarray
    column_of: np.ndarray

    def known(self, events: Events) -> np.ndarray:
        """Return which events (E,) have an item of the vocabulary."""
        return self.column_of[events.items] >= 0  # (E,)


def vocabulary_of(events: Events, in_train: np.ndarray) -> Vocabulary:
    """Return the items of the events chosen by a mask (E,), in order of first appearance."""
    seen = [pd.unique(events.items[part][in_train[part]]) for part in in_chunks(len(in_train))]
    codes = pd.unique(np.concatenate(seen))  # (I,) in order of first appearance
    column_of = np.full(len(events.item_ids), -1, dtype=np.int32)
    column_of[codes] = np.arange(len(codes))
    return Vocabulary(events.item_ids[codes], column_of)


def rows_of(events: Events, vocabulary: Vocabulary, chosen: np.ndarray, row: np.ndarray, n_rows: int) -> sp.csr_matrix:
    """Return the chosen events (a mask (E,) of events on known items) as a matrix; `row` (E,) are their rows."""
    shape = (n_rows, len(vocabulary.ids))
    bits = column_bits(shape)
    position = np.empty(int(np.count_nonzero(chosen)), dtype=np.int64)  # row and column as one number
    done = 0
    for part in in_chunks(len(chosen)):
        here = np.flatnonzero(chosen[part])
        into = position[done : done + len(here)]
        np.left_shift(row[part][here], bits, out=into, dtype=np.int64, casting="unsafe")
        into |= vocabulary.column_of[events.items[part][here]]
        done += len(here)
    return of_positions(position, shape)


def rank_within_user(events: Events, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each event's rank (E,) among its user's events by ascending key, and how many that user has (E,)."""
    order = np.lexsort((key, events.users))
    counts = events.user_counts()
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(events), dtype=np.int64)
    rank[order] = np.arange(len(events)) - starts[events.users[order]]
    return rank, counts[events.users]


def pair_hashes(user_ids: np.ndarray, item_ids: np.ndarray, seed: int) -> np.ndarray:
    """Return a number for each pair of a user and an item that depends on their ids and the seed, and on nothing else.

    Parameters
    ----------
    user_ids, item_ids : ndarray of shape (n_pairs,), int64 or object (str)
        External ids.
    seed : int
        Another seed gives other numbers; 0 to 2**32 - 1.

    Returns
    -------
    ndarray of shape (n_pairs,), uint64
    """
    hashed = cast(Callable[[np.ndarray], np.ndarray], hash_array)  # of which pandas states no type
    users, items = (hashed(ids) for ids in (user_ids, item_ids))
    return _mixed(_mixed(users + np.array([seed], dtype=np.uint64)) ^ items)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread every bit of 64 over all others: the last step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def timestamps_of(events: Events, protocol: str) -> np.ndarray:
    """Return the timestamps (E,).

    Raises
    ------
    UsageError
        If the log has none; the message names `protocol`.
    """
    if events.timestamps is None:
        raise UsageError(f"the split '{protocol}' needs timestamps and the log has none; name them with --time-col")
    return events.timestamps


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy's legacy generator does not accept.

    Raises
    ------
    UsageError
        If it is not within 0 to 2**32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"got seed {seed}, expected 0 to 4294967295")


def check_share(share: float, name: str = "target share", such_as: float = TARGET_SHARE) -> None:
    """Refuse a share outside (0, 1); `name` is what the message calls it.

    Raises
    ------
    UsageError
        If it is.
    """
    if not 0 < share < 1:
        raise UsageError(f"got {name} {share}, expected a number between 0 and 1, such as {such_as}")
