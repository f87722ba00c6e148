"""What a user says about a log, and what its values mean, holds in every form of the same log."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.columns import Columns
from recvae.datasets.events import Events
from recvae.datasets.features import read_features
from recvae.datasets.logs import events_of, read_events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.times import NUMBER
from recvae.errors import DataError
from recvae.recommenders.history_files import HistoryFile

USERS, ITEMS = [-1, 7, -1, 8, 7], [40, 41, 42, 0, 43]
DAYS = [20191231, 20200101, 20200102, 20200103, 20200104]
SECONDS = [1_577_750_400 + 86_400 * day for day in range(5)]
TABLE = pd.DataFrame({"user": USERS, "item": ITEMS, "time": DAYS})

Read = Callable[[pd.DataFrame, Path, LogFormat], Events]


def of_csv(table: pd.DataFrame, folder: Path, options: LogFormat) -> Events:
    table.to_csv(folder / "log.csv", index=False)
    return read_events(folder / "log.csv", options)


def of_json(table: pd.DataFrame, folder: Path, options: LogFormat) -> Events:
    table.to_json(folder / "log.jsonl", orient="records", lines=True)
    return read_events(folder / "log.jsonl", options)


def of_parquet(table: pd.DataFrame, folder: Path, options: LogFormat) -> Events:
    table.to_parquet(folder / "log.parquet")
    return read_events(folder / "log.parquet", options)


def of_several(table: pd.DataFrame, folder: Path, options: LogFormat) -> Events:
    """Read integers from one file, floats from the next, and texts from the last."""
    for part, kind in enumerate(("int64", "float64", "str")):
        rows = table.iloc[2 * part : 2 * part + 2].astype({"user": kind, "item": kind})
        rows.to_parquet(folder / f"{part}.parquet")
    return read_events(folder, options)


def of_pandas(table: pd.DataFrame, folder: Path, options: LogFormat) -> Events:
    return events_of(table, options)


def of_polars(table: pd.DataFrame, folder: Path, options: LogFormat) -> Events:
    return events_of(pl.DataFrame({name: table[name].tolist() for name in table}), options)


READERS: list[Read] = [of_csv, of_json, of_parquet, of_several, of_pandas, of_polars]
KINDS = ["int64", "int32", "float64", "float32", "str", "category"]


def rows_of(events: Events) -> list[tuple[Any, ...]]:
    assert events.timestamps is not None
    columns = (events.user_ids[events.users], events.item_ids[events.items], events.timestamps)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_a_number_that_means_no_id_means_it_in_every_form(reader: Read, kind: str, tmp_path: Path) -> None:
    """Anonymous users are -1 or 0 in many logs: all their rows were those of one user, in all but texts."""
    table = TABLE.astype({"user": kind, "item": kind})
    events = reader(table, tmp_path, LogFormat(null=("-1", "0")))
    assert rows_of(events) == [(7, 41, SECONDS[1]), (7, 43, SECONDS[4])]
    assert events.reading is not None
    assert events.reading.dropped == {"rows without a user id": 2, "rows without an item id": 1}


@pytest.mark.parametrize("word", ["-1", "-1.0", " -1"])
def test_a_number_that_means_no_id_may_be_written_as_ids_may_be(word: str, tmp_path: Path) -> None:
    for reader in READERS:
        (tmp_path / reader.__name__).mkdir()
        assert len(reader(TABLE, tmp_path / reader.__name__, LogFormat(null=(word,)))) == 3, reader


@pytest.mark.parametrize("item", ["42", 42, 42.0])
def test_a_number_that_means_no_item_means_it_in_every_file_of_histories(item: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1, 1, 2], "item": [type(item)(41), item, item]}), tmp_path / "a.parquet")
    with HistoryFile(tmp_path / "a.parquet", LogFormat(null=("42",))) as file:
        assert file.counts.left_out == {"rows without an item": 2}


@pytest.mark.parametrize("options", [LogFormat(), LogFormat(time_format="%Y%m%d")])
@pytest.mark.parametrize("reader", READERS)
def test_days_that_are_numbers_are_days_in_every_form(reader: Read, options: LogFormat, tmp_path: Path) -> None:
    events = reader(TABLE, tmp_path, options)
    assert events.timestamps is not None
    assert events.timestamps.tolist() == SECONDS


@pytest.mark.parametrize("kind", ["int64", "uint64", "int32", "float64"])
def test_a_time_format_holds_for_numbers_too(kind: str) -> None:
    """It was ignored without a word where the times were no texts."""
    table = TABLE.assign(time=[2019, 2020, 2020, 2021, 2022]).astype({"time": kind})
    events = events_of(table, LogFormat(time_format="%Y"))
    assert events.timestamps is not None
    assert [time.year for time in pd.to_datetime(events.timestamps, unit="s")] == [2019, 2020, 2020, 2021, 2022]
    with pytest.raises(DataError, match=r"row 1: column 'time' holds '2019\S*', expected a time as in the first rows"):
        events_of(table, LogFormat(time_format="%Y-%m"))


def test_days_that_are_numbers_are_refused_by_spark() -> None:
    """There they would be seconds of August 1970, and another data set than on one machine."""
    pytest.importorskip("pyspark", reason="pyspark is not installed (extra spark)")
    from recvae.spark.log import Rows, _span

    rows = Rows(
        frame=cast(Any, SimpleNamespace(columns=())), columns=Columns(item="item"), name="plays", time_form=NUMBER
    )
    found = [{"first": 20191231, "first_after_0": 20191231, "last": 20200104}]
    with pytest.raises(
        DataError, match=r"^plays: the times are numbers such as 20191231, which look like days, expected"
    ):
        _span(rows, found)
    assert _span(rows, [{"first": 0, "first_after_0": 20191231, "last": 20200104}]) is not None


def test_numbers_of_which_one_is_no_day_are_numbers() -> None:
    events = events_of(TABLE.assign(time=[20191231, 20191232, 20191301, 5, 0]))
    assert events.timestamps is not None
    assert events.timestamps.tolist() == [20191231, 20191232, 20191301, 5, 0]


@pytest.mark.parametrize("times", [["2020-01-01T00:00:00Z", "2020-01-02"], [20200101, 20200102]])
@pytest.mark.parametrize("empty", ["a", "c"])
def test_a_part_without_a_row_has_no_other_form_of_times(times: list[Any], empty: str, tmp_path: Path) -> None:
    """Engines write such parts; they were told to be another log."""
    table = pa.table({"user": [1, 2], "item": [3, 4], "time": times})
    pq.write_table(table, tmp_path / "b.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / f"{empty}.parquet")
    events = read_events(tmp_path)
    assert events.timestamps is not None and events.reading is not None
    assert events.timestamps.tolist() == SECONDS[1:3]
    assert events.reading.times is not None and events.reading.times.form != "seconds"
    with pytest.raises(DataError, match=re.escape("has no rows; expected one row per event")):
        read_events(tmp_path / f"{empty}.parquet")


@pytest.mark.parametrize("frequency", ["M", "D", "s"])
def test_periods_of_pandas_are_refused_and_not_taken_for_numbers(frequency: str) -> None:
    """For Arrow they are numbers: of months, of days; they were read as seconds of 1970."""
    periods = pd.period_range("2020-01", periods=5, freq=frequency)
    said = r"column '?time'? holds periods of pandas, expected numbers, texts or times; convert it first"
    with pytest.raises(DataError, match=said):
        events_of(TABLE.assign(time=periods))
    with pytest.raises(DataError, match=said):
        Events.from_columns(USERS, ITEMS, None, pd.Series(periods))
    assert len(events_of(TABLE.assign(time=periods.to_timestamp()))) == 5
    unused = TABLE.assign(month=periods)  # what is not read does no harm
    assert len(events_of(unused)) == 5


@pytest.mark.parametrize("kind", ["int64", "float64", "float32", "str"])
def test_a_number_that_means_no_feature_means_it_in_every_form(kind: str) -> None:
    table = pd.DataFrame({"item": [40, 41, 42], "price": pd.Series([-1, 5, 7]).astype(kind)})
    features, _ = read_features(table, np.array([40, 41, 42]), LogFormat(null=("-1",)))
    assert cast(Any, features.matrix).tolist() == [[0.0], [5.0], [7.0]]
    assert features.columns[0].n_without == 1


@pytest.mark.parametrize("skip", ["stop", "skip"])
def test_a_second_header_is_named_by_what_it_holds_or_by_its_line(skip: str, tmp_path: Path) -> None:
    """With rows left out before it, the line of another row was named, and that row's user."""
    bad = "a,x,bad\n" * 3 if skip == "skip" else ""
    (tmp_path / "a.csv").write_text(f"user,item,rating\n{bad}b,y,4\nitem,user,3\nx,c,5\n")
    said = (
        "a row holds 'item' as the user and 'user' as the item, expected ids" if bad else "line 3: column 'user' holds"
    )
    with pytest.raises(DataError, match=re.escape(said)):
        read_events(tmp_path / "a.csv", on_bad_row=skip)


@pytest.mark.parametrize("as_array", [False, True])
def test_weights_of_items_that_are_not_read_are_named(as_array: bool, tmp_path: Path) -> None:
    """A log has ratings, not weights: an item of weight 0 is an event, which nobody was told."""
    rows: list[dict[str, Any]] = [{"user": 7, "items": [318]}, {"user": 8, "items": {"318": 2.5, "296": 0}}]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "a.jsonl").write_text(f"[{','.join(lines)}]" if as_array else "\n".join(lines))
    events = read_events(tmp_path / "a.jsonl")
    assert len(events) == 3 and events.reading is not None
    assert events.reading.lines()[1].endswith("; not used: the weights in items")
    (tmp_path / "b.jsonl").write_text(lines[0])
    only = read_events(tmp_path / "b.jsonl").reading
    both = read_events([tmp_path / "b.jsonl", tmp_path / "a.jsonl"]).reading
    assert only is not None and both is not None
    assert (only.unused, both.unused) == ([], ["the weights in items"])
