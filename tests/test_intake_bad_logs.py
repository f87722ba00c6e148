"""A log that cannot be used is refused with its file, its line, and what was expected there."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.logs import read_events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError, UsageError

HEADER = "user_id,item_id,rating,timestamp\n"
GOOD = HEADER + "1,30,4,100\n2,10,3.5,50\n"  # a third row would be line 4
TOLD = "could not tell which column holds the"
BINARY = " is a binary file of an unknown kind, expected text or Parquet; export it as CSV or Parquet"
NO_EVENTS = " is empty; expected a log with one row per event"
NO_ROWS = " has a header but no rows; expected one row per event"
DAMAGED = " is truncated or damaged ("
SKIP = "; repair the line, or leave such rows out with --on-bad-row skip"
NUMBER = "expected a number; repair or remove the row, name another column with --rating-col, or leave it out with "
NUMBER += "--no-rating, or such rows with --on-bad-row skip"
OR_NO_TIME = "; repair or remove the row, name another column with --time-col, or leave it out with --no-time"
OR_NO_TIME += ", or such rows with --on-bad-row skip"
TIME = f"expected a time as in the first rows (number){OR_NO_TIME}"
DATE = f"expected a time as in the first rows (ISO 8601){OR_NO_TIME}"
SINCE = f"expected a time since 1970{OR_NO_TIME}"
NO_TIME = (
    "is not a time, expected a number (seconds to nanoseconds since 1970) or ISO 8601, e.g. 2023-01-02T10:00:00Z; "
    "say how it is written with --time-format, or leave the column out with --no-time"
)
UNSURE = (
    "names the columns or is the first row; say so with --header or --no-header, or name the columns with --user-col "
    "and --item-col"
)


def shown(value: Any) -> str:
    """Return the name of a case: the same in every process that runs the tests."""
    if isinstance(value, dict):
        value = {name: one.to_pylist() if isinstance(one, pa.Array) else one for name, one in value.items()}
    return str(value)[:50]


def assert_refused(path: Path, message: str, log_format: LogFormat | None = None) -> None:
    """Check that a message, all of it, follows the file's name."""
    with pytest.raises((DataError, UsageError), match=f"^{re.escape(f'{path}{message}')}$"):
        read_events(path, log_format)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", NO_EVENTS),
        ("\n \n\r\n", NO_EVENTS),
        (HEADER, NO_ROWS),
        (HEADER.strip(), NO_ROWS),
        ("user::item\n\n", NO_ROWS),
        (b"\x00\x01\x02", BINARY),
        (GOOD.encode() + b"\x00", " holds 1 zero bytes, expected text; repair the file, or say --encoding utf-16"),
        (
            "user\n1\n2\n",
            " line 1: got one column: 'user'; expected at least a user and an item column; "
            "give the right separator with --sep",
        ),
        ("who,what\nann,film\n", f" line 1: cannot tell whether 'who, what' {UNSURE}"),
        ("user,what\nann,film\n", f" line 1: cannot tell whether 'user, what' {UNSURE}"),
        (
            "user,what\n1,2\n",
            f": {TOLD} item id; it has: user, what; name it with --item-col, "
            "or give --no-header if the first line is data already",
        ),
        (
            GOOD.encode() + "3,É,3,3".encode("latin-1"),
            " line 4: not UTF-8 text: b'3,\\xc9,3,3'; say what it is, e.g. --encoding latin-1, "
            "or leave such rows out with --on-bad-row skip",
        ),
        (GOOD + "3,30,4\n", f" line 4: got 3 columns, expected 4 as in the first line: '3,30,4'{SKIP}"),
        (GOOD + "3,30,4,100,9\n", f" line 4: got 5 columns, expected 4 as in the first line: '3,30,4,100,9'{SKIP}"),
        ("1::2::3::4\n5::6::7\n", f" line 2: got 3 columns, expected 4 as in the first line: '5::6::7'{SKIP}"),
        (
            GOOD + "3,30\r,4,100\n",
            f" line 4: got 2 columns, expected 4 as in the first line: '3,30'{SKIP} (1 more such rows)",
        ),
        (
            (GOOD * 2).replace("\n", "\r").replace("user", "u") + "3,30\r",
            f" line 4: column 'rating' holds 'rating', {NUMBER}",
        ),
        (GOOD + "3,30,good,100\n", f" line 4: column 'rating' holds 'good', {NUMBER}"),
        (GOOD + "3,30,1_0,100\n", f" line 4: column 'rating' holds '1_0', {NUMBER}"),
        (
            GOOD.replace("\n", "\r\n\r\n") + '3,30,"3,5",100\n',
            f" line 7: column 'rating' holds '3,5', {NUMBER}",
        ),
        (GOOD + "3,30,,100\n", f" line 4: column 'rating' is empty, {NUMBER}"),
        (
            GOOD + "3,30,NaN,100\n3,31,nan,100\n",
            f" line 4: column 'rating' holds 'NaN', {NUMBER} (1 more such rows nearby)",
        ),
        (GOOD + "3,30,inf,100\n", f" line 4: column 'rating' holds 'inf', {NUMBER}"),
        (GOOD + "3,30,-Infinity,100\n", f" line 4: column 'rating' holds '-Infinity', {NUMBER}"),
        (GOOD + "3,30,1e60,100\n", f" line 4: column 'rating' holds '1e60', {NUMBER}"),
        ("\n" + GOOD + "\r\n3,30,,100\n", f" line 6: column 'rating' is empty, {NUMBER}"),
        (GOOD + "3,30,4,-1\n", f" line 4: column 'timestamp' holds '-1', {SINCE}"),
        (GOOD + "3,30,4,\n", f" line 4: column 'timestamp' is empty, {TIME}"),
        (HEADER + "1,30,4,100.5\n2,10,4,nan\n", f" line 3: column 'timestamp' holds 'nan', {TIME}"),
        (HEADER + "1,30,4,100.5\n2,10,4,inf\n", f" line 3: column 'timestamp' holds 'inf', {TIME}"),
        (HEADER + "1,30,4,100.5\n2,10,4,1e30\n", f" line 3: column 'timestamp' holds '1e30', {TIME}"),
        (HEADER + "1,30,4,2020-01-01\n2,10,4,\n", f" line 3: column 'timestamp' is empty, {DATE}"),
        (HEADER + "1,30,4,2020-01-01\n2,10,4,1969-12-31\n", f" line 3: column 'timestamp' holds '1969-12-31', {SINCE}"),
        (HEADER + "1,30,4,2020-01-01\n2,10,4,2020-13-01\n", f" line 3: column 'timestamp' holds '2020-13-01', {DATE}"),
        (GOOD + "3,30,4,today\n", f" line 4: column 'timestamp' holds 'today', {TIME}"),
        (GOOD + "3,30,4,2020-01-01\n", f" line 4: column 'timestamp' holds '2020-01-01', {TIME}"),
        (
            GOOD + "3,30,4,99999999999999999999\n",
            f" line 4: column 'timestamp' holds '99999999999999999999', {TIME}",
        ),
        (HEADER + "1,30,4,today\n", f": column 'timestamp': 'today' {NO_TIME}"),
        (
            HEADER + "1,30,4,01/02/2020\n",
            ": column 'timestamp': '01/02/2020' may begin with the day or with the month; say which, e.g. "
            "--time-format '%d/%m/%Y' or '%m/%d/%Y', or leave the column out with --no-time",
        ),
        (
            HEADER + ",30,4,1\n2,,4,1\n",
            ": no row has both a user and an item (empty); choose other columns with --user-col and --item-col",
        ),
        (
            "user,item,item\n1,2,3\n",
            ": 'item' and 'item' both look like the item id, expected one column; name it with --item-col, "
            "or give --no-header if the first line is data already",
        ),
    ],
    ids=lambda value: repr(value[-40:]),
)
def test_a_bad_text_log_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert_refused(path, message)


