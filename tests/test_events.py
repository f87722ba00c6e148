"""Events in canonical form, and the filters: in the paper's order, each applied once."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recvae.datasets.events import Events, Filters, FilterStep, drop_duplicates, filter_events, usual_min_rating
from recvae.errors import DataError, UsageError

NONE = Filters(min_user_items=0)


def table_of(events: Events) -> Any:
    """Return the events as a data frame of external ids, in order."""
    columns = {"user": events.user_ids[events.users], "item": events.item_ids[events.items]}
    if events.ratings is not None:
        columns["rating"] = events.ratings
    if events.timestamps is not None:
        columns["time"] = events.timestamps
    return pd.DataFrame(columns)


def rows_of(events: Events) -> list[tuple[Any, ...]]:
    return list(table_of(events).itertuples(index=False, name=None))


ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.text("aB9_é", max_size=3).map("u".__add__), min_size=1),
)


@settings(max_examples=50)
@given(ids)
def test_ids_come_back_in_order_from_ascending_tables(column: list[Any]) -> None:
    events = Events.from_columns(column, np.arange(len(column)))
    assert events.user_ids[events.users].tolist() == column
    assert events.user_ids.tolist() == sorted(set(column))
    assert (events.users.dtype, events.items.dtype) == (np.int32, np.int32)
    assert events.user_ids.dtype == (np.int64 if isinstance(column[0], int) else object)


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (np.array([300, 7, 7], dtype=np.uint16), [7, 300]),
        (np.array([1, 2**64 - 1], dtype=np.uint64), ["1", "18446744073709551615"]),
        ([2**70, 5], ["1180591620717411303424", "5"]),
        (pd.Series([30, 4], dtype="Int64"), [4, 30]),
        ([30.0, 4.0], [4, 30]),
        (["30", 4.0], [4, 30]),
        ([" b", "a\u00a0"], ["a", "b"]),
        ([UUID(int=7), UUID(int=1)], [f"00000000-0000-0000-0000-00000000000{last}" for last in (1, 7)]),
        (pd.Series(["b", "a"], dtype="category"), ["a", "b"]),
        (pd.Series(["b", "a"], dtype="string"), ["a", "b"]),
        (np.array(["007", "7"]), ["007", "7"]),
        ([], []),
    ],
)
def test_ids_are_integers_where_all_fit_and_strings_elsewhere(column: Any, ids: list[Any]) -> None:
    assert Events.from_columns(column, range(len(column))).user_ids.tolist() == ids


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([1, 2], [1], r"^got columns of \[1, 2\] rows, expected the same length; align them first$"),
        (
            [1.5, 2.0],
            [1, 2],
            "^the columns: the user column 'user' holds the number 1.5, expected whole numbers or texts as ids; ",
        ),
        ([1, 2], pd.Series([1, None]), "^got 1 rows without an item id, expected one per event; drop those rows$"),
        ([None, "ann"], [1, 2], "^got 1 rows without a user id, expected one per event; drop those rows$"),
        (["", "NULL"], [1, 2], "^the columns: no row has both a user and an item "),
        ([1, 2], pd.Series(["a", pd.NA], dtype="string"), "^got 1 rows without an item id"),
        (
            [b"a", b"b"],
            [1, 2],
            "^the columns: column 'user' holds BLOB, expected integers or texts for the user; convert it",
        ),
        (
            [True, False],
            [1, 2],
            "^the columns: column 'user' holds BOOLEAN, expected integers or texts for the user; conv",
        ),
        (
            [object(), 1],
            [1, 2],
            "^got <object object at .*> in the column of users, expected numbers, texts or times; conv",
        ),
        (
            [(1, 2), 1],
            [1, 2],
            r"^got \(1, 2\) in the column of users, expected numbers, texts or times; convert the col",
        ),
        (
            [[1], [2]],
            [1, 2],
            "^got list<item: int64> for the column of users, expected one value per event; use one row",
        ),
        ("ab", [1, 2], "^got str for the column of users, expected one value per event, e.g. a list$"),
        (5, [1, 2], "^got int for the column of users, expected one value per event, e.g. a list$"),
        (np.eye(2), [1, 2], r"^got an array of shape \(2, 2\) for the column of users, expected one value per event$"),
        (np.array([1j, 2]), [1, 2], "^got complex numbers for the column of users, expected numbers, texts or times$"),
    ],
)
def test_columns_that_cannot_be_events_are_refused(users: Any, items: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Events.from_columns(users, items)


def test_keep_takes_a_mask_or_positions_and_leaves_the_ids_in_place() -> None:
    events = Events.from_columns([5, 6, 7], ["a", "b", "c"], [1, 2, 3], [10, 20, 30])
    assert rows_of(events.keep(np.array([True, False, True]))) == [(5, "a", 1, 10), (7, "c", 3, 30)]
    assert rows_of(events.keep(np.array([2, 0]))) == [(7, "c", 3, 30), (5, "a", 1, 10)]
    assert events.keep(np.array([2])).user_ids.tolist() == [5, 6, 7]


def test_counts_are_of_users_and_items_that_have_an_event_left() -> None:
    events = Events.from_columns([5, 6, 5, 7], ["a", "b", "c", "b"])
    assert events.counts() == {"events": 4, "users": 3, "items": 3}
    left = events.keep(np.array([0, 2]))
    assert left.counts() == {"events": 2, "users": 1, "items": 2}
    assert left.user_counts().tolist() == [2, 0, 0]
    assert left.item_counts().tolist() == [1, 0, 1]
    assert len(left) == 2


def test_of_a_pair_seen_twice_the_earliest_event_stays_in_its_place() -> None:
    events = Events.from_columns([1, 2, 1, 1], ["a", "a", "a", "b"], [5, 4, 3, 2], [30, 20, 10, 40])
    assert rows_of(drop_duplicates(events)) == [(2, "a", 4, 20), (1, "a", 3, 10), (1, "b", 2, 40)]


def test_among_equal_times_or_without_times_the_first_row_stays() -> None:
    for times in ([7, 7, 7], None):
        events = Events.from_columns([1, 1, 1], ["a", "b", "a"], [5, 4, 3], times)
        assert table_of(drop_duplicates(events))["rating"].tolist() == [5, 4]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), min_size=1))
def test_dropping_duplicates_is_what_pandas_would_do(rows: list[tuple[int, int, int]]) -> None:
    table: Any = pd.DataFrame(rows, columns=["user", "item", "time"])
    events = Events.from_columns(table["user"], table["item"], None, table["time"].to_numpy())
    expected = table.sort_values("time", kind="stable").drop_duplicates(["user", "item"]).sort_index()
    assert rows_of(drop_duplicates(events)) == list(expected.itertuples(index=False, name=None))


def test_the_filters_are_the_papers_by_default() -> None:
    assert Filters() == Filters(min_rating=None, min_user_items=5, min_item_users=0)


def test_ratings_are_filtered_before_duplicates() -> None:
    events = Events.from_columns([1, 1], ["a", "a"], [2, 5], [10, 20])
    left, _ = filter_events(events, Filters(min_rating=4, min_user_items=0))
    assert rows_of(left) == [(1, "a", 5, 20)]


def test_the_least_rating_itself_counts() -> None:
    left, _ = filter_events(
        Events.from_columns([1, 1], ["a", "b"], [3.5, 3.0]), Filters(min_rating=3.5, min_user_items=0)
    )
    assert rows_of(left) == [(1, "a", 3.5)]


def test_duplicates_are_dropped_before_anything_is_counted() -> None:
    events = Events.from_columns([1, 1, 1, 2, 2], ["a", "a", "a", "a", "b"])
    left, _ = filter_events(events, Filters(min_user_items=2))
    assert rows_of(left) == [(2, "a"), (2, "b")]


def test_items_are_filtered_before_users_and_neither_again() -> None:
    """`b` falls to one user once user 2 is out, and stays: filtering until nothing changes would drop both."""
    events = Events.from_columns([1, 1, 2, 2, 3, 3], ["a", "b", "b", "c", "a", "a2"])
    left, steps = filter_events(events, Filters(min_user_items=2, min_item_users=2))
    assert rows_of(left) == [(1, "a"), (1, "b")]
    assert left.item_counts().max() == 1
    assert steps == [
        FilterStep("as read", 6, 3, 4),
        FilterStep("duplicates dropped", 6, 3, 4),
        FilterStep("items with >= 2 users", 4, 3, 2),
        FilterStep("users with >= 2 items", 2, 1, 2),
    ]


def test_only_the_filters_asked_for_are_reported(random_log: Callable[..., Events]) -> None:
    _, steps = filter_events(random_log(), Filters(min_rating=2.5))
    assert [step.name for step in steps] == ["as read", "rating >= 2.5", "duplicates dropped", "users with >= 5 items"]
    _, steps = filter_events(random_log(), NONE)
    assert [step.name for step in steps] == ["as read", "duplicates dropped"]


def liang_filter(table: Any, min_uc: int, min_sc: int) -> Any:
    """Transcribe `filter_triplets` of Liang et al. (2018) into today's pandas."""
    if min_sc > 0:
        sizes = table.groupby("item").size()
        table = table[table["item"].isin(sizes.index[sizes >= min_sc])]
    if min_uc > 0:
        sizes = table.groupby("user").size()
        table = table[table["user"].isin(sizes.index[sizes >= min_uc])]
    return table


