"""The relational steps as SQL, run by DuckDB: the events of the engine on one machine, for every filter and protocol.

`tests/test_spark.py` runs the same SQL in Spark; this is the cheap half, with many logs.
"""

from dataclasses import asdict

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.datasets import relational
from recvae.datasets.events import Events, Filters, FilterStep, filter_events
from recvae.datasets.splits.base import Split, pair_hashes
from recvae.datasets.splits.same_users import MIN_EVENTS_TO_HOLD_OUT, holdout, leave_last_out
from recvae.datasets.splits.time import starts_of, time_split
from recvae.errors import DataError

ROWS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(1, 5), st.integers(10**9, 10**9 + 6)),
    min_size=12,
    max_size=90,
)


class Engine:
    """DuckDB, with the events as `events`."""

    def __init__(self, events: Events) -> None:
        columns = {"user_code": events.users, "item_code": events.items, "place": np.arange(len(events))}
        columns |= {} if events.ratings is None else {"rating": events.ratings}
        columns |= {} if events.timestamps is None else {"moment": events.timestamps}
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.register("events_0", pa.table(columns))
        self._n = 0

    def make(self, query: str, **frames: str) -> str:
        """Run a step, and return the name of its result."""
        self._n += 1
        name = f"made_{self._n}"
        self._connection.execute(f"CREATE TABLE {name} AS {query.format(**frames)}")
        return name

    def table(self, name: str) -> pa.Table:
        return self._connection.sql(f"SELECT * FROM {name}").to_arrow_table()

    def add(self, name: str, table: pa.Table) -> str:
        self._connection.register(name, table)
        return name


def log_of(rows: list[tuple[int, int, int, int]], timed: bool = True) -> Events:
    users, items, ratings, times = zip(*rows, strict=True)
    named = [f"Ü{user}" if user % 2 else f"u{user}" for user in users]
    return Events.from_columns(named, items, np.array(ratings, np.float32), times if timed else None)


def filtered_by(engine: Engine, filters: Filters, timed: bool) -> tuple[str, list[FilterStep]]:
    """Run the filters in DuckDB, and count after each."""
    steps = {} if filters.min_rating is None else {"rating": relational.liked(filters.min_rating)}
    steps["duplicates"] = relational.first_of_pairs(timed)
    for code, least in (("item_code", filters.min_item_users), ("user_code", filters.min_user_items)):
        if least:
            steps[code] = relational.with_enough(code, least)
    left, counts = "events_0", []
    for query in ["SELECT * FROM {events}", *steps.values()]:
        left = engine.make(query, events=left)
        found = engine.table(engine.make(relational.COUNTS, events=left)).to_pylist()[0]
        counts.append(FilterStep("", found["events"], found["users"], found["items"]))
    return left, counts


@settings(max_examples=30)
@given(rows=ROWS, least_rating=st.sampled_from([None, 2.5, 3, 3.3]), least=st.integers(0, 3), timed=st.booleans())
def test_filters(rows: list[tuple[int, int, int, int]], least_rating: float | None, least: int, timed: bool) -> None:
    events = log_of(rows, timed)
    filters = Filters(min_rating=least_rating, min_user_items=least, min_item_users=least)
    left, counts = filtered_by(Engine(events), filters, timed)
    try:
        _, steps = filter_events(events, filters)
    except DataError:
        assert counts[-1].events == 0
        return
    assert [asdict(one) | {"name": ""} for one in steps] == [asdict(one) for one in counts]
    assert left  # the events themselves are compared by the protocols below


def drawn_by(engine: Engine, left: str, draws: np.ndarray) -> str:
    """Return the events with a number for each, by their order."""
    table = engine.table(left).sort_by("place")
    return engine.add("drawn", table.append_column("draw", pa.array(draws)))


