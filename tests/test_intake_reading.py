"""Reading a log: whatever the format, the same events, in the order of the file."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.datasets.events import Events
from recvae.datasets.logs import read_events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError, RecvaeError

HEADER = "user_id,item_id,rating,timestamp\n"
LOG = Events.from_columns([1, 2, 1], [30, 10, 10], [4.0, 3.5, 5.0], [100, 50, 70])


def assert_same(found: Events, expected: Events) -> None:
    for name in ("users", "items", "user_ids", "item_ids", "ratings", "timestamps"):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert (one is None) == (other is None)
        assert one is None or one.dtype == other.dtype, name


def events_of(users: Any, items: Any, ratings: Any, times: Any) -> Events:
    """Return the events of columns without a reader: any reader must find these."""
    user_ids, user = np.unique(np.array(users, dtype=object), return_inverse=True)
    item_ids, item = np.unique(np.array(items, dtype=object), return_inverse=True)
    integers = [np.dtype(np.int64) if isinstance(ids[0], int) else ids.dtype for ids in (user_ids, item_ids)]
    return Events(
        users=user.astype(np.int32),
        items=item.astype(np.int32),
        user_ids=user_ids.astype(integers[0]),
        item_ids=item_ids.astype(integers[1]),
        ratings=None if ratings is None else np.array(ratings, dtype=np.float32),
        timestamps=None if times is None else np.array(times, dtype=np.int64),
    )


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "zip": lambda content: zipped({"log.csv": content}),
}
packers = st.sampled_from(list(PACKERS.values()))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a test may write its log; the name must not matter."""
    return tmp_path_factory.mktemp("logs") / "log"


def read(path: Path, content: str | bytes, log_format: LogFormat | None = None) -> Events:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_events(path, log_format)


def ids_of(path: Path, *users: str) -> list[Any]:
    """Return what user ids become, in the order of the rows."""
    events = read(path, "user,item\n" + "".join(f"{user},x\n" for user in users))
    return events.user_ids[events.users].tolist()


@pytest.mark.parametrize(
    "content",
    [
        HEADER + "1,30,4,100\n2,10,3.5,50\n1,10,5,70\n",
        "1,30,4,100\n2,10,3.5,50\n1,10,5,70",
        "userId\tmovieId\trating\ttimestamp\n1\t30\t4\t100\n2\t10\t3.5\t50\n1\t10\t5\t70\n",
        "1\t30\t4\t100\n2\t10\t3.5\t50\n1\t10\t5\t70\n",
        "1::30::4::100\n2::10::3.5::50\n1::10::5::70\n",
        "user::item::rating::time\n1::30::4::100\n2::10::3.5::50\n1::10::5::70\n",
        "User;Item;Rating;Time\n1;30;4;100\n2;10;3.5;50\n1;10;5;70\n",
        "1|30|4|100\n2|10|3.5|50\n1|10|5|70\n",
        "user item rating ts\n1 30 4 100\n2 10 3.5 50\n1 10 5 70\n",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t30\t4\t100.0\n2\t10\t3.5\t50.0\n1\t10\t5\t70.0\n",
        "timestamp,rating,asin,reviewerID\n100,4,30,1\n50,3.5,10,2\n70,5,10,1\n",
        "title,movie_id,stars,unixReviewTime,uid\nHeat,30,4,100,1\nJaws,10,3.5,50,2\n,10,5,70,1\n",
        HEADER + "1,30,4,100.25\n2,10,3.5,50.75\n1,10,5,7.0e1\n",
        HEADER + "1,30,4,1970-01-01T00:01:40\n2,10,3.5,1970-01-01 00:00:50\n1,10,5,1970-01-01 00:01:10.5\n",
        HEADER + "1,30,4,1970-01-01T00:01:40Z\n2,10,3.5,1970-01-01T02:00:50+02:00\n1,10,5,1970-01-01T00:01:10Z\n",
        "\ufeff" + HEADER + "1,30,4,100\n2,10,3.5,50\n1,10,5,70\n",
        "\ufeff1::30::4::100\n2::10::3.5::50\n1::10::5::70\n",
        HEADER + "\n1,30,4,100\n\n\n2,10,3.5,50\n1,10,5,70\n\n",
        "\r\n1::30::4::100\r\n\r\n2::10::3.5::50\r\n1::10::5::70\r\n",
        HEADER + '"1","30","4","100"\n"2",10,3.5,50\n1,10,5,70\n',
        HEADER + " 1, 30, 4, 100\n2 ,10 ,3.5 ,50 \n1,10,5,70\n",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_every_text_format_reads_the_same(path: Path, content: str) -> None:
    assert_same(read(path, content), LOG)


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize(
    "text", [HEADER + "1,30,4,100\n2,10,3.5,50\n1,10,5,70\n", "1::30::4::100\n2::10::3.5::50\n1::10::5::70\n"]
)
def test_a_packed_log_is_told_by_its_content(path: Path, text: str, pack: Any) -> None:
    assert_same(read(path, pack(text.encode())), LOG)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_of_a_zip_a_single_member_is_read(path: Path, method: int) -> None:
    path.write_bytes(
        zipped({"a/": b"", "a/README": b"no log", "a/log.csv": b"1,30,4,100\n2,10,3.5,50\n1,10,5,70\n"}, method)
    )
    assert_same(read_events(Source(path, "a/log.csv")), LOG)


strings = st.text("aZ09_-.é漢", max_size=5).map("u".__add__)
GUESSED = [",", ";", "\t", "|", "::", " ", "^", "~"]
GIVEN = [chr(code) for code in range(1, 127) if chr(code) not in '\r\n"']


@settings(max_examples=10)
@given(data=st.data(), words=st.booleans(), newline=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), header=st.booleans())
@pytest.mark.parametrize("separator", GUESSED)
def test_a_table_written_with_any_usual_separator_reads_back_equal(
    path: Path, separator: str, data: st.DataObject, words: bool, newline: str, header: bool
) -> None:
    ids = strings if words else st.integers(-(2**63), 2**63 - 1)
    rating, time = st.floats(-1e7, 1e7, width=32), st.integers(0, 4_102_444_800)  # up to 2100
    rows = data.draw(st.lists(st.tuples(ids, ids, rating, time), min_size=1, max_size=30))
    lines = [["user", "item", "rating", "time"]] * header + [[str(field) for field in row] for row in rows]
    content = newline.join(separator.join(line) for line in lines)
    pack = data.draw(packers)
    users, items, ratings, times = zip(*rows, strict=True)
    assert_same(read(path, pack(content.encode())), events_of(users, items, ratings, times))


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(lambda text: "u" + text.strip())


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(texts, texts), min_size=1), separator=st.sampled_from(GIVEN))
def test_ids_in_quotes_may_hold_anything_with_any_separator(
    path: Path, separator: str, rows: list[tuple[str, str]]
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator).writerows([("user", "item"), *rows])
    users, items = zip(*rows, strict=True)
    log_format = LogFormat(separator=separator, header=True)
    events = read(path, buffer.getvalue(), log_format)
    assert_same(events, Events.from_columns(users, items))
    assert events.reading is not None and not events.reading.skipped