@settings(max_examples=50)
@given(seed=st.integers(0, 999), n_events=st.integers(200, 900), min_user=st.integers(0, 8), min_item=st.integers(0, 8))
def test_the_filters_are_liangs(
    random_log: Callable[..., Events], seed: int, n_events: int, min_user: int, min_item: int
) -> None:
    events = random_log(seed, n_events=n_events)
    table = table_of(events)
    expected = liang_filter(table[table["rating"] >= 2], min_user, min_item)
    assume(len(expected) > 0)
    left, _ = filter_events(events, Filters(min_rating=2, min_user_items=min_user, min_item_users=min_item))
    pd.testing.assert_frame_equal(table_of(left), expected.reset_index(drop=True))


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        (Filters(min_user_items=-1), UsageError, "^got min_user_items -1, expected 0 or more$"),
        (Filters(min_item_users=-2), UsageError, "^got min_item_users -2, expected 0 or more$"),
        (
            Filters(min_rating=6),
            DataError,
            r"^the filter 'rating >= 6' left no event of 3 \(the ratings run from 2 to 4\.5\); lower --min-rating, ",
        ),
        (Filters(min_user_items=3), DataError, "^the filter 'users with >= 3 items' left no event of 3; lower "),
        (Filters(min_item_users=3), DataError, "^the filter 'items with >= 3 users' left no event of 3; lower "),
    ],
)
def test_filters_that_make_no_sense_or_leave_nothing_are_refused(
    filters: Filters, error: type[Exception], message: str
) -> None:
    events = Events.from_columns([1, 1, 2], ["a", "b", "a"], [2, 4.5, 3])
    with pytest.raises(error, match=message):
        filter_events(events, filters)


