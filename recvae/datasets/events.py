"""A log of *who interacted with what*, in one canonical form, and the filters of the papers.

A missing row means "unknown", not "disliked": this is implicit feedback. Ratings, if the log has them, only decide
which rows count as interactions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from recvae.datasets.reading.log import LogColumns, Reading, read_columns
from recvae.datasets.reading.memory import table_of
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.ratings import STARS_MIN_RATING, RatingScale
from recvae.errors import DataError, UsageError

# Letters in shape comments: E events, U users, I items.


@dataclass(frozen=True, kw_only=True)
class Events:
    """A log in file order; ids are replaced by positions in two sorted tables.

    Parameters
    ----------
    users, items : ndarray of shape (n_events,), int32
        Positions in `user_ids` and `item_ids`.
    user_ids, item_ids : ndarray of shape (n_users,) and (n_items,), int64 or object (str)
        The distinct ids of the log, ascending. After a filter, some may have no event left.
    ratings : ndarray of shape (n_events,), float32, optional
        The rating of each event, if the log has ratings.
    timestamps : ndarray of shape (n_events,), int64, optional
        The time of each event in seconds since 1970, if the log has times.
    reading : Reading, optional
        What was read: guesses, rows that were left out, the scale of the ratings, the first and the last time.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    reading: Reading | None = None

    @classmethod
    def from_columns(
        cls,
        users: Iterable[Any],
        items: Iterable[Any],
        ratings: Iterable[Any] | None = None,
        timestamps: Iterable[Any] | None = None,
    ) -> Self:
        """Build events from columns, by the rules that hold for files.

        Parameters
        ----------
        users, items : iterable of length n_events
            External ids: a list, a numpy array, a column of pandas, polars or Arrow. 12, "12", 12.0 and " 12" are one
            id.
        ratings, timestamps : iterable of length n_events, optional
            Ratings; and times: numbers (seconds to nanoseconds since 1970), dates, or ISO 8601 texts. Without a time
            zone, times are UTC.

        Returns
        -------
        Events
            The same rows, in the same order.

        Raises
        ------
        DataError
            If the columns differ in length, an id is missing, no integer or text, or a float that is not whole or not
            exact, a rating is missing or not a finite number, or a time is missing, unreadable or before 1970.

        Examples
        --------
        >>> events = Events.from_columns(["ann", "bob", "ann"], [30, 10, 10])
        >>> events.users.tolist(), events.item_ids.tolist()
        ([0, 1, 0], [10, 30])
        """
        given = {"user": users, "item": items, "rating": ratings, "time": timestamps}
        table = table_of({role: column for role, column in given.items() if column is not None})
        if not table.num_rows:
            empty = np.empty(0, dtype=np.int32)
            no_ids = np.empty(0, dtype=np.int64)
            return cls(users=empty, items=empty, user_ids=no_ids, item_ids=no_ids)
        without = tuple(role for role in ("rating", "time") if role not in table.column_names)
        events = cls.of(read_columns(table, LogFormat(without=without), name="the columns"))
        for reason, count in events.reading.dropped.items() if events.reading is not None else ():
            raise DataError(f"got {count:,} {reason}, expected one per event; drop those rows")
        return events

    @classmethod
    def of(cls, columns: LogColumns) -> Self:
        """Return what a reader has read."""
        return cls(**vars(columns))

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.users)

    def keep(self, chosen: np.ndarray) -> Self:
        """Return the events selected by a boolean mask or an array of row positions, in that order."""
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)  # once: numpy indexes by positions ten times as fast as by a mask
            if len(chosen) == len(self):
                return self
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            ratings=None if self.ratings is None else self.ratings[chosen],
            timestamps=None if self.timestamps is None else self.timestamps[chosen],
        )

    def user_counts(self) -> np.ndarray:
        """Return the number of events of each user, shape (n_users,), int64."""
        return np.bincount(self.users, minlength=len(self.user_ids))

    def item_counts(self) -> np.ndarray:
        """Return the number of events of each item, shape (n_items,), int64."""
        return np.bincount(self.items, minlength=len(self.item_ids))

    def counts(self) -> dict[str, int]:
        """Return the numbers of events, and of users and items with at least one event."""
        return {
            "events": len(self),
            "users": int(np.count_nonzero(_present(self.users, len(self.user_ids)))),
            "items": int(np.count_nonzero(_present(self.items, len(self.item_ids)))),
        }


