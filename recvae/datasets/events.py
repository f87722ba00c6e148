"""A log of *who interacted with what*, in one canonical form, and the filters of the papers.

A missing row means "unknown", not "disliked": this is implicit feedback. Ratings, if the log has them, only decide
which rows count as interactions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from recvae.datasets.reading.log import LogColumns, read_columns
from recvae.datasets.reading.memory import table_of
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.ratings import STARS_MIN_RATING, RatingScale
from recvae.datasets.reading.report import Reading
from recvae.errors import DataError, UsageError
from recvae.interactions import chosen_of, counts_of, in_chunks, sort_integers

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
    reading: Reading | None = field(default=None, repr=False, compare=False)

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

    def keep(self, chosen: np.ndarray, consume: bool = False) -> Self:
        """Return the events selected by a boolean mask or an array of row positions, in that order.

        Parameters
        ----------
        chosen : ndarray
            A mask (E,), or positions.
        consume : bool
            Whether the columns may be used up: each is freed as soon as its events are copied.
        """
        if chosen.dtype == bool and chosen.all():
            return self
        kept = {}
        for name in _COLUMNS:
            column = getattr(self, name)
            kept[name] = None if column is None else chosen_of(column, chosen)
            del column
            if consume:
                self.release(name)
        return replace(self, **kept)

    def release(self, column: str) -> None:
        """Forget a column that nobody needs any more; the events are not whole without it."""
        object.__setattr__(self, column, None)

    def user_counts(self) -> np.ndarray:
        """Return the number of events of each user, shape (n_users,), int64."""
        return counts_of(self.users, len(self.user_ids))

    def item_counts(self) -> np.ndarray:
        """Return the number of events of each item, shape (n_items,), int64."""
        return counts_of(self.items, len(self.item_ids))

    def counts(self) -> dict[str, int]:
        """Return the numbers of events, and of users and items with at least one event."""
        return {
            "events": len(self),
            "users": int(np.count_nonzero(_present(self.users, len(self.user_ids)))),
            "items": int(np.count_nonzero(_present(self.items, len(self.item_ids)))),
        }


_COLUMNS = ("users", "items", "ratings", "timestamps")


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
    return usual_min_rating_of(RatingScale.of(events.ratings))


def usual_min_rating_of(scale: RatingScale) -> float:
    """Return the default minimum rating on a scale; see `usual_min_rating`.

    Raises
    ------
    UsageError
        If they are no stars from 1 to 5.
    """
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


def filter_events(events: Events, filters: Filters, consume: bool = False) -> tuple[Events, list[FilterStep]]:
    """Apply the filters once, in the paper's order: rating, duplicates, items, then users.

    No filter is repeated: an item may end with fewer users than asked once the user filter has run, as in
    Liang et al. (2018).

    Parameters
    ----------
    events : Events
        The log.
    filters : Filters
        The thresholds.
    consume : bool
        Whether the columns of `events` may be used up, to save memory.

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
    check_filters(filters, events.ratings is not None)
    steps = [FilterStep("as read", **events.counts())]
    ratings = None if events.ratings is None or not len(events) else (events.ratings.min(), events.ratings.max())

    def step(name: str, left: Events) -> Events:
        unchanged = len(left) == steps[-1].events  # no event removed: the same counts
        steps.append(replace(steps[-1], name=name) if unchanged else FilterStep(name, **left.counts()))
        if len(left) == 0:
            raise DataError(nothing_left(name, ratings, steps))
        return left

    left = events
    liked = None
    if filters.min_rating is not None and events.ratings is not None:
        liked = events.ratings >= filters.min_rating  # (E,)
    if consume:
        left.release("ratings")
    if liked is not None:
        left = step(f"rating >= {filters.min_rating:g}", left.keep(liked, consume))
    left = step("duplicates dropped", drop_duplicates(left, consume))
    if filters.min_item_users > 0:
        enough = left.item_counts() >= filters.min_item_users  # (I,)
        left = step(f"items with >= {filters.min_item_users} users", left.keep(enough[left.items], consume))
    if filters.min_user_items > 0:
        enough = left.user_counts() >= filters.min_user_items  # (U,)
        left = step(f"users with >= {filters.min_user_items} items", left.keep(enough[left.users], consume))
    return left, steps


def check_filters(filters: Filters, has_ratings: bool) -> None:
    """Refuse filters that are wrong for a log with ratings, or without.

    Raises
    ------
    UsageError
        If `min_rating` is given for a log without ratings, or a threshold is negative.
    """
    if filters.min_rating is not None and not has_ratings:
        raise UsageError(
            f"got min_rating {filters.min_rating:g}, but the log has no rating column; "
            "name it with --rating-col, or omit --min-rating"
        )
    for name in ("min_user_items", "min_item_users"):
        if getattr(filters, name) < 0:
            raise UsageError(f"got {name} {getattr(filters, name)}, expected 0 or more")


def nothing_left(name: str, ratings: tuple[float, float] | None, steps: list[FilterStep]) -> str:
    """Return the message about a filter that removed the last event; the last of `steps` is that filter."""
    message = f"the filter '{name}' left no event of {steps[-2].events:,}"
    if name.startswith("rating") and ratings is not None:
        message += f" (the ratings run from {ratings[0]:g} to {ratings[1]:g})"
    return message + "; lower --min-rating, --min-user-items or --min-item-users"


def _pairs(events: Events) -> np.ndarray:
    """Return the (user, item) pair of each event as one number (E,), int64."""
    pairs = events.users.astype(np.int64)
    pairs *= len(events.item_ids)
    pairs += events.items
    return pairs


def drop_duplicates(events: Events, consume: bool = False) -> Events:
    """Keep each (user, item) pair once: its earliest event, or its first row where there are no timestamps.

    The earliest is kept so that something consumed twice never becomes a target after it was already known.

    Parameters
    ----------
    events : Events
        The log.
    consume : bool
        Whether the columns of `events` may be used up, to save memory.
    """
    ascending = _pairs(events)
    sort_integers(ascending)  # numpy sorts integers ten times as fast as pandas hashes them
    again = ascending[1:][ascending[1:] == ascending[:-1]]
    if not len(again):
        return events
    again = again[np.append(True, again[1:] != again[:-1])]  # (D,) the pairs that occur more than once, ascending
    del ascending
    pair = _pairs(events)  # (E,)
    is_first = np.ones(len(pair), dtype=bool)
    for part in in_chunks(len(pair)):
        place = np.searchsorted(again, pair[part])
        is_first[part] = again[np.minimum(place, len(again) - 1)] != pair[part]
    repeated = np.flatnonzero(~is_first)  # (R,) the events of these pairs
    pair = pair[repeated]
    if events.timestamps is not None:  # earliest first, file order among equals
        order = np.argsort(events.timestamps[repeated], kind="stable")
        repeated, pair = repeated[order], pair[order]
    is_first[repeated[~pd.Series(pair).duplicated(keep="first").to_numpy()]] = True
    return events.keep(is_first, consume)
