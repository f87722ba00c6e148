"""A log that cannot be used is refused with its file, its line, and what was expected there."""

import gzip
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.reading.options import LogFormat
from recvae.datasets.logs import read_events
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError, UsageError

HEADER = "user_id,item_id,rating,timestamp\n"
GOOD = HEADER + "1,30,4,100\n2,10,3.5,50\n"  # a third row would be line 4
TOLD = "could not tell which column holds the"
BINARY = " is a binary file, expected text or Parquet; export it as CSV"
NO_EVENTS = " is empty; expected a log with one row per event"
NO_ROWS = " has a header but no rows; expected one row per event"
DAMAGED = " is truncated or damaged ("
RATING = "the rating is missing, not a number or infinite, expected a number; repair or remove it"
TIME = "the time is missing or not a number, expected seconds since 1970; repair or remove it"
NEGATIVE = "the time is negative, expected seconds since 1970; repair or remove it"
ISO = "expected an ISO 8601 time (an offset from UTC in every line or in none); repair the line"


def assert_refused(path: Path, message: str, log_format: LogFormat | None = None, reader: Any = read_events) -> None:
    """Check that a message, all of it, follows the file's name."""
    with pytest.raises((DataError, UsageError), match=f"^{re.escape(f'{path}{message}')}$"):
        reader(path) if log_format is None else reader(path, log_format)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", NO_EVENTS),
        ("\n \n\r\n", NO_EVENTS),
        (HEADER, NO_ROWS),
        (HEADER.strip(), NO_ROWS),
        ("user::item\n\n", NO_ROWS),
        (b"\x00\x01\x02", BINARY),
        (GOOD.encode() + b"\x00,1,1,1\n", BINARY),
        (GOOD.encode("utf-16"), BINARY),
        (
            GOOD.replace("\n", "\r"),
            " line 1: got lines that end in a carriage return, expected newlines; convert it",
        ),
        (
            "user\n1\n2\n",
            " line 1: got one column with separator ',': 'user'; expected at least a user and an item column; "
            "give the right one with --sep",
        ),
        (
            "who,what\nann,film\n",
            f": {TOLD} user id; it has: who, what; name it with --user-col, "
            "or give --no-header if the first line is data already",
        ),
        (
            "user,what\nann,film\n",
            f": {TOLD} item id; it has: user, what; name it with --item-col, "
            "or give --no-header if the first line is data already",
        ),
        (
            GOOD.encode() + "3,É,3,3".encode("latin-1"),
            " line 4: not UTF-8 text (byte 0xc9 at position 3); convert the file first",
        ),
        (GOOD + "3,30,4\n", " line 4: got 3 columns, expected 4 as in the first line: '3,30,4'; repair the line"),
        (
            GOOD + "3,30,4,100,9\n",
            " line 4: got 5 columns, expected 4 as in the first line: '3,30,4,100,9'; repair the line",
        ),
        (
            "1::2::3::4\n5::6::7\n",
            " line 2: got 3 columns, expected 4 as in the first line: '5::6::7'; repair the line",
        ),
        (
            GOOD + "3,30\r,4,100\n",
            r" line 4: got 1 columns, expected 4 as in the first line: '3,30\r,4,100'; repair the line",
        ),
        (
            GOOD + "3,30,good,100\n",
            " line 4: column 'rating' holds 'good', expected a number; repair or remove the line",
        ),
        (GOOD + "3,30,1_0,100\n", " line 4: column 'rating' holds '1_0', expected a number; repair or remove the line"),
        (
            GOOD.replace("\n", "\r\n\r\n") + '3,30,"3,5",100\n',
            " line 7: column 'rating' holds '3,5', expected a number; repair or remove the line",
        ),
        (GOOD + "3,30,,100\n", f" line 4: {RATING}"),
        (GOOD + "3,30,NaN,100\n3,31,nan,100\n", f" line 4: {RATING} (and 1 more such rows)"),
        (GOOD + "3,30,inf,100\n", f" line 4: {RATING}"),
        (GOOD + "3,30,-Infinity,100\n", f" line 4: {RATING}"),
        (GOOD + "3,30,1e60,100\n", f" line 4: {RATING}"),
        ("\n" + GOOD + "\r\n3,30,,100\n", f" line 6: {RATING}"),
        (GOOD + "3,30,4,-1\n", f" line 4: {NEGATIVE}"),
        (GOOD + "3,30,4,\n", f" line 4: {TIME}"),
        (HEADER + "1,30,4,100.5\n2,10,4,nan\n", f" line 3: {TIME}"),
        (HEADER + "1,30,4,100.5\n2,10,4,inf\n", f" line 3: {TIME}"),
        (HEADER + "1,30,4,100.5\n2,10,4,1e30\n", f" line 3: {TIME}"),
        (HEADER + "1,30,4,2020-01-01\n2,10,4,\n", f" line 3: {TIME}"),
        (HEADER + "1,30,4,2020-01-01\n2,10,4,1969-12-31\n", f" line 3: {NEGATIVE}"),
        (
            GOOD + "3,30,4,today\n",
            " line 4: column 'timestamp' holds 'today', expected whole seconds since 1970; repair the line",
        ),
        (
            GOOD + "3,30,4,100.5\n",
            " line 4: column 'timestamp' holds '100.5', expected whole seconds since 1970; repair the line",
        ),
        (
            GOOD + "3,30,4,99999999999999999999\n",
            " line 4: column 'timestamp' holds '99999999999999999999', expected whole seconds since 1970; "
            "repair the line",
        ),
        (
            HEADER + "1,30,4,100.5\n2,10,4,today\n",
            " line 3: column 'timestamp' holds 'today', expected seconds since 1970; repair the line",
        ),
        (HEADER + "1,30,4,today\n", f" line 2: column 'timestamp' holds 'today', {ISO}"),
        (
            HEADER + "1,30,4,2020-01-01\n2,10,4,2020-13-01\n",
            f" line 3: column 'timestamp' holds '2020-13-01', {ISO}",
        ),
        (
            HEADER + "1,30,4,2020-01-01T00:00:00Z\n2,10,4,2020-01-01T00:00:00\n",
            f" line 3: column 'timestamp' holds '2020-01-01T00:00:00', {ISO}",
        ),
        (GOOD + ",30,4,100\n", " line 4: the user id is empty, expected an id; repair or remove it"),
        (
            GOOD + "3, ,4,1\n3,,4,1\n",
            " line 4: the item id is empty, expected an id; repair or remove it (and 1 more such rows)",
        ),
    ],
    ids=lambda value: repr(value[-40:]),
)
def test_a_bad_text_log_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert_refused(path, message)


