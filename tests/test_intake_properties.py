"""Any table that a program writes reads back as it was written: the same events, and every line accounted for."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.datasets.events import Events
from recvae.datasets.logs import events_of, read_events
from recvae.datasets.reading.options import LogFormat

Row = tuple[str, str, str, str]


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/log.csv", content)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress, zstd, zipped]
ENCODINGS = {"utf-8": b"", "utf-8-sig": b"", "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
ENCODINGS["latin-1"] = b""
SEPARATORS = [",", ";", "\t", "|", "::", " ", "^", "~"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a test may write its log; the name must not matter."""
    return tmp_path_factory.mktemp("logs") / "log"


def rows_of(events: Events) -> list[tuple[Any, ...]]:
    """Return the events as they stand in the log."""
    columns = [events.user_ids[events.users], events.item_ids[events.items], events.ratings, events.timestamps]
    return list(zip(*(column.tolist() for column in columns if column is not None), strict=True))


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    separator: str
    quoting: int
    header: bool
    end: str
    encoding: str
    pack: Callable[[bytes], bytes]
    said: bool

    def write(self, rows: Sequence[Sequence[str]], blanks: Sequence[int]) -> bytes:
        """Return the bytes of a file, with blank lines before these rows."""
        lines = [self._line(("user", "item", "rating", "time"))] if self.header else []
        for number, row in enumerate(rows):
            lines += [""] * blanks.count(number) + [self._line(row)]
        content = "".join(line + self.end for line in lines)
        return self.pack(ENCODINGS[self.encoding] + content.encode(self.encoding))

    def _line(self, row: Sequence[str]) -> str:
        if len(self.separator) > 1 or self.quoting == csv.QUOTE_NONE:
            return self.separator.join(row)
        buffer = io.StringIO()
        quoting: Any = self.quoting
        csv.writer(buffer, delimiter=self.separator, quoting=quoting, lineterminator="\n").writerow(row)
        return buffer.getvalue().removesuffix("\n")

    @property
    def options(self) -> LogFormat:
        """What the user says: an encoding that cannot be told, and the separator where ids may hold any other one."""
        encoding = "latin-1" if self.encoding == "latin-1" else None
        return LogFormat(encoding=encoding, separator=self.separator if self.said else None)


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    separator = draw(st.sampled_from(SEPARATORS))
    quotings = [csv.QUOTE_NONE] if len(separator) > 1 else [csv.QUOTE_NONE, csv.QUOTE_MINIMAL, csv.QUOTE_ALL]
    return Dialect(
        separator=separator,
        quoting=draw(st.sampled_from(quotings)),
        header=draw(st.booleans()),
        end=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        encoding=draw(st.sampled_from(list(ENCODINGS))),
        pack=draw(st.sampled_from(PACKERS)),
        said=draw(st.booleans()),
    )


def words_of(dialect: Dialect) -> st.SearchStrategy[str]:
    """Return ids that this dialect can write: with separators, quotes and line ends only where there are quotes."""
    letters = "abzé09_.'"
    if dialect.quoting != csv.QUOTE_NONE:
        letters += dialect.separator + '"' + ("\n" if dialect.end == "\n" else "")
    if dialect.said:
        letters += "".join(one for one in ",;|" if one != dialect.separator)
    return st.text(letters, max_size=8).map(lambda text: f"u{text}é".strip())


def ids_of(dialect: Dialect) -> st.SearchStrategy[list[str]]:
    """Return a column of ids: integers, whole floats or words."""
    integers = st.integers(-(2**63), 2**63 - 1).map(str)
    floats = st.integers(-(2**53), 2**53).map(lambda number: f"{number}.0")
    return st.sampled_from([integers, floats, words_of(dialect)]).flatmap(
        lambda one: st.lists(one, min_size=1, max_size=20)
    )


def meant(texts: Sequence[str]) -> list[Any]:
    """Return the ids that texts mean: integers, if all are."""
    if all(text.removesuffix(".0").lstrip("-").isdigit() for text in texts):
        return [int(text.removesuffix(".0")) for text in texts]
    return list(texts)


@settings(max_examples=60)
@given(data=st.data(), dialect=dialects())
def test_events_read_back_as_they_were_written_in_any_dialect(
    path: Path, data: st.DataObject, dialect: Dialect
) -> None:
    users = data.draw(ids_of(dialect))
    items = data.draw(ids_of(dialect))[: len(users)]
    users = users[: len(items)]
    ratings = data.draw(st.lists(st.integers(0, 10), min_size=len(users), max_size=len(users)))
    times = data.draw(st.lists(st.integers(10**9, 2 * 10**9), min_size=len(users), max_size=len(users)))
    without_id = data.draw(st.sets(st.integers(0, len(users) - 1), max_size=len(users) - 1))
    mark = data.draw(st.sampled_from(["", "NULL", "nan", r"\N"] if dialect.separator != " " else ["NULL", "nan"]))
    rows = [
        (mark if number in without_id else user, item, f"{rating / 2:g}", str(time))
        for number, (user, item, rating, time) in enumerate(zip(users, items, ratings, times, strict=True))
    ]
    blanks = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=4))
    path.write_bytes(dialect.write(rows, blanks))
    events = read_events(path, dialect.options)
    kept = [number for number in range(len(rows)) if number not in without_id]
    expected_users, expected_items = (
        meant([users[number] for number in kept]),
        meant([items[number] for number in kept]),
    )
    if not all(isinstance(item, int) for item in meant(items)) and isinstance(expected_items[0], int):
        expected_items = [items[number] for number in kept]  # a word in a row without a user makes words of all
    assert rows_of(events) == [
        (user, item, ratings[number] / 2, times[number])
        for number, user, item in zip(kept, expected_users, expected_items, strict=True)
    ]
    reading = events.reading
    assert reading is not None
    assert (reading.rows, reading.events, sum(reading.dropped.values())) == (len(rows), len(kept), len(without_id))
    assert reading.skipped == ({"blank lines": len(blanks)} if blanks else {})