def same_as(engine: Engine, parts: str, split: Split, events: Events) -> None:
    """Compare parts with matrices: the items in order, and who has which of them in each part."""
    trained = engine.make("SELECT * FROM {events} WHERE part = 0", events=parts)
    items = engine.table(engine.make(relational.FIRST_SEEN, events=trained))["item_code"].to_numpy()
    assert events.item_ids[items].tolist() == split.item_ids.tolist()
    columns = engine.add("columns", pa.table({"item_code": items, "item_column": np.arange(len(items))}))
    users = engine.table(engine.make(relational.EVENTS_OF_USERS, events=trained))["user_code"].to_numpy()
    assert split.train_user_ids is not None
    assert events.user_ids[users].tolist() == split.train_user_ids.tolist()
    for condition, matrix, ids in (
        ("part = 0", split.train, split.train_user_ids),
        ("part = 1", split.validation.targets, split.validation.user_ids),
        ("part < 2", split.test.fold_in, split.test.user_ids),
        ("part = 2", split.test.targets, split.test.user_ids),
    ):
        found = engine.table(engine.make(relational.known(condition), events=parts, columns=columns))
        asked = set(ids.tolist())
        names = events.user_ids[found["user_code"].to_numpy()].tolist()
        pairs = {pair for pair in zip(names, found["item_column"].to_pylist(), strict=True) if pair[0] in asked}
        rows, places = matrix.nonzero()
        assert pairs == set(zip(ids[rows].tolist(), places.tolist(), strict=True))
        assert len(names) == len(set(zip(names, found["item_column"].to_pylist(), strict=True)))


def left_of(rows: list[tuple[int, int, int, int]]) -> tuple[Engine, str, Events]:
    events = log_of(rows)
    engine = Engine(events)
    left, _ = filtered_by(engine, Filters(min_user_items=0), True)
    return engine, left, filter_events(events, Filters(min_user_items=0))[0]


@settings(max_examples=30)
@given(rows=ROWS, share=st.sampled_from([0.1, 0.2, 0.3, 0.6, 0.7]), seed=st.integers(0, 9))
def test_holdout(rows: list[tuple[int, int, int, int]], share: float, seed: int) -> None:
    engine, left, events = left_of(rows)
    drawn = drawn_by(engine, left, np.random.default_rng(seed).random(len(events)))
    parts = engine.make(relational.holdout(share), events=drawn)
    same_as(engine, parts, holdout(events, seed, share), events)


@settings(max_examples=30)
@given(rows=ROWS, seed=st.integers(0, 9))
def test_leave_last_out(rows: list[tuple[int, int, int, int]], seed: int) -> None:
    engine, left, events = left_of(rows)
    draws = pair_hashes(events.user_ids[events.users], events.item_ids[events.items], seed) ^ np.uint64(1 << 63)
    ranked = engine.make(relational.from_last(), events=drawn_by(engine, left, draws.view(np.int64)))
    parts = engine.make(relational.leave_last_out(MIN_EVENTS_TO_HOLD_OUT), events=ranked)
    split = leave_last_out(events, seed)
    same_as(engine, parts, split, events)
    tied = engine.table(engine.make(relational.tied_users(MIN_EVENTS_TO_HOLD_OUT), events=ranked))["n"][0].as_py()
    assert tied == split.protocol.get("tied_users", 0)


@settings(max_examples=30)
@given(rows=ROWS)
def test_time(rows: list[tuple[int, int, int, int]]) -> None:
    engine, left, events = left_of(rows)
    try:
        split = time_split(events)
    except DataError:
        return
    assert events.timestamps is not None
    moments = np.sort(events.timestamps)
    test, validation = (int(moments[place]) for place in starts_of(len(moments), 0.1, 0.1))
    assert (validation, test) == (split.protocol["validation_start"], split.protocol["test_start"])
    same_as(engine, engine.make(relational.time_split(validation, test), events=left), split, events)


@pytest.mark.parametrize("least", [3.3, 0.1, 4.35])
def test_ratings_are_compared_as_float32(least: float) -> None:
    near = np.float32(least)
    ratings = np.array([np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(9))], dtype=np.float32)
    engine = Engine(Events.from_columns([1, 2, 3], [1, 2, 3], ratings))
    left = engine.table(engine.make(relational.liked(least), events="events_0"))
    assert left["place"].to_pylist() == np.flatnonzero(ratings >= least).tolist() == [1, 2]