def test_a_least_rating_of_a_log_without_ratings_is_refused() -> None:
    message = "^got min_rating 4, but the log has no rating column; name it with --rating-col, or omit --min-rating$"
    with pytest.raises(UsageError, match=message):
        filter_events(Events.from_columns([1], ["a"]), Filters(min_rating=4))


def test_a_log_without_events_is_refused() -> None:
    with pytest.raises(DataError, match="left no event of 0"):
        filter_events(Events.from_columns([], []), NONE)


@pytest.mark.parametrize("unit", ["Y", "M", "D", "h", "s", "ms", "us", "ns"])
def test_dates_of_numpy_become_seconds(unit: str) -> None:
    times = np.array(["1970-01-01", "1971-01-01"], dtype=f"datetime64[{unit}]")
    events = Events.from_columns([1, 2], [1, 2], timestamps=times)
    assert events.timestamps is not None
    assert events.timestamps.tolist() == [0, 365 * 86_400]


NO_TIME = "expected a time as in the first rows (number); repair or remove it"
NO_DATE = "expected a time as in the first rows (dates); repair or remove it"
NO_RATING = "expected a number; repair or remove it"


@pytest.mark.parametrize(
    "times",
    [
        [0, 1_600_000_000],
        [0.0, 1_600_000_000.5],
        ["0", "1600000000"],
        ["1970-01-01", "2020-09-13T13:26:40.5+01:00"],
        pd.Series([0, 1_600_000_000], dtype="Int64"),
        np.array([0, 1_600_000_000], dtype="datetime64[s]"),
        pd.Series(np.array([0, 1_600_000_000_999], dtype="datetime64[ms]")),
        pd.to_datetime(pd.Series([0, 1_600_000_000]), unit="s").dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        [datetime(1970, 1, 1), datetime(2020, 9, 13, 12, 26, 40)],
        [datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)],
        pd.Series([datetime(1970, 1, 1), datetime(2020, 9, 13, 12, 26, 40)], dtype=object),
    ],
    ids=str,
)
def test_times_are_seconds_or_dates_of_any_kind_and_zone(times: Any) -> None:
    timestamps = Events.from_columns([1, 2], [1, 2], None, times).timestamps
    assert timestamps is not None
    assert (timestamps.tolist(), timestamps.dtype) == ([0, 1_600_000_000], np.int64)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1, np.nan, None], f" row 2: column 'time' is empty, {NO_TIME}"),
        ([1, 2, np.inf], f" row 3: column 'time' holds 'inf', {NO_TIME}"),
        ([1, 2, 1e300], f" row 3: column 'time' holds '1e+300', {NO_TIME}"),
        (["1", "noon", "2"], f" row 2: column 'time' holds 'noon', {NO_TIME}"),
        (pd.Series([1, None, 3], dtype="Int64"), f" row 2: column 'time' is empty, {NO_TIME}"),
        (pd.to_datetime(["2020-01-01", None, "2020-01-02"]), f" row 2: column 'time' is empty, {NO_DATE}"),
        (pd.to_datetime(["2020-01-01", "2020-01-02", None], utc=True), f" row 3: column 'time' is empty, {NO_DATE}"),
        (
            pd.to_timedelta([1, 2, 3], unit="s"),
            ": column 'time' holds INTERVAL, expected times: numbers, dates or texts; convert it first",
        ),
        ([1, -1, 2], " row 2: column 'time' holds '-1', expected a time since 1970; repair or remove it"),
        (
            np.array(["1960-01-01"] * 3, dtype="datetime64[D]"),
            " row 1: column 'time' holds '1960-01-01', expected a time since 1970; repair or remove it",
        ),
    ],
    ids=str,
)
def test_times_that_are_none_are_refused_with_the_first_row(times: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(f'the columns{message}')}$"):
        Events.from_columns([1, 2, 3], [1, 2, 3], None, times)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ([1.0, np.nan, np.nan], f" row 2: column 'rating' is empty, {NO_RATING}"),
        ([1.0, 2.0, -np.inf], f" row 3: column 'rating' holds '-inf', {NO_RATING}"),
        ([1.0, 2.0, 1e300], f" row 3: column 'rating' holds '1e+300', {NO_RATING}"),
        (["5", "good", "4"], f" row 2: column 'rating' holds 'good', {NO_RATING}"),
        (pd.Series([1, None, 3], dtype="Int64"), f" row 2: column 'rating' is empty, {NO_RATING}"),
        (
            np.array([1, 2, 3], dtype="datetime64[s]"),
            ": column 'rating' holds TIMESTAMP_S, expected numbers for the rating; convert it first",
        ),
    ],
    ids=str,
)
def test_ratings_that_are_none_are_refused_with_the_first_row(ratings: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(f'the columns{message}')}$"):
        Events.from_columns([1, 2, 3], [1, 2, 3], ratings)