def test_where_no_line_is_to_blame_the_readers_own_words_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("  \nuser,item\nann,film\n")
    with pytest.raises(DataError, match=f"^{tmp_path / 'log.csv'}: .*'user'.*; repair the file$"):
        read_events(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("log_format", "message"),
    [
        (
            LogFormat(user="userid"),
            " has no column 'userid'; it has: user_id, item_id, rating, timestamp; did you mean --user-col user_id?",
        ),
        (
            LogFormat(rating="xyz"),
            " has no column 'xyz'; it has: user_id, item_id, rating, timestamp; name one of them with --rating-col",
        ),
        (
            LogFormat(header=False, user="5"),
            " has no column '5'; it has: 1, 2, 3, 4; name one of them with --user-col",
        ),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, log_format: LogFormat, message: str
) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    assert_refused(tmp_path / "log.csv", message, log_format)


def test_one_column_cannot_be_both_user_and_item(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    message = "^got column 'item_id' for both user and item; change --user-col or --item-col$"
    with pytest.raises(UsageError, match=message):
        read_events(tmp_path / "log.csv", LogFormat(user="item_id", item="item_id"))


@pytest.mark.parametrize("separator", ["||", r"\t", "é"])
def test_a_separator_is_a_double_colon_or_one_ascii_character(tmp_path: Path, separator: str) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    message = f"got separator {separator!r}, expected '::' or one ASCII character, e.g. a comma or tab"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        read_events(tmp_path / "log.csv", LogFormat(separator=separator))


def test_a_wrong_separator_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user;item\n1;2\n")
    message = " line 1: got one column with separator ',': 'user;item'; expected at least a user and an item column; "
    assert_refused(tmp_path / "log.csv", f"{message}give the right one with --sep", LogFormat(separator=","))


def test_the_line_is_right_far_down_in_a_packed_log(tmp_path: Path) -> None:
    content = HEADER + "1,30,4,100\n" * 100_000 + "2,30,4\n"
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(content.encode(), 1))
    message = " line 100002: got 3 columns, expected 4 as in the first line: '2,30,4'; repair the line"
    assert_refused(tmp_path / "log.csv.gz", message)


@pytest.mark.parametrize("reader", [read_events, read_user_lists])
def test_a_missing_file_or_a_folder_is_wrong_use(tmp_path: Path, reader: Any) -> None:
    with pytest.raises(UsageError, match=f"^no file at {tmp_path / 'log.csv'}; check the path$"):
        reader(tmp_path / "log.csv")
    message = (
        " is a folder, expected a file; give the log inside it, or NAME --source FOLDER for a known data set (see "
    )
    with pytest.raises(UsageError, match=f"^{re.escape(f'{tmp_path}{message}')}"):
        reader(tmp_path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "log.csv").write_text(GOOD)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=f"^could not read {tmp_path / 'log.csv'}: Permission denied; check the file$"):
        read_events(tmp_path / "log.csv")