fields = st.text("ab7é ,;\n\"'", max_size=6).map(lambda text: f"x{text}y")
tables = st.lists(
    st.tuples(
        st.one_of(fields, st.just("")), fields, st.sampled_from(["1", "4.5", "5"]), st.sampled_from(["7", "", "NA"])
    ),
    min_size=1,
    max_size=20,
).filter(lambda rows: any(user for user, *_ in rows))


@settings(max_examples=40)
@given(rows=tables, separator=st.sampled_from([",", ";", "\t", "|"]), quoting=st.sampled_from([0, 1]))
def test_what_is_read_is_what_pandas_and_polars_read(path: Path, rows: list[Row], separator: str, quoting: int) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
    writer.writerows([("user_id", "item_id", "rating", "note"), *rows])
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    events = read_events(path)
    by_pandas = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=True)
    by_polars = pl.read_csv(path, separator=separator, infer_schema=False).fill_null("")
    found = [(user, item, float(rating)) for user, item, rating in rows_of(events)]
    for table in (by_pandas.itertuples(index=False, name=None), by_polars.iter_rows()):
        assert found == [(user, item, float(rating)) for user, item, rating, _ in table if user]
    assert events.reading is not None
    assert events.reading.rows == len(rows) == len(events) + sum(events.reading.dropped.values())


USERS = {
    "integers": [3, 1, 3, 2**53 + 1],
    "words": ["b", "a b", 'c,"d"', "b"],
    "digits": ["007", "7", "12", "7"],
}
COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "numpy": np.array,
    "numpy objects": lambda values: np.array(values, dtype=object),
    "pandas": pd.Series,
    "pandas objects": lambda values: pd.Series(values, dtype=object),
    "pandas index": pd.Index,
    "pandas categorical": lambda values: pd.Series(values, dtype="category"),
    "pandas nullable": lambda values: pd.Series(values).convert_dtypes(),
    "pandas of Arrow": lambda values: pd.Series(values).convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.Series,
    "polars categorical": lambda values: pl.Series(list(map(str, values))).cast(pl.Categorical),
    "Arrow": pa.array,
    "Arrow chunks": lambda values: pa.chunked_array([values[:1], values[1:]]),
    "Arrow dictionary": lambda values: pa.array(values).dictionary_encode(),
    "texts": lambda values: list(map(str, values)),
}


def of_file(path: Path, users: Sequence[Any]) -> Events:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("user", "item", "rating", "time")])
        csv.writer(file).writerows((user, f"i{n}", n + 1, 100 * n) for n, user in enumerate(users))
    return read_events(path)


@pytest.mark.parametrize("users", USERS.values(), ids=USERS)
@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_in_python_give_the_events_of_the_file_with_the_same_values(
    path: Path, kind: str, users: list[Any]
) -> None:
    make, n_rows = COLUMNS[kind], len(users)
    items, ratings, times = (
        [f"i{n}" for n in range(n_rows)],
        list(range(1, n_rows + 1)),
        list(range(0, 100 * n_rows, 100)),
    )
    expected = of_file(path, users)
    events = Events.from_columns(make(users), make(items), make(ratings), make(times))
    assert rows_of(events) == rows_of(expected)
    assert (events.user_ids.dtype, events.users.dtype) == (expected.user_ids.dtype, expected.users.dtype)


TABLES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "pandas": pd.DataFrame,
    "pandas nullable": lambda columns: pd.DataFrame(columns).convert_dtypes(),
    "polars": pl.DataFrame,
    "Arrow": pa.table,
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("users", [[3, None, 1, 3], ["b", None, "a", "NULL"]], ids=["integers", "words"])
def test_a_table_in_python_leaves_out_what_a_file_leaves_out(path: Path, kind: str, users: list[Any]) -> None:
    n_rows = len(users)
    columns = {
        "user": users,
        "item": [f"i{n}" for n in range(n_rows)],
        "rating": list(range(1, n_rows + 1)),
        "time": list(range(0, 100 * n_rows, 100)),
    }
    events, expected = events_of(TABLES[kind](columns)), of_file(path, users)
    assert rows_of(events) == rows_of(expected)
    assert events.reading is not None and expected.reading is not None
    assert events.reading.dropped == expected.reading.dropped


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["2020-01-01", "2021-06-01T12:00:00.9"], format="ISO8601"),
        pd.to_datetime(["2020-01-01", "2021-06-01T12:00:00"], utc=True, format="ISO8601").tz_convert("Asia/Tokyo"),
        pl.Series(["2020-01-01T00:00:00", "2021-06-01T12:00:00"]).str.to_datetime(),
        pa.array([1577836800000, 1622548800999], pa.timestamp("ms")),
        [1577836800.25, 1622548800.75],
        [1577836800000, 1622548800999],
        ["2020-01-01", "2021-06-01 14:00:00+02:00"],
    ],
    ids=lambda times: str(getattr(times, "dtype", getattr(times, "type", times))),
)
def test_times_in_python_are_those_of_the_file(path: Path, times: Any) -> None:
    path.write_text("user,item,time\n1,1,2020-01-01\n1,2,2021-06-01T12:00:00Z\n")
    assert rows_of(Events.from_columns([1, 1], [1, 2], None, times)) == rows_of(read_events(path))