ENDS = ["\n", "\r\n", "\r"]


@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"3,30", f" line 4: got 2 columns, expected 4 as in the first line: '3,30'{SKIP}"),
        (b"3,30,x,100", f" line 4: column 'rating' holds 'x', {NUMBER}"),
    ],
)
def test_the_line_is_right_however_lines_end(tmp_path: Path, end: str, pack: Any, row: bytes, message: str) -> None:
    content = (GOOD.encode() + row + b"\n3,31,5,100\n").replace(b"\n", end.encode())
    (tmp_path / "log").write_bytes(pack(content))
    assert_refused(tmp_path / "log", message)


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_malformed_rows_may_be_left_out_and_are_counted(tmp_path: Path, end: str) -> None:
    content = GOOD.encode() + b"3,30\n3,\xff,4,100\n3,30,4,100,9\n4,30,4,100\n"
    (tmp_path / "log").write_bytes(content.replace(b"\n", end.encode()))
    events = read_events(tmp_path / "log", LogFormat(on_bad_row="skip"))
    assert events.user_ids[events.users].tolist() == [1, 2, 4]
    assert events.reading is not None
    assert events.reading.skipped == {"malformed rows": 3}


def test_a_quote_that_nothing_closes_is_named_where_quotes_were_said(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(GOOD + '3,"30,4,100\n4,30,4,100\n')
    message = (
        " line 4: got a quote that nothing closes: '3,\"30,4,100\\n4,30,4,100'; repair the line, or say --quote none, "
        "or leave such rows out with --on-bad-row skip"
    )
    assert_refused(tmp_path / "log.csv", message, LogFormat(quote='"'))


def test_ids_that_were_rounded_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,5\n1.23457e+08,5\n")
    message = (
        ": the user column 'user' holds '1.23457e+08', a rounded number: different ids may have become one; "
        "write the ids as whole numbers or as texts"
    )
    assert_refused(tmp_path / "log.csv", message)


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
    message = f" line 100002: got 3 columns, expected 4 as in the first line: '2,30,4'{SKIP}"
    assert_refused(tmp_path / "log.csv.gz", message)


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^no file at {tmp_path / 'log.csv'}; check the path$"):
        read_events(tmp_path / "log.csv")
    with pytest.raises(UsageError, match=r"^got no file, expected at least one$"):
        read_events([])


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


PACKED = gzip.compress(GOOD.encode() * 100, mtime=0)
ENCRYPTED, METHOD = (6, 1), (8, 99)  # where in a zip's header it says so


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PACKED[:3], DAMAGED + "Compressed file ended before"),
        (PACKED[: len(PACKED) // 2], DAMAGED + "Compressed file ended before"),
        (PACKED[:-8] + b"\0" + PACKED[-7:], DAMAGED + "CRC check failed"),
        (PACKED + b"more", DAMAGED + "Not a gzipped file"),
        (zipped("log.csv")[:-30], DAMAGED + "File is not a zip file"),
        (bz2.compress(GOOD.encode())[:-4], DAMAGED + "Compressed file ended before"),
        (lzma.compress(GOOD.encode())[:-4], DAMAGED + "Compressed file ended before"),
        *((damaged(zipped("log.csv", method=method)), DAMAGED) for method in (0, 8, 14)),
        (zipped("a.csv", "b.csv"), " holds 2 files (a.csv, b.csv), expected one; unpack it and give the log itself"),
        (zipped("folder/"), " holds 0 files (nothing), expected one; unpack it and give the log itself"),
    ],
    ids=range(12),
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
        (
            {"user": pa.nulls(3)},
            ": no row has both a user and an item (empty); choose other columns with --user-col and --item-col",
        ),
        (
            {"user": [1.0, 2.5, 3.0]},
            ": the user column 'user' holds the number 2.5, expected whole numbers or texts as ids; choose another "
            "column, or write the ids as texts",
        ),
        (
            {"user": [1.0, 2.0**53 + 2, 3.0]},
            ": the user column 'user' holds double numbers up to 9007199254740994, which are exact only up to "
            "9007199254740992: different ids may have become one; write the ids as integers or texts",
        ),
        (
            {"item": pa.array(np.array([1, 2**24 + 2, 3], np.float32))},
            ": the item column 'item' holds float numbers up to 16777218, which are exact only up to 16777216: "
            "different ids may have become one; write the ids as integers or texts",
        ),
        (
            {"user": [[1], [2], [3]]},
            f": column 'user' holds BIGINT[], expected integers or texts for the user{COLUMN}user-col",
        ),
        (
            {"item": [b"\xff", b"b", b"c"]},
            ": column 'item' holds BLOB, expected integers or texts for the item; cast it to text first"
            f"{COLUMN}item-col",
        ),
        ({"rating": [1.0, None, 3.0]}, f" row 2: column 'rating' is empty, {NUMBER}"),
        ({"rating": [1.0, 2.0, float("inf")]}, f" row 3: column 'rating' holds 'inf', {NUMBER}"),
        ({"rating": ["1", "good", "3"]}, f" row 2: column 'rating' holds 'good', {NUMBER}"),
        (
            {"rating": [[1], [2], [3]]},
            f": column 'rating' holds BIGINT[], expected numbers for the rating{COLUMN}rating-col, "
            "or leave it out with --no-rating",
        ),
        ({"time": [1, None, 3]}, f" row 2: column 'time' is empty, {TIME}"),
        ({"time": [1.5, float("nan"), 3.5]}, f" row 2: column 'time' holds 'nan', {TIME}"),
        ({"time": [1, 2, -3]}, f" row 3: column 'time' holds '-3', {SINCE}"),
        ({"time": ["1", "today", "3"]}, f" row 2: column 'time' holds 'today', {TIME}"),
        (
            {"time": [True, False, True]},
            f": column 'time' holds BOOLEAN, expected times: numbers, dates or texts{COLUMN}time-col, "
            "or leave it out with --no-time",
        ),
    ],
    ids=shown,
)
def test_a_bad_parquet_log_is_refused_with_its_row_or_column(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    columns = {"user": [1, 2, 3], "item": ["a", "b", "c"], "rating": [1.0, 2.0, 3.0], "time": [1, 2, 3]}
    pq.write_table(pa.table(columns | changes), tmp_path / "log.parquet")
    assert_refused(tmp_path / "log.parquet", message)


@pytest.mark.parametrize(
    "changes",
    [
        {"user": [1, None, 3]},
        {"user": [1.0, float("nan"), 3.0]},
        {"item": pa.array(["a", "", "c"]).dictionary_encode()},
        {"item": pa.array(["a", None, "c"]).dictionary_encode()},
    ],
    ids=shown,
)
def test_a_parquet_row_without_an_id_is_left_out_and_counted(tmp_path: Path, changes: dict[str, Any]) -> None:
    pq.write_table(pa.table({"user": [1, 2, 3], "item": ["a", "b", "c"]} | changes), tmp_path / "log.parquet")
    events = read_events(tmp_path / "log.parquet")
    assert (events.user_ids.tolist(), events.item_ids.tolist()) == ([1, 3], ["a", "c"])
    assert events.reading is not None
    assert list(events.reading.dropped.values()) == [1]


def test_a_parquet_log_without_rows_or_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}), path)
    assert_refused(path, " has no rows; expected one row per event")
    assert_refused(
        path, " has no column 'who'; it has: user, item; name one of them with --user-col", LogFormat(user="who")
    )
    pq.write_table(pa.table({"user": [1], "what": [2]}), path)
    assert_refused(path, f": {TOLD} item id; it has: user, what; name it with --item-col")
    pq.write_table(pa.table([[1], [2], [3]], names=["user", "item", "item"]), path)
    both = ": 'item' and 'item' both look like the item id, expected one column; name it with --item-col"
    assert_refused(path, both)


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
        (b"\n\n", NO_EVENTS),
        (
            b"0\n1\n",
            " line 1: got one column: '0'; expected at least a user and an item column; "
            "give the right separator with --sep",
        ),
        (
            b"0 1 2\n0 \xff\n",
            " line 2: not UTF-8 text: b'0 \\xff'; say what it is, e.g. --encoding latin-1, "
            "or leave such rows out with --on-bad-row skip",
        ),
    ],
)
def test_bad_user_lists_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    assert_refused(tmp_path / "train.txt", message)


@pytest.mark.parametrize(
    ("content", "encoding", "reason"),
    [
        (GOOD.encode(), "utf-16", "UTF-16 stream does not start with BOM"),
        (GOOD.encode("utf-16") + b"\n", None, "'utf-16-le' codec can't decode byte 0x0a in position 0: truncated data"),
        (GOOD.encode() + b"3,\x81,1,1\n", "cp1252", "'charmap' codec can't decode byte 0x81 in position "),
    ],
)
def test_text_of_another_encoding_than_said_or_found_is_refused(
    tmp_path: Path, content: bytes, encoding: str | None, reason: str
) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    message = re.escape(f"{tmp_path}/log.csv could not be decoded ({reason}")
    with pytest.raises(DataError, match=rf"^{message}.*\); say its encoding with --encoding$"):
        read_events(tmp_path / "log.csv", LogFormat(encoding=encoding))