def zipped(*names: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in names:
            archive.writestr(name, GOOD)
    return buffer.getvalue()


def patched(archive: bytes, field: int, value: int) -> bytes:
    """Return a zip with one byte changed in both of its headers; `field` counts from the local one."""
    changed = bytearray(archive)
    changed[field] = changed[archive.rindex(b"PK\x01\x02") + field + 2] = value
    return bytes(changed)


def damaged(archive: bytes) -> bytes:
    """Return a zip with a few bytes changed in the middle of its content."""
    return archive[:70] + b"?!?" + archive[73:]


PACKED = gzip.compress(GOOD.encode() * 100)
ENCRYPTED, METHOD = (6, 1), (8, 99)  # where in a zip's header it says so


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PACKED[:3], DAMAGED + "Compressed file ended before"),
        (PACKED[: len(PACKED) // 2], DAMAGED + "Compressed file ended before"),
        (PACKED[:-8] + b"\0" + PACKED[-7:], DAMAGED + "CRC check failed"),
        (PACKED + b"more", DAMAGED + "Not a gzipped file"),
        (zipped("log.csv")[:-30], DAMAGED + "File is not a zip file"),
        *((damaged(zipped("log.csv", method=method)), DAMAGED) for method in (0, 8, 14)),
        (zipped("a.csv", "b.csv"), " holds 2 files, expected one; unpack it and give the log itself"),
        (zipped("folder/"), " holds 0 files, expected one; unpack it and give the log itself"),
    ],
)
def test_a_bad_archive_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/log{message}')}"):
        read_events(tmp_path / "log")


@pytest.mark.parametrize(
    ("patch", "reason"),
    [(ENCRYPTED, "File 'log.csv' is encrypted, password required"), (METHOD, "That compression method is not supp")],
)
def test_a_zip_that_cannot_be_unpacked_is_refused(tmp_path: Path, patch: tuple[int, int], reason: str) -> None:
    (tmp_path / "log.zip").write_bytes(patched(zipped("log.csv"), *patch))
    message = rf"^could not unpack {tmp_path / 'log.zip'} \({reason}.*\); unpack it and give the log itself$"
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / "log.zip")


def test_a_member_that_is_not_in_the_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.zip").write_bytes(zipped("a.csv"))
    with pytest.raises(DataError, match=f"^{tmp_path / 'log.zip'} holds no file b.csv; download it again$"):
        read_events(Source(tmp_path / "log.zip", "b.csv"))


COLUMN = "; name another column with --"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": [1, None, 3]}, " row 2: the user id is empty, expected an id; repair or remove it"),
        ({"item": pa.array(["a", "", None]).dictionary_encode()}, " row 2: the item id is empty, expected an id"),
        ({"user": [1.0, float("nan"), 3.0]}, " row 2: the user id is empty, expected an id; repair or remove it"),
        ({"user": pa.nulls(3)}, " row 1: the user id is empty, expected an id; repair or remove it (and 2 more"),
        (
            {"user": [[1], [2], [3]]},
            ": column 'user' holds list<element: int64>, expected integers or strings for the user id (",
        ),
        (
            {"item": [b"\xff", b"b", b"c"]},
            ": column 'item' holds binary, expected integers or strings for the item id (",
        ),
        ({"rating": [1.0, None, 3.0]}, f" row 2: {RATING}"),
        ({"rating": [1.0, 2.0, float("inf")]}, f" row 3: {RATING}"),
        ({"rating": ["1", "good", "3"]}, ": column 'rating' holds string, expected numbers for the rating ("),
        (
            {"rating": [[1], [2], [3]]},
            ": column 'rating' holds list<element: int64>, expected numbers for the rating (",
        ),
        ({"time": [1, None, 3]}, f" row 2: {TIME}"),
        ({"time": [1.5, float("nan"), 3.5]}, f" row 2: {TIME}"),
        ({"time": [1, 2, -3]}, f" row 3: {NEGATIVE}"),
        ({"time": ["1", "today", "3"]}, ": column 'time' holds string, expected numbers for the time ("),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_parquet_log_is_refused_with_its_row_or_column(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    columns = {"user": [1, 2, 3], "item": ["a", "b", "c"], "rating": [1.0, 2.0, 3.0], "time": [1, 2, 3]}
    pq.write_table(pa.table(columns | changes), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/log.parquet{message}')}") as caught:
        read_events(tmp_path / "log.parquet")
    if "holds" in message:
        assert str(caught.value).endswith(f"; name another column with --{next(iter(changes))}-col")


def test_a_parquet_log_without_rows_or_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}), path)
    assert_refused(path, NO_ROWS)
    assert_refused(
        path, " has no column 'who'; it has: user, item; name one of them with --user-col", LogFormat(user="who")
    )
    pq.write_table(pa.table({"user": [1], "what": [2]}), path)
    with pytest.raises(DataError, match=f"{TOLD} item id; it has: user, what; name it with --item-col"):
        read_events(path)


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_truncated_parquet_log_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": range(1000), "item": range(1000)}), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"^{path} is damaged or not a Parquet file .*; write or fetch it again$"):
        read_events(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", NO_EVENTS),
        (b"\n\n", " is empty; expected lines of 'user item item ...'"),
        (b"0\n1\n", " is empty; expected lines of 'user item item ...'"),
        (
            b"0 \xff\n",
            " is not UTF-8 text ('utf-8' codec can't decode byte 0xff in position 2: invalid start byte); "
            "convert it first",
        ),
    ],
)
def test_bad_user_lists_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    assert_refused(tmp_path / "train.txt", message, reader=read_user_lists)
