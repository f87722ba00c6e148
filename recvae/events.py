"""A log of *who interacted with what*, in one canonical form, and the filters of the papers.

A row that is not there means "unknown", not "disliked": this is implicit feedback. Ratings, where a log has
them, only decide which rows count as an interaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from recvae.errors import DataError, UsageError

# Letters in shape comments: E events, U users, I items.


@dataclass(frozen=True, kw_only=True)
class Events:
    """A log in file order, ids replaced by positions in two sorted tables.

    Parameters
    ----------
    users, items : ndarray of shape (n_events,), int32
        Positions in `user_ids` and `item_ids`.
    user_ids, item_ids : ndarray of shape (n_users,) and (n_items,), int64 or object (str)
        The ids as the log wrote them, ascending, each once. After a filter, some may have no event left.
    ratings : ndarray of shape (n_events,), float32, optional
        The rating of each event, where the log has one.
    timestamps : ndarray of shape (n_events,), int64, optional
        Seconds since 1970 of each event, where the log has them.
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
        """Build events from plain columns of ids (all integers or all strings in one column).

        Parameters
        ----------
        users, items : sequence of length n_events
            External ids.
        ratings, timestamps : sequence of length n_events, optional
            Ratings, and seconds since 1970 (or datetime64 of any unit).

        Returns
        -------
        Events
            The same rows, in the same order.

        Raises
        ------
        DataError
            If the columns differ in length, or an id is missing or neither an integer nor a string.

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
            ratings=None if ratings is None else np.asarray(ratings, dtype=np.float32),
            timestamps=None if timestamps is None else _seconds(np.asarray(timestamps)),
        )

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.users)

    def keep(self, chosen: np.ndarray) -> Self:
        """Return the events that a boolean mask or an array of row positions chooses, in that order."""
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
        """Return how many events there are, and how many users and items have at least one."""
        return {
            "events": len(self),
            "users": int(np.count_nonzero(self.user_counts())),
            "items": int(np.count_nonzero(self.item_counts())),
        }


def _seconds(times: np.ndarray) -> np.ndarray:
    """Return whole seconds since 1970 (E,), int64, of seconds or of numpy's dates."""
    if times.dtype.kind == "M":
        times = times.astype("datetime64[s]")
    return times.astype(np.int64)


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
    """Which events count: Liang et al. 2018 keep ratings above 3.5 and users with at least five items.

    Parameters
    ----------
    min_rating : float, optional
        Lowest rating that counts as an interaction; None keeps every row.
    min_user_items : int
        Least number of items a user must have, >= 0.
    min_item_users : int
        Least number of users an item must have, >= 0.
    """

    min_rating: float | None = None
    min_user_items: int = 5
    min_item_users: int = 0


@dataclass(frozen=True)
class FilterStep:
    """What one filter left: its name, and the counts after it."""

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
        The log as it was read.
    filters : Filters
        The thresholds.

    Returns
    -------
    events : Events
        What is left, in file order.
    steps : list of FilterStep
        The counts at the start and after each filter.

    Raises
    ------
    UsageError
        If a least rating is asked of a log without ratings, or a threshold is negative.
    DataError
        If nothing is left, with the filter that took the last event.
    """
    _check(events, filters)
    steps = [FilterStep("as read", **events.counts())]

    def step(name: str, left: Events) -> Events:
        steps.append(FilterStep(name, **left.counts()))
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
            "name it with --rating-col, or leave --min-rating out"
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


def drop_duplicates(events: Events) -> Events:
    """Keep each (user, item) pair once: its earliest event, or its first row where there are no timestamps.

    The earliest is kept so that something consumed twice never becomes a target after it was already known.
    """
    pair = events.users.astype(np.int64) * len(events.item_ids) + events.items  # (E,)
    if events.timestamps is None:
        duplicated = pd.Series(pair).duplicated(keep="first").to_numpy()
        return events.keep(~duplicated) if duplicated.any() else events
    if not pd.Series(pair).duplicated().any():
        return events
    by_time = np.argsort(events.timestamps, kind="stable")  # (E,) earliest first, file order among equals
    first = ~pd.Series(pair[by_time]).duplicated(keep="first").to_numpy()
    return events.keep(np.sort(by_time[first]))
