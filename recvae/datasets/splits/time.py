"""Global points in time: nothing that happens after them is known in training."""

import numpy as np

from recvae.datasets.events import Events
from recvae.datasets.splits.base import (
    LATER_SHARE,
    Split,
    Vocabulary,
    check_share,
    rows_of,
    timestamps_of,
    vocabulary_of,
)
from recvae.errors import DataError, UsageError
from recvae.interactions import HeldOut

# Letters in shape comments: E events, U users.

NEW_ITEMS, NEW_USERS = "later events on items not in training", "later events of users without a history before"
"""What the manifest calls later events that are no targets."""


def time_split(events: Events, validation_share: float = LATER_SHARE, test_share: float = LATER_SHARE) -> Split:
    """Split at two points in time: train before the first, validation targets up to the second, test targets after.

    Only users with a history before the point and a target after it are evaluated. All events at the very moment of a
    point are after it, so that neither the order of the lines nor a draw decides. If the shares alone would have put
    some of them before it, the protocol has their number as `tied_events`.

    Parameters
    ----------
    events : Events
        Filtered events with timestamps.
    validation_share, test_share : float
        Shares of all events in the last two periods, each in (0, 1), and together below 1.

    Returns
    -------
    Split
        Every training event is before every validation target, and these are before every test target.

    Raises
    ------
    UsageError
        If the log has no timestamps, or a share is out of range.
    DataError
        If a period would be empty.
    """
    check_share(validation_share, "validation share", LATER_SHARE)
    check_share(test_share, "test share", LATER_SHARE)
    if validation_share + test_share >= 1:
        raise UsageError(
            f"got validation share {validation_share} and test share {test_share}, expected a sum below 1; "
            "leave something to train on"
        )
    moments = np.sort(timestamps_of(events, "time"))
    places = starts_of(len(moments), validation_share, test_share)
    test_start, validation_start = (int(moments[place]) for place in places)
    n_tied = sum(place - int(np.searchsorted(moments, moments[place])) for place in places)
    stamps = timestamps_of(events, "time")
    in_train, in_test = stamps < validation_start, stamps >= test_start
    if not in_train.any() or validation_start == test_start:
        raise DataError("too few distinct timestamps to split by time; check the time column, or use another --split")
    vocabulary = vocabulary_of(events, in_train)
    known = vocabulary.known(events)
    users = np.unique(events.users[in_train])
    rows = np.searchsorted(users, events.users)
    train = rows_of(events, vocabulary, in_train, rows, len(users))
    validation, n_new = _asked(events, vocabulary, in_train, ~in_train & ~in_test & known)
    test, n_newer = _asked(events, vocabulary, ~in_test & known, in_test & known)
    dropped = dropped_of(int((~in_train & ~known).sum()), n_new + n_newer)
    protocol = {
        "split": "time",
        "validation_share": float(validation_share),
        "test_share": float(test_share),
        "validation_start": validation_start,
        "test_start": test_start,
        **({"tied_events": n_tied} if n_tied else {}),
    }
    return Split(
        train=train,
        validation=validation,
        test=test,
        item_ids=vocabulary.ids,
        protocol=protocol,
        dropped=dropped,
        train_user_ids=events.user_ids[users],
    )


def starts_of(n_events: int, validation_share: float, test_share: float) -> tuple[int, int]:
    """Return the places of the first test event and of the first validation event, among events ordered by time."""
    n_later = int(test_share * n_events), int((validation_share + test_share) * n_events)
    return n_events - max(1, n_later[0]), n_events - max(1, n_later[1])


def dropped_of(of_new_items: int, of_new_users: int) -> dict[str, int]:
    """Return the numbers of later events that are no targets; with training events and targets, these are all."""
    return {NEW_ITEMS: of_new_items, **({NEW_USERS: of_new_users} if of_new_users else {})}


def _asked(events: Events, vocabulary: Vocabulary, history: np.ndarray, targets: np.ndarray) -> tuple[HeldOut, int]:
    """Return the users that have both a history and a target, and how many targets others have."""
    users = np.intersect1d(events.users[history], events.users[targets])
    if not len(users):
        raise DataError("no user has events both before and after the time of the split; use another --split")
    asked = np.isin(events.users, users)
    row = np.searchsorted(users, events.users)
    held_out = HeldOut(
        fold_in=rows_of(events, vocabulary, history & asked, row, len(users)),
        targets=rows_of(events, vocabulary, targets & asked, row, len(users)),
        user_ids=events.user_ids[users],
    )
    return held_out, int(np.count_nonzero(targets & ~asked))
