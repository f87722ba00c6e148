"""A log of *who interacted with what*, in one canonical form, and the filters of the papers.

A missing row means "unknown", not "disliked": this is implicit feedback. Ratings, if the log has them, only decide
which rows count as interactions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from recvae.errors import DataError, UsageError

LIANG_MIN_RATING = 4.0
"""Liang et al. (2018) keep ratings above 3.5; there are no stars between 3.5 and 4."""

RowName = Callable[[int], str]  # what messages call a row: file and line, or column and position

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
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray | None = None
    timestamps: np.ndarray | None = None

    @classmethod
    def from_columns(
        cls,
        users: Sequence[Any] | np.ndarray | pd.Series,
        items: Sequence[Any] | np.ndarray | pd.Series,
        ratings: Sequence[float] | np.ndarray | pd.Series | None = None,
        timestamps: Sequence[int] | np.ndarray | pd.Series | None = None,
    ) -> Self:
        """Build events from columns of ids (in each column all integers or all strings).

        Parameters
        ----------
        users, items : sequence of length n_events
            External ids.
        ratings, timestamps : sequence of length n_events, optional
            Ratings, and seconds since 1970 or dates (datetime64 or datetime; without a time zone, UTC).

        Returns
        -------
        Events
            The same rows, in the same order.

        Raises
        ------
        DataError
            If the columns differ in length, an id is missing or neither an integer nor a string, a rating is
            missing or not a finite number, or a time is missing, not a number or before 1970.

        Examples
        --------
        >>> events = Events.from_columns(["ann", "bob", "ann"], [30, 10, 10])
        >>> events.users.tolist(), events.item_ids.tolist()
        ([0, 1, 0], [10, 30])
        """
        lengths = {len(column) for column in (users, items, ratings, timestamps) if column is not None}
        if len(lengths) > 1:
            raise DataError(f"got columns of {sorted(lengths)} rows, expected the same length; align them first")
        user_codes, user_ids = _sorted_codes(np.asarray(users), "user")
        item_codes, item_ids = _sorted_codes(np.asarray(items), "item")
        return cls(
            users=user_codes,
            items=item_codes,
            user_ids=user_ids,
            item_ids=item_ids,
            ratings=None if ratings is None else _ratings(ratings),
            timestamps=None if timestamps is None else _seconds(timestamps),
        )

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


def refuse_rows(bad: np.ndarray, what: str, place: RowName) -> None:
    """Raise if a mask (E,) marks any event; the message names the first one and counts the others."""
    if bad.any():
        others = int(bad.sum()) - 1
        more = f" (and {others:,} more such rows)" if others else ""
        raise DataError(f"{place(int(bad.argmax()))}: the {what}; repair or remove it{more}")


def check_ratings(ratings: np.ndarray, place: RowName) -> np.ndarray:
    """Return ratings (E,) as float32, where NaN means "no number".

    Raises
    ------
    DataError
        If one is not finite.
    """
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused
        ratings = ratings.astype(np.float32, copy=False)
    refuse_rows(~np.isfinite(ratings), "rating is missing, not a number or infinite, expected a number", place)
    return ratings


def check_times(times: np.ndarray, missing: np.ndarray, place: RowName) -> np.ndarray:
    """Return times (E,) in seconds since 1970; `missing` (E,) marks those that are missing.

    Raises
    ------
    DataError
        If one is missing or negative.
    """
    refuse_rows(missing, "time is missing or not a number, expected seconds since 1970", place)
    refuse_rows(times < 0, "time is negative, expected seconds since 1970", place)
    return times


def _series(column: Any) -> pd.Series:
    """Return a column as numbers or as dates in UTC; other values become missing."""
    series = pd.Series(column)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype)
    is_dates = series.dtype.kind == "O" and pd.api.types.infer_dtype(series) in ("datetime", "datetime64", "date")
    if series.dtype.kind == "M" or is_dates:
        return pd.to_datetime(series, utc=True, errors="coerce")
    if series.dtype.kind in "mc":  # durations and complex numbers, which pandas would convert to numbers
        return pd.Series(np.full(len(series), np.nan))
    return pd.Series(pd.to_numeric(series, errors="coerce"))


def _ratings(column: Any) -> np.ndarray:
    """Return checked ratings (E,), float32, of a column."""
    series = _series(column)
    if series.dtype.kind == "M":
        series = pd.Series(np.full(len(series), np.nan))
    return check_ratings(series.to_numpy(np.float64, na_value=np.nan), lambda row: f"ratings[{row}]")


def _seconds(column: Any) -> np.ndarray:
    """Return checked whole seconds since 1970 (E,), int64, of a column of seconds or of dates."""
    series = _series(column)
    missing = series.isna().to_numpy(bool)  # (E,)
    if series.dtype.kind == "M":
        times = series.dt.tz_localize(None).to_numpy("datetime64[s]").astype(np.int64)
    elif series.dtype.kind in "iu":
        times = series.fillna(0).to_numpy(np.int64)
    else:
        decimal = series.to_numpy(np.float64, na_value=np.nan)
        missing = ~(np.abs(decimal) < 2.0**63)  # NaN and infinite too
        times = np.where(missing, 0, decimal).astype(np.int64)
    return check_times(times, missing, lambda row: f"timestamps[{row}]")


def _sorted_codes(values: np.ndarray, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Return int32 codes (E,) and the ascending distinct ids, int64 or object."""
    if values.dtype.kind == "f" and len(values):
        raise DataError(f"got {role} ids of type {values.dtype}, expected integers or strings; convert them first")
    if values.dtype.kind == "O" and pd.isna(values).any():
        raise DataError(
            f"{int(pd.isna(values).sum()):,} {role} ids are missing, expected one per event; drop those rows"
        )
    if values.dtype.kind in "iu" and (values.dtype != np.uint64 or values.max(initial=0) < 2**63):
        values = values.astype(np.int64, copy=False)
    else:
        values = values.astype(str).astype(object)
    codes, ids = pd.factorize(values, sort=True)
    return codes.astype(np.int32), np.asarray(ids)


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
    """Return the default minimum rating: that of the paper, or None for a log without ratings."""
    return None if events.ratings is None else LIANG_MIN_RATING


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