def test_rows_keep_their_order_across_the_readers_blocks(path: Path) -> None:
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 5000, size=(2, 200_000))
    words = [f"user-{user}" for user in users]  # several MB: more than one block of pyarrow's
    expected = Events.from_columns(words, items, None, None)
    for separator in (",", "::"):
        content = "".join(f"{user}{separator}{item}\n" for user, item in zip(words, items.tolist(), strict=True))
        assert_same(read(path, content), expected)


@pytest.mark.parametrize(
    ("written", "read_back"),
    [
        (["7", "-8"], [7, -8]),
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["007", "7"], ["007", "7"]),
        (["+7", "8"], ["+7", "8"]),
        (["1_000", "8"], ["1_000", "8"]),
        (["-0", "0"], ["-0", "0"]),
        (["1.0", "2"], [1, 2]),
        (["1.5", "2"], ["1.5", "2"]),
        (["12", "ann", "9"], ["12", "ann", "9"]),
        ([" 7", "7 "], [7, 7]),
        (["NA", "ann", "-"], ["NA", "ann", "-"]),
        (['"a,b"', '"say ""hi"""'], ["a,b", 'say "hi"']),
    ],
)
def test_ids_are_integers_only_if_they_all_are_written_as_such(path: Path, written: list[str], read_back: Any) -> None:
    assert ids_of(path, *written) == read_back


@pytest.mark.parametrize(
    ("written", "read_back", "marks"),
    [
        (["null", "NaN", "", "7"], [7], {"null": 1, "NaN": 1, "empty": 1}),
        (["\\N", "<NA>", "None", "ann"], ["ann"], {"\\N": 1, "<NA>": 1, "None": 1}),
        (["NA", "7", "-"], [7], {"NA": 1, "-": 1}),  # among integers, these are no ids either
    ],
)
def test_rows_without_an_id_are_left_out_and_counted(
    path: Path, written: list[str], read_back: Any, marks: dict[str, int]
) -> None:
    events = read(path, "user,item\n" + "".join(f"{user},x\n" for user in written))
    assert events.user_ids[events.users].tolist() == read_back
    assert events.reading is not None and events.reading.rows == len(written)
    assert events.reading.dropped == {"rows without a user id": len(written) - len(read_back)}
    assert events.reading.marks == {"user": marks}


