"""The protocols by name, and the one function that splits events by any of them."""

import numpy as np

from recvae.datasets.events import Events
from recvae.datasets.splits.base import (
    LIANG_SEED,
    MOST_HELD_OUT,
    ONE_HELD_OUT_OF,
    SPLIT,
    TARGET_SHARE,
    Split,
    check_seed,
    check_share,
)
from recvae.datasets.splits.same_users import holdout, leave_last_out
from recvae.datasets.splits.strong import strong
from recvae.datasets.splits.time import time_split
from recvae.errors import DataError, UsageError

PROTOCOLS = ("strong", "holdout", "leave-last-out", "time")
NEEDS_TIMES = ("leave-last-out", "time")


def check_protocol(protocol: str, heldout_users: int | None, seed: int, target_share: float) -> None:
    """Refuse a protocol that is wrong for any events; the arguments are those of `split_events`.

    Raises
    ------
    UsageError
        If the protocol is unknown, or an argument is out of range.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"got split '{protocol}', expected one of: {', '.join(PROTOCOLS)}")
    check_seed(seed)
    check_share(target_share)
    if heldout_users is not None and heldout_users < 1:
        raise UsageError(f"got {heldout_users} held-out users, expected 1 or more for each of validation and test")


def usual_heldout_users(n_users: int) -> int:
    """Return how many users are held out for each of validation and test by default, of users with an event."""
    return min(MOST_HELD_OUT, max(1, n_users // ONE_HELD_OUT_OF))


def split_events(
    events: Events,
    protocol: str = SPLIT,
    *,
    heldout_users: int | None = None,
    seed: int = LIANG_SEED,
    target_share: float = TARGET_SHARE,
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
        For `strong` and `holdout`: seed of every draw, >= 0. For `leave-last-out`: decides among equal times.
    target_share : float
        For `strong` and `holdout`: share of a user's items that become targets, in (0, 1).

    Returns
    -------
    Split
        Train, validation and test.

    Raises
    ------
    UsageError
        If the protocol is unknown, or an argument is out of range.
    DataError
        If the events do not allow the split.
    """
    check_protocol(protocol, heldout_users, seed, target_share)
    if not len(events):
        raise DataError("got no events to split; check the log and the filters")
    if protocol == "strong":
        if heldout_users is None:
            heldout_users = usual_heldout_users(int(np.count_nonzero(events.user_counts())))
        return strong(events, heldout_users, seed, target_share)
    if protocol == "holdout":
        return holdout(events, seed, target_share)
    if protocol == "leave-last-out":
        return leave_last_out(events, seed)
    return time_split(events)