@pytest.mark.parametrize("ratings", [["4", "3.5"], pd.Series([4, 3.5], dtype="category"), [4, np.float16(3.5)]])
def test_ratings_are_float32_however_they_are_written(ratings: Any) -> None:
    read = Events.from_columns([1, 2], [1, 2], ratings).ratings
    assert read is not None
    assert (read.tolist(), read.dtype) == ([4.0, 3.5], np.float32)


@pytest.mark.parametrize("ratings", [[1, 5], [0.5, 4.5], [4, 4]])
def test_the_usual_least_rating_of_stars_is_the_papers(ratings: list[float]) -> None:
    assert usual_min_rating(Events.from_columns([1, 2], ["a", "b"], ratings)) == 4


def test_a_log_without_ratings_has_no_least_rating() -> None:
    assert usual_min_rating(Events.from_columns([1], ["a"])) is None


@pytest.mark.parametrize(
    ("ratings", "scale", "way_out"),
    [
        (
            [2, 10],
            "2 to 10 (2: 50%, 10: 50%)",
            "--min-rating 8 for the upper part of the scale, or --no-rating to keep",
        ),
        ([0, 1], "0 to 1 (0: 50%, 1: 50%)", "--min-rating 1 for the positive ones"),
        (
            [0.25, 1],
            "0.25 to 1 (0.25: 50%, 1: 50%)",
            "--min-rating 0.5 for the upper half of the scale",
        ),
        ([3, 4], "3 to 4 (3: 50%, 4: 50%)", "--min-rating 4 for the upper part of the scale, or --no-rating to keep"),
        ([3, 3], "3 to 3 (3: 100%)", "--no-rating, because all are the same"),
        ([-1, 8], "-1 to 8 (-1: 50%, 8: 50%)", "--min-rating with the lowest value that means a liking; negative ones"),
        ([1, 250], "1 to 250 (1: 50%, 250: 50%)", "--no-rating if they are counts and every row is a sign of interest"),
    ],
)
def test_on_any_other_scale_the_least_rating_must_be_said(ratings: list[float], scale: str, way_out: str) -> None:
    message = (
        f"the ratings run from {scale}; 4 is the usual threshold for stars from 1 to 5 only, so say which rows count"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(f'{message}: {way_out}')}"):
        usual_min_rating(Events.from_columns([1, 2], ["a", "b"], ratings))