def test_columns_may_be_named_or_counted(path: Path) -> None:
    content = "what,who,user_id\n10,a,1\n20,b,2\n"
    expected = Events.from_columns(["a", "b"], [10, 20])
    assert_same(read(path, content, LogFormat(user="who", item="what")), expected)
    content = "10,junk,a\n20,junk,b\n"
    assert_same(read(path, content, LogFormat(header=False, user="3", item="1")), expected)


def test_a_log_of_words_may_be_said_to_have_no_header(path: Path) -> None:
    expected = Events.from_columns(["ann", "bob"], ["film", "book"])
    assert_same(read(path, "ann,film\nbob,book\n", LogFormat(header=False)), expected)


@pytest.mark.parametrize("separator", [",", "\t", "|"])
def test_a_quote_that_nothing_closes_is_a_letter_and_swallows_no_row(path: Path, separator: str) -> None:
    rows = [("u1", "a"), ("u2", '"b'), ("u3", "c"), ("u4", '"d" e'), ("u5", "f")]
    content = "".join(separator.join(row) + "\n" for row in [("user", "item"), *rows])
    users, items = zip(*rows, strict=True)
    assert_same(read(path, content), Events.from_columns(users, items))


def test_a_value_in_quotes_may_go_over_several_lines(path: Path) -> None:
    events = read(path, 'user,item,note\nann,1,"good,\n\nbut long"\nbob,2,"\n"\n\n')
    assert_same(events, Events.from_columns(["ann", "bob"], [1, 2]))
    assert events.reading is not None and events.reading.skipped == {"blank lines": 1}


def test_a_separator_that_is_given_is_used(path: Path) -> None:
    expected = Events.from_columns(["a,1", "b,2"], [10, 20])
    assert_same(read(path, "user;item\na,1;10\nb,2;20\n", LogFormat(separator=";")), expected)


INTEGERS, WORDS = pa.array([3, 1, 3]), pa.array(["b", "a", "a"])
UUIDS = [f"00000000-0000-0000-0000-00000000000{last}" for last in (2, 0, 0)]


