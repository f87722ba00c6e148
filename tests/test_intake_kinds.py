"""Kinds of logs that look like others: each is read as it is meant, or refused with what it holds and the way out."""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae import Dataset
from recvae.datasets.events import Events
from recvae.datasets.logs import events_of, read_events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.titles import read_titles
from recvae.errors import DataError, UsageError

N = 40


def pairs(events: Events) -> list[tuple[Any, Any]]:
    return list(zip(events.user_ids[events.users].tolist(), events.item_ids[events.items].tolist(), strict=True))


def lines(pattern: str, n: int = N, header: str = "") -> str:
    """Return rows of a pattern with the places {u}, {i} and {r}."""
    rows = [pattern.format(u=1 + row % 7, i=100 + row % 11, r=row % 5 + 1, n=row) for row in range(n)]
    return "".join(f"{row}\n" for row in ([header] if header else []) + rows)


LOG = [(1 + row % 7, 100 + row % 11) for row in range(N)]


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# What is refused by what it holds: content, what is known, and the message after the name of the file

NO_ID = "expected one id, a list of ids, or an object of ids and their weights; write them flat, e.g. with jq"
NO_LIST = "expected one id per row; write one row per user and item, or lists in JSON lines or Parquet"
REFUSED: dict[str, tuple[str, str]] = {
    "an object as item": (
        lines('{{"user_id":{u},"item":{{"id":{i},"title":"x"}}}}'),
        f""": the column 'item' holds {{"id":100,"title":"x"}}, {NO_ID}""",
    ),
    "an object as item, late": (
        lines('{{"user_id":{u},"item":{i}}}', 3000) + '{"user_id":1,"item":{"$oid":"64b1"}}\n',
        f""": the column 'item' holds {{"$oid":"64b1"}}, {NO_ID}""",
    ),
    "a number of MongoDB": (
        lines('{{"user_id":{u},"item_id":{{"$numberLong":"{i}"}}}}'),
        f""": the column 'item_id' holds {{"$numberLong":"100"}}, {NO_ID}""",
    ),
    "a list of lists": (
        '{"user":7,"items":[[1,2],[3]]}\n' * 3,
        f": the column 'items' holds [[1,2],[3]], {NO_ID}",
    ),
    "a list of objects": (
        '[{"user":7,"items":[{"id":1}]}]',
        f""": the column 'items' holds [{{"id":1}}], {NO_ID}""",
    ),
    "an object as user": (
        '{"user":{"id":7},"item":1}\n' * 3,
        ": the column 'user' holds objects or arrays, expected one user id per object; write them flat, e.g. with jq",
    ),
    "dictionaries of Python": (
        lines("{{'user': 'u{u}', 'item': 'it{i}'}}"),
        " line 1: got \"{'user': 'u1', 'item': 'it100'}\", a dictionary of Python, expected JSON; write each line with "
        "json.dumps(ast.literal_eval(line))",
    ),
    "two separators": (
        lines("u{u};a{i},b{i}"),
        " line 1: 'u1;a100,b100' can be split by ';' and by ','; say which with --sep",
    ),
    "times first": (
        lines("17000000{n:02},{u},{i}"),
        ": there is no header, and column 1 looks like times (1700000000), expected user, item, rating, time; name "
        "the columns by their positions, e.g. --user-col 2 --item-col 3 --time-col 1",
    ),
    "dates second": (
        lines("{u},2023-01-01,{i}"),
        ": there is no header, and column 2 looks like times (2023-01-01), expected user, item, rating, time; name "
        "the columns by their positions, e.g. --user-col 2 --item-col 3 --time-col 1",
    ),
    "a second header, swapped": (
        lines("u{u},i{i}", header="user_id,item_id") + lines("i{i},u{u}", header="item_id,user_id"),
        " line 42: column 'user_id' holds 'item_id', expected an id, not the name of a column; repair or remove the "
        "row, name another column with --user-col",
    ),
    "a second header, in capitals": (
        lines("u{u},i{i}", header="user_id,item_id") + lines("u{u},i{i}", header="USER_ID,ITEM_ID"),
        " line 42: column 'user_id' holds 'USER_ID', expected an id, not the name of a column; repair or remove the "
        "row, name another column with --user-col",
    ),
    "a header after the first rows": (
        lines("{u},{i}") + lines("{u},{i}", header="userId,movieId"),
        " line 41: column '1' holds 'userId', expected an id, not the name of a column; repair or remove the row, name "
        "another column with --user-col",
    ),
    "lists of numbers in a cell": (
        'user_id,items\n7,"318,296,7"\n8,"318,5"\n',
        f": the item column 'items' holds lists such as '318,296,7', {NO_LIST}",
    ),
    "lists with blanks in JSON": (
        '{"user":7,"items":"1 2 3"}\n{"user":8,"items":"1 2"}\n',
        f": the item column 'items' holds lists such as '1 2 3', {NO_LIST}",
    ),
    "rounded times": (
        lines("{u},{i},1.70E+12", header="user_id,item_id,timestamp"),
        ": column 'timestamp': '1.70E+12' is a rounded number: different times have become one; write the times in "
        "full, or leave the column out with --no-time",
    ),
    "a date for never": (
        lines("{u},{i},2023-01-02", header="user,item,time") + "1,100,9999-12-31\n",
        ": the last time is 9999-12-31; expected a time before 2100; say how times are written, e.g. --time-format "
        "'%Y%m%d%H%M%S', or leave them out with --no-time",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_log_is_refused_by_what_it_holds(tmp_path: Path, kind: str) -> None:
    content, message = REFUSED[kind]
    path = text(tmp_path / "log", content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}{message}')}"):
        read_events(path)


# What is read as it is meant

READ: dict[str, str | bytes] = {
    "a comma in the item after a tab": lines("{u}\t{i}\t7,5"),
    "a decimal comma in ids": lines("{u},0;{i};4,5", header="user_id;item_id;rating"),
    "a header that tells the separator": lines("{u},0;{i},0;4,5", header="user_id;item_id;rating"),
    "decimal commas without a header": lines("{u},0;{i},0"),
    "the rule of a database": "user_id,item_id\n-------,-------\n" + lines("{u},{i}"),
    "single quotes": lines("'{u}','{i}'", header="'user_id','item_id'"),
    "two streams of bzip2": bz2.compress(lines("{u},{i}", N // 2).encode()) + bz2.compress(lines("{u},{i}").encode()),
    "two streams of xz": lzma.compress(lines("{u},{i}", N // 2).encode()) + lzma.compress(lines("{u},{i}").encode()),
    "xz with padding": lzma.compress(lines("{u},{i}").encode()) + bytes(8),
    "one line of JSON": json.dumps([{"user": user, "item": item, "note": "x" * 2000} for user, item in LOG] * 20),
    "JSON lines of two kinds": lines('{{"user":{u},"item":{i}}}').replace("\n", "\r\n", 20),
}


@pytest.mark.parametrize("kind", READ)
def test_what_looks_like_another_form_is_read_as_it_is_meant(tmp_path: Path, kind: str) -> None:
    events = read_events(text(tmp_path / "log", READ[kind]))
    expected = (
        LOG[: N // 2] + LOG if kind.startswith("two streams") else LOG * 20 if kind == "one line of JSON" else LOG
    )
    assert pairs(events) == expected


def test_a_quote_that_nothing_closes_among_single_quotes_does_not_change_the_ids(tmp_path: Path) -> None:
    path = text(tmp_path / "log", lines("'{u}','{i}'", header="'user_id','item_id'") + "'5','ab\n")
    events = read_events(path)
    assert pairs(events) == [(user, str(item)) for user, item in LOG] + [(5, "'ab")]


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gzip.compress])
@pytest.mark.parametrize("rest", [b"1,2\n3,4\n", b"\x01"])
def test_what_follows_a_compressed_stream_is_not_dropped(tmp_path: Path, compress: Any, rest: bytes) -> None:
    path = text(tmp_path / "log", compress(lines("{u},{i}").encode()) + rest)
    with pytest.raises(DataError, match="log is truncated or damaged"):
        read_events(path)


def test_a_few_words_among_integers_are_shown(tmp_path: Path) -> None:
    events = read_events(text(tmp_path / "log", lines("{n},{i}", header="user,item") + "Total,30\n"))
    assert events.reading is not None
    assert events.reading.warnings() == ["1 rows have the user 'Total', which may be no id; if so, give --null 'Total'"]


def test_a_remark_with_as_many_columns_is_shown(tmp_path: Path) -> None:
    rows = "".join(f"u{row},i{row % 11}\n" for row in range(N))
    events = read_events(text(tmp_path / "log", f"user,item\n{rows}# a note, with one\n"))
    assert events.reading is not None
    assert "1 rows have the user '# a note', which may be no id; if so, give --null '# a note'" in (
        events.reading.warnings()
    )


def test_tags_are_items_even_if_one_is_a_year(tmp_path: Path) -> None:
    items = ["#a", "#b", "#c", "#d", "2020"]
    path = text(tmp_path / "log", "user,item\n" + "".join(f"u{row},{items[row % 5]}\n" for row in range(10)))
    assert sorted(read_events(path).item_ids.tolist()) == sorted(items)


@pytest.mark.parametrize("written", ["2023111422", "202311142213", "638355968000000000"])
def test_digits_that_are_dates_are_doubted(tmp_path: Path, written: str) -> None:
    events = read_events(text(tmp_path / "log", lines("{u},{i}," + written, header="user,item,time")))
    assert events.reading is not None
    assert any(line.endswith("; is this how they are written?") for line in events.reading.lines())


# Options that cannot be


@pytest.mark.parametrize("time_format", ["", "%Q", "%", "plain"])
def test_a_time_format_that_says_nothing_is_wrong_use(tmp_path: Path, time_format: str) -> None:
    path = text(tmp_path / "log", lines("{u},{i},x", header="user,item,time"))
    with pytest.raises(UsageError, match=f"^got the time format {re.escape(repr(time_format))}, expected letters of s"):
        read_events(path, LogFormat(time_format=time_format))


def test_a_quote_that_is_the_separator_is_wrong_use(tmp_path: Path) -> None:
    path = text(tmp_path / "log", lines("{u},{i}"))
    with pytest.raises(UsageError, match=r"^got ',' for the quote and the separator, expected two characters; change"):
        read_events(path, LogFormat(separator=",", quote=","))


# Tables in memory and in Parquet

HALF = np.arange(N).astype(np.float16)
TABLES: dict[str, tuple[Callable[[], Any], str]] = {
    "32-bit times": (
        lambda: pa.table({"user": ["a"], "item": [1], "time": pa.array([1.7e9], pa.float32())}),
        "column 'time' holds 32-bit floats, which cannot tell seconds apart, expected 64 bits",
    ),
    "a list of lists": (
        lambda: pa.table({"user": [7], "items": [[[1, 2], [3]]]}),
        "column 'items' holds BIGINT[][], expected integers or texts for the item, or lists of them",
    ),
    "a list of booleans": (
        lambda: pa.table({"user": [7], "items": [[True, False]]}),
        "column 'items' holds BOOLEAN[], expected integers or texts for the item, or lists of them",
    ),
    "a list of objects": (
        lambda: pa.table({"user": [7], "items": [[{"id": 1}]]}),
        "column 'items' holds STRUCT(id BIGINT)[], expected integers or texts for the item, or lists of them",
    ),
    "a list of large 32-bit floats": (
        lambda: pa.table({"user": [7], "items": pa.array([[2.0**25, 2.0]], pa.list_(pa.float32()))}),
        "the item column 'items' holds float numbers up to 33554432, which are exact only up to 16777216",
    ),
    "categories of large 32-bit floats": (
        lambda: pd.DataFrame({"user": [1, 2], "item": pd.Categorical(np.array([2.0**25, 2], np.float32))}),
        "the item column 'item' holds float numbers up to 33554432, which are exact only up to 16777216",
    ),
    "large 16-bit floats": (
        lambda: pd.DataFrame({"user": np.array([4096, 2], np.float16), "item": [1, 2]}),
        "column 'user' holds float16 numbers from 2048 on, which are not exact; write them as float64 or as integers",
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_whose_values_are_no_ids_is_refused(kind: str) -> None:
    table, message = TABLES[kind]
    with pytest.raises(DataError, match=re.escape(message)):
        events_of(table())


@pytest.mark.parametrize("large", [np.float32(2**24 + 2), float(2**53 + 2), np.float16(4096)])
@pytest.mark.parametrize("role", ["user", "item"])
def test_a_float_in_a_list_that_is_not_exact_is_refused(large: Any, role: str) -> None:
    columns = {"user": [1, 2], "item": [1, 2], role: [large, "2"]}
    with pytest.raises(DataError, match=f"in the column of {role}s, expected floats up to .* different ids may have b"):
        Events.from_columns(columns["user"], columns["item"])


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"user": HALF, "item": HALF, "rating": HALF}),
        pl.DataFrame({"user": range(N), "item": range(N), "rating": pl.Series(range(N), dtype=pl.Float32)}),
        pa.table({name: pa.array(range(N), pa.decimal256(40, 0)) for name in ("user", "item", "rating")}),
        pd.DataFrame({"user": range(N), "item": pd.Categorical(np.arange(N, dtype=np.float64)), "rating": range(N)}),
    ],
    ids=["16 bits", "32 bits", "decimals", "categories"],
)
def test_numbers_of_any_type_are_ids_and_ratings(table: Any) -> None:
    events = events_of(table)
    assert pairs(events) == [(row, row) for row in range(N)]
    assert events.ratings is not None and events.ratings.tolist() == list(range(N))


def test_integers_beyond_64_bits_are_texts() -> None:
    events = events_of(pd.DataFrame({"user": [10**20, 2, 3], "item": [1, 2, 3]}))
    assert pairs(events) == [(str(10**20), 1), ("2", 2), ("3", 3)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_lists_of_a_fixed_length_are_lists(in_memory: bool, tmp_path: Path) -> None:
    table = pa.table({"user": [7, 8], "items": pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))})
    pq.write_table(table, tmp_path / "log")
    events = events_of(table) if in_memory else read_events(tmp_path / "log")
    assert pairs(events) == [(7, 1), (7, 2), (8, 3), (8, 4)]


def test_ratings_of_16_bits_train_a_data_set() -> None:
    users, items = np.arange(400) % 40, np.arange(400) * 7 % 31
    ratings = np.full(400, 4.5, dtype=np.float16)
    dataset = Dataset.from_pandas(pd.DataFrame({"user": users, "item": items, "rating": ratings}), heldout_users=5)
    assert dataset.train.nnz > 0


# Titles


def test_titles_are_not_taken_from_a_column_of_numbers_or_objects(tmp_path: Path) -> None:
    path = text(tmp_path / "films", "1,2003,Toy Story\n2,2004,Heat\n")
    message = (
        f"{path}: there is no header, and column 2 holds numbers, expected titles; name the column by its position, "
        "e.g. --id-col 1 --title-col 3"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_titles([path])
    path = text(tmp_path / "films.json", '{"id":1,"title":{"en":"Heat"}}\n' * 2)
    with pytest.raises(DataError, match="the column 'title' holds objects or arrays, expected one title per object; w"):
        read_titles([path])


def test_a_header_in_the_middle_of_titles_is_no_title(tmp_path: Path) -> None:
    path = text(tmp_path / "films", "id,title\nu1,Heat\nid,title\nu2,Ran\n")
    assert read_titles([path]) == {"u1": "Heat", "u2": "Ran"}