def _present(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """Return which codes occur, shape (n_codes,); unlike a count, it needs no int64 copy of them."""
    present = np.zeros(n_codes, dtype=bool)
    present[codes] = True
    return present


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which events count as interactions: Liang et al. (2018) keep ratings above 3.5 and users with 5 items or more.

    Parameters
    ----------
    min_rating : float, optional
        Lowest rating that counts as an interaction; None keeps every row.
    min_user_items : int
        Minimum number of items of a user, >= 0.
    min_item_users : int
        Minimum number of users of an item, >= 0.
    """

    min_rating: float | None = None
    min_user_items: int = 5
    min_item_users: int = 0


def usual_min_rating(events: Events) -> float | None:
    """Return the default minimum rating: 4 for stars from 1 to 5, None for a log without ratings.

    Raises
    ------
    UsageError
        If the ratings are on any other scale: where a liking begins there, only their owner knows.
    """
    if events.ratings is None or not len(events):
        return None
    scale = RatingScale.of(events.ratings)
    if scale.are_stars:
        return STARS_MIN_RATING
    raise UsageError(
        f"the ratings run from {scale}; {STARS_MIN_RATING:g} is the usual threshold for stars from 1 to 5 only, so say "
        f"which rows count: {scale.suggestion}; in Python, Filters(min_rating=...), or Filters() for every row"
    )


@dataclass(frozen=True)
class FilterStep:
    """The name of a filter, and the counts after it."""

    name: str
    events: int
    users: int
    items: int


def filter_events(events: Events, filters: Filters) -> tuple[Events, list[FilterStep]]:
    """Apply the filters once, in the paper's order: rating, duplicates, items, then users.

    No filter is repeated: an item may end with fewer users than asked once the user filter has run, as in
    Liang et al. (2018).

    Parameters
    ----------
    events : Events
        The log.
    filters : Filters
        The thresholds.

    Returns
    -------
    events : Events
        The events that are left, in file order.
    steps : list of FilterStep
        The counts at the start and after each filter.

    Raises
    ------
    UsageError
        If `min_rating` is given for a log without ratings, or a threshold is negative.
    DataError
        If no event is left; the message names the filter that removed the last one.
    """
    _check(events, filters)
    steps = [FilterStep("as read", **events.counts())]

    def step(name: str, left: Events) -> Events:
        unchanged = len(left) == steps[-1].events  # no event removed: the same counts
        steps.append(replace(steps[-1], name=name) if unchanged else FilterStep(name, **left.counts()))
        if len(left) == 0:
            raise DataError(_nothing_left(name, events, steps))
        return left

    left = events
    if filters.min_rating is not None and events.ratings is not None:
        left = step(f"rating >= {filters.min_rating:g}", left.keep(events.ratings >= filters.min_rating))
    left = step("duplicates dropped", drop_duplicates(left))
    if filters.min_item_users > 0:
        enough = left.item_counts() >= filters.min_item_users  # (I,)
        left = step(f"items with >= {filters.min_item_users} users", left.keep(enough[left.items]))
    if filters.min_user_items > 0:
        enough = left.user_counts() >= filters.min_user_items  # (U,)
        left = step(f"users with >= {filters.min_user_items} items", left.keep(enough[left.users]))
    return left, steps


def _check(events: Events, filters: Filters) -> None:
    if filters.min_rating is not None and events.ratings is None:
        raise UsageError(
            f"got min_rating {filters.min_rating:g}, but the log has no rating column; "
            "name it with --rating-col, or omit --min-rating"
        )
    for name in ("min_user_items", "min_item_users"):
        if getattr(filters, name) < 0:
            raise UsageError(f"got {name} {getattr(filters, name)}, expected 0 or more")


def _nothing_left(name: str, events: Events, steps: list[FilterStep]) -> str:
    message = f"the filter '{name}' left no event of {steps[-2].events:,}"
    if name.startswith("rating") and events.ratings is not None:
        low, high = events.ratings.min(), events.ratings.max()
        message += f" (the ratings run from {low:g} to {high:g})"
    return message + "; lower --min-rating, --min-user-items or --min-item-users"


def _pairs(events: Events) -> np.ndarray:
    """Return the (user, item) pair of each event as one number (E,), int64."""
    pairs = events.users.astype(np.int64)
    pairs *= len(events.item_ids)
    pairs += events.items
    return pairs


def drop_duplicates(events: Events) -> Events:
    """Keep each (user, item) pair once: its earliest event, or its first row where there are no timestamps.

    The earliest is kept so that something consumed twice never becomes a target after it was already known.
    """
    ascending = _pairs(events)
    ascending.sort()  # numpy sorts integers ten times as fast as pandas hashes them
    if not (ascending[1:] == ascending[:-1]).any():
        return events
    pair = _pairs(events)  # (E,)
    if events.timestamps is None:
        return events.keep(~pd.Series(pair).duplicated(keep="first").to_numpy())
    by_time = np.argsort(events.timestamps, kind="stable")  # (E,) earliest first, file order among equals
    first = ~pd.Series(pair[by_time]).duplicated(keep="first").to_numpy()
    return events.keep(np.sort(by_time[first]))