@pytest.mark.parametrize(
    ("users", "ids"),
    [
        (INTEGERS, [3, 1, 3]),
        (INTEGERS.cast(pa.uint64()), [3, 1, 3]),
        (INTEGERS.cast(pa.int8()), [3, 1, 3]),
        (INTEGERS.cast(pa.float64()), [3, 1, 3]),
        (INTEGERS.cast(pa.string()), [3, 1, 3]),
        (INTEGERS.dictionary_encode(), [3, 1, 3]),
        (WORDS, ["b", "a", "a"]),
        (WORDS.cast(pa.large_string()), ["b", "a", "a"]),
        (pa.array([bytes(15) + b"\2", bytes(16), bytes(16)], pa.binary(16)), UUIDS),
        (WORDS.dictionary_encode(), ["b", "a", "a"]),
        (pa.array([2**64 - 1, 1, 1], pa.uint64()), ["18446744073709551615", "1", "1"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
@pytest.mark.parametrize("rows_per_group", [1, 100])
def test_parquet_ids_may_be_integers_strings_dictionaries_or_uuids(
    path: Path, users: pa.Array, ids: list[Any], rows_per_group: int
) -> None:
    table = pa.table({"movie": [5, 6, 7], "user_id": users, "rating": [1, 2, 3]})
    pq.write_table(table, path, row_group_size=rows_per_group)
    assert_same(read_events(path), Events.from_columns(ids, [5, 6, 7], [1, 2, 3]))


@pytest.mark.parametrize(
    "times",
    [
        pa.array([100, 50, 70]),
        pa.array([100.9, 50.1, 70.0]),
        pa.array([100, 50, 70], pa.timestamp("s")),
        pa.array(["1970-01-01T00:01:40", "1970-01-01 00:00:50Z", "1970-01-01T01:01:10+01:00"]),
        pa.array(["100", "50.9", "7e1"]),
        pa.array([100_000_999, 50_000_000, 70_000_000], pa.timestamp("us", tz="Asia/Tokyo")),
    ],
    ids=lambda times: str(times.type),
)
def test_parquet_times_become_seconds(path: Path, times: pa.Array) -> None:
    pq.write_table(pa.table({"user": [1, 2, 1], "item": [30, 10, 10], "stars": [4, 3.5, 5], "when": times}), path)
    assert_same(read_events(path, LogFormat(time="when")), LOG)


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("content", ["0 3 1\n2\n1 3\n0 7 \n", "\ufeff0 3 1\r\n\r\n2\r\n1 3\r\n0\t7"])
def test_user_lists_hold_a_user_and_the_items_on_each_line(path: Path, content: str, pack: Any) -> None:
    events = read(path, pack(content.encode()))
    assert_same(events, Events.from_columns([0, 0, 1, 0], [3, 1, 3, 7]))
    assert events.reading is not None
    assert events.reading.dropped == {"rows without an item id": 1}  # the user 2


@pytest.mark.parametrize("content", ["user item\n1 2\n", "1\t2\n", "1::2\n", "1,2\n", "1 2\n"])
def test_two_columns_are_a_log_and_no_user_lists(path: Path, content: str) -> None:
    assert_same(read(path, content), Events.from_columns([1], [2]))


@pytest.mark.parametrize("content", ["1\t2\t3\n4\t5\n", "1,2,3\n4,5\n"])
def test_a_short_row_makes_no_user_lists_of_a_table(path: Path, content: str) -> None:
    with pytest.raises(DataError, match="line 2: got 2 columns, expected 3 as in the first line"):
        read(path, content)


tokens = st.sampled_from(
    [
        *(separator.encode() for separator in GUESSED),
        *(b"user_id", b"item", b"rating", b"timestamp", b"1", b"-2", b"2.5", b"nan", b"1e99", b"2020-01-01"),
        *(b"\n", b"\n", b"\r\n", b"\r", b'"', b"\xef\xbb\xbf", b"\xff", b"\xc3\xa9", b"\0", b"#", b"{", b'":', b"}"),
    ]
)


@settings(max_examples=80)
@given(st.lists(tokens, max_size=40).map(b"".join), packers)
def test_any_bytes_are_read_or_refused_by_name(path: Path, content: bytes, pack: Any) -> None:
    path.write_bytes(pack(content))
    try:
        assert len(read_events(path)) > 0
    except RecvaeError as error:
        assert str(path) in str(error)


@settings(max_examples=60)
@given(packers, st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_byte_is_read_or_refused_by_name(path: Path, pack: Any, position: int, change: int) -> None:
    content = bytearray(pack(HEADER.encode() + b"1,30,4,100\n2,10,3.5,50\n" * 10))
    content[position % len(content)] ^= change
    path.write_bytes(content)
    try:
        assert len(read_events(path)) > 0
    except RecvaeError as error:
        assert str(path) in str(error)


def test_without_a_header_a_third_column_of_moments_is_the_time(path: Path) -> None:
    events = read(path, "1,2,1700000000\n3,4,1700000001\n")
    assert events.ratings is None
    assert events.timestamps is not None and events.timestamps.tolist() == [1700000000, 1700000001]


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("form", ["{}\n{}\n\n{}\n", "[{},\n{}, {}]"])
def test_json_objects_are_read_in_lines_and_in_an_array(path: Path, form: str, pack: Any) -> None:
    rows = [{"item": 30, "user": "1"}, {"user": 2, "item": 10, "more": [1]}, {"user": 1, "item": 10, "note": None}]
    content = form.format(*map(json.dumps, rows))
    assert_same(read(path, pack(content.encode())), Events.from_columns([1, 2, 1], [30, 10, 10]))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_text_in_the_encodings_of_windows_is_told_by_its_first_bytes(path: Path, encoding: str) -> None:
    content = "user_id,item_id\nzoë,1\nann,2\n".encode(encoding)
    assert_same(read(path, content), Events.from_columns(["zoë", "ann"], [1, 2]))


def test_another_encoding_is_given(path: Path) -> None:
    content = "user_id,item_id\nzoë,1\nann,2\n".encode("latin-1")
    assert_same(read(path, content, LogFormat(encoding="latin-1")), Events.from_columns(["zoë", "ann"], [1, 2]))


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_times_from_seconds_to_nanoseconds_are_told_by_their_size(path: Path, unit: int) -> None:
    moments = [1_700_000_000, 1_700_000_001]
    events = read(path, "user,item,time\n" + "".join(f"1,{n},{moment * unit}\n" for n, moment in enumerate(moments)))
    assert events.timestamps is not None and events.timestamps.tolist() == moments


def test_decimals_and_integers_may_be_mixed(path: Path) -> None:
    assert_same(read(path, HEADER + "1,30,4,100\n2,10,3.5,50.9\n1,10,5.0,70\n"), LOG)


def test_times_with_a_zone_and_without_may_be_mixed_and_are_utc(path: Path) -> None:
    content = HEADER + "1,30,4,1970-01-01 00:01:40 UTC\n2,10,3.5,1970-01-01T00:00:50\n1,10,5,1970-01-01T02:01:10+02\n"
    assert_same(read(path, content), LOG)
