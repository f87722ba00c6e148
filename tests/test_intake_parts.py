"""A log in several files: parts that were cut, parts without rows, folders that name columns; each row counts once."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.events import Events
from recvae.datasets.logs import read_events
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError

LOG = [(1 + row % 7, 100 + row * row % 11) for row in range(60)]
HEADER = "user_id,item_id"
LINES = [f"{user},{item}" for user, item in LOG]


def pairs(events: Events) -> list[tuple[Any, Any]]:
    return list(zip(events.user_ids[events.users].tolist(), events.item_ids[events.items].tolist(), strict=True))


def written(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# Parts that were cut from one file


@pytest.mark.parametrize("cut", [1, 2, 20, 59])
@pytest.mark.parametrize("header", [HEADER, "item_id,user_id"])
def test_parts_that_were_cut_have_the_columns_of_the_first(tmp_path: Path, cut: int, header: str) -> None:
    lines = LINES if header == HEADER else [f"{item},{user}" for user, item in LOG]
    written(tmp_path / "log" / "xaa", header, *lines[:cut])
    written(tmp_path / "log" / "xab", *lines[cut:])
    assert pairs(read_events(tmp_path / "log")) == LOG


@pytest.mark.parametrize("known", [LogFormat(), LogFormat(user="user_id", item="item_id")])
def test_each_part_may_have_the_header_or_not(tmp_path: Path, known: LogFormat) -> None:
    written(tmp_path / "a", HEADER, *LINES[:10])
    written(tmp_path / "b", *LINES[10:20])
    written(tmp_path / "c", HEADER, *LINES[20:])
    assert pairs(read_events([tmp_path / name for name in "abc"], known)) == LOG


def test_parts_that_have_no_header_at_all_are_read_by_position(tmp_path: Path) -> None:
    written(tmp_path / "log" / "a", *LINES[:10])
    written(tmp_path / "log" / "b", *LINES[10:])
    assert pairs(read_events(tmp_path / "log")) == LOG


# Parts without a row


@pytest.mark.parametrize("content", ["", "\n\n", f"{HEADER}\n"])
@pytest.mark.parametrize("place", ["0", "zz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_part_without_rows_is_left_out_and_named(tmp_path: Path, content: str, place: str, pack: Any) -> None:
    written(tmp_path / "log" / "a", HEADER, *LINES[:10])
    written(tmp_path / "log" / "b", HEADER, *LINES[10:])
    (tmp_path / "log" / place).write_bytes(pack(content.encode()))
    events = read_events(tmp_path / "log")
    assert pairs(events) == LOG and events.reading is not None
    assert events.reading.empty == [str(tmp_path / "log" / place)]
    assert any("left out: 1 empty file" in line and f"/{place}" in line for line in events.reading.lines())


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_a_part_without_rows_is_left_out_and_named_in_parquet_too(tmp_path: Path, kind: pa.DataType) -> None:
    empty = pa.table({"user_id": pa.array([], kind), "item_id": pa.array([], kind)})
    full = pa.table({"user_id": [user for user, _ in LOG], "item_id": [item for _, item in LOG]})
    pq.write_table(empty, tmp_path / "a.parquet")
    pq.write_table(full, tmp_path / "b.parquet")
    events = read_events(tmp_path)
    assert pairs(events) == LOG and events.reading is not None
    assert events.reading.empty == [str(tmp_path / "a.parquet")]


def test_parts_that_are_all_empty_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    written(tmp_path / "b", HEADER)
    message = f"all 2 files are empty, the first is {tmp_path}/a; expected one row per event"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events([tmp_path / "a", tmp_path / "b"])


def test_a_log_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/a is empty; expected a log with one row per event$"):
        read_events(written(tmp_path / "a"))
    with pytest.raises(DataError, match=r"/a has a header but no rows; expected one row per event$"):
        read_events(written(tmp_path / "a", HEADER))
    pq.write_table(pa.table({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}), tmp_path / "b")
    with pytest.raises(DataError, match=r"/b has no rows; expected one row per event$"):
        read_events(tmp_path / "b")


# Each row counts once


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "log" / "a.csv", HEADER, *LINES)
    (tmp_path / "other.csv").symlink_to(path)
    message = f"got {path} twice (also as {path}); give each file once"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        read_events([tmp_path / "log", path])
    with pytest.raises(UsageError, match=f"^got {re.escape(str(tmp_path))}/other.csv twice"):
        read_events([path, tmp_path / "other.csv"])


# Folders that name columns, as Hive and Spark write them


def objects(lines: list[tuple[Any, ...]], *names: str) -> list[str]:
    return [json.dumps(dict(zip(names, line, strict=True))) for line in lines]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_folders_named_for_users_are_the_column_of_users(tmp_path: Path, form: str) -> None:
    expected = sorted(LOG)
    for user in range(1, 8):
        items = [item for one, item in expected if one == user]
        folder = tmp_path / "log" / f"user_id={user}"
        if form == "parquet":
            folder.mkdir(parents=True)
            pq.write_table(pa.table({"item_id": items, "n": items}), folder / "part-0")
        elif form == "jsonl":
            written(folder / "part-0", *objects([(item, 1) for item in items], "item_id", "n"))
        else:
            written(folder / "part-0", "item_id,n", *[f"{item},1" for item in items])
    assert pairs(read_events(tmp_path / "log")) == expected


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_folder_for_no_user_is_counted_and_special_letters_are_decoded(tmp_path: Path, form: str) -> None:
    for name in ("ann%20b%3Dc", "__HIVE_DEFAULT_PARTITION__"):
        lines = ["item,n", "7,1", "8,1"] if form == "csv" else objects([(7, 1), (8, 1)], "item", "n")
        written(tmp_path / "log" / f"user={name}" / "part-0", *lines)
    events = read_events(tmp_path / "log")
    assert pairs(events) == [("ann b=c", 7), ("ann b=c", 8)] and events.reading is not None
    assert events.reading.dropped == {"rows without a user id": 2}


def test_only_the_folders_right_above_a_file_are_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "user=x" / "log" / "rating=4" / "a.csv", HEADER, *LINES)
    events = read_events(path)
    assert pairs(events) == LOG and events.ratings is not None and set(events.ratings) == {4.0}


@pytest.mark.parametrize("name", ["user", "item"])
def test_files_without_a_header_below_folders_named_for_ids_are_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / f"{name}=1" / "a.csv", *LINES)
    other = "item" if name == "user" else "user"
    message = (
        f"{path}: there is no header, and its folder names the column '{name}', expected names for the other columns; "
        f"say them by their positions, e.g. --{name}-col {name} and --{other}-col 1"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events(path)
    known = LogFormat(user="user", item="1") if name == "user" else LogFormat(user="1", item="item")
    assert len(read_events(path, known)) == len(LOG)


# What only a later row shows


@pytest.mark.parametrize("as_array", [False, True])
def test_a_key_that_only_late_objects_have_is_found(tmp_path: Path, as_array: bool) -> None:
    rows = [
        {"item": item, "member": user, **({"rating": 4.5} if place > 2500 else {})}
        for place, (user, item) in enumerate(LOG * 50)
    ]
    lines = [json.dumps(row) for row in rows]
    path = written(tmp_path / "log", *(["[" + ",".join(lines) + "]"] if as_array else lines))
    events = read_events(path, LogFormat(user="member", on_bad_row="skip"))
    assert events.ratings is not None and set(events.ratings) == {4.5} and events.reading is not None
    assert events.reading.rows + sum(events.reading.skipped.values()) == len(rows)


def test_columns_without_a_role_are_named(tmp_path: Path) -> None:
    events = read_events(written(tmp_path / "a", "user,item,note,Unnamed", "1,7,x,y", "2,8,x,y"))
    assert events.reading is not None and events.reading.unused == ["note", "Unnamed"]
    assert any("not used: note, Unnamed" in line for line in events.reading.lines())


# Rows that are numbered


@pytest.mark.parametrize("start", [0, 1])
def test_a_first_column_that_counts_the_rows_is_not_the_users(tmp_path: Path, start: int) -> None:
    path = written(tmp_path / "a", *[f"{start + row},{line},5" for row, line in enumerate(LINES)])
    message = (
        f"{path}: there is no header, and the first column counts the rows ({start}, {start + 1}, {start + 2}, ...), "
        "expected user, item, rating, time; name the columns by their positions, e.g. --user-col 2 --item-col 3"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events(path)
    assert pairs(read_events(path, LogFormat(user="2", item="3"))) == LOG


def test_two_columns_that_count_are_users_and_items(tmp_path: Path) -> None:
    path = written(tmp_path / "a", *[f"{row},{row * 7 % 5}" for row in range(50)])
    assert len(read_events(path)) == 50


# The line that a message names


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("is_quoted", [False, True])
@pytest.mark.parametrize(("n_rows", "junk"), [(300, "1,2"), (40_000, "1,2,3,4,5,6")])
def test_the_line_of_a_bad_row_is_that_of_an_editor(
    tmp_path: Path, end: str, pack: Any, is_quoted: bool, n_rows: int, junk: str
) -> None:
    title = f'"a{end}b"' if is_quoted else "x"
    rows = [f"{row % 50},{row % 31},3,{title}" for row in range(n_rows)]
    before = end.join(["user,item,rating,title", *rows[: n_rows // 2]]) + end
    text = before + end.join([junk, *rows[n_rows // 2 :]]) + end
    (tmp_path / "log.csv").write_bytes(pack(text.encode()))
    with pytest.raises(DataError, match=rf"log\.csv line {before.count(end) + 1}: got {junk.count(',') + 1} columns"):
        read_events(tmp_path / "log.csv")


# Nothing that a folder or a glob lists is left out


def test_links_in_a_folder_are_followed(tmp_path: Path) -> None:
    written(tmp_path / "log" / "a", HEADER, *LINES[:10])
    written(tmp_path / "elsewhere" / "b", HEADER, *LINES[10:])
    (tmp_path / "log" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "above").symlink_to(tmp_path / "log")  # which would never end
    assert pairs(read_events(tmp_path / "log")) == LOG


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    written(tmp_path / "log" / "a", HEADER, *LINES)
    (tmp_path / "log" / "b").symlink_to(tmp_path / "nowhere")
    message = f"{tmp_path}/log/b is a link to nothing; bring back what it leads to, or remove the link"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events(tmp_path / "log")


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "log" / "a", HEADER, *LINES)
    as_it_is = Path.iterdir

    def closed(self: Path) -> Any:
        if self.name == "day=2":
            raise PermissionError(13, "Permission denied")
        return as_it_is(self)

    (tmp_path / "log" / "day=2").mkdir()
    monkeypatch.setattr(Path, "iterdir", closed)
    message = f"could not read the folder {tmp_path}/log/day=2 (Permission denied); change its permissions"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_events(tmp_path / "log")


def test_a_glob_may_name_folders(tmp_path: Path) -> None:
    written(tmp_path / "day=1" / "part-0", HEADER, *LINES[:10])
    written(tmp_path / "day=2" / "part-0", HEADER, *LINES[10:])
    assert pairs(read_events(f"{tmp_path}/day=*")) == LOG


def test_the_header_may_stand_alone_in_the_first_part(tmp_path: Path) -> None:
    written(tmp_path / "p0", "item_id,user_id")
    written(tmp_path / "p1", *[f"{item},{user}" for user, item in LOG])
    assert pairs(read_events([tmp_path / "p0", tmp_path / "p1"])) == LOG


def test_parts_of_words_go_on_without_a_header(tmp_path: Path) -> None:
    lines = [f"it{item},u{user}" for user, item in LOG]
    written(tmp_path / "a", "item_id,user_id", *lines[:10])
    written(tmp_path / "b", *lines[10:])
    assert pairs(read_events(tmp_path)) == [(f"u{user}", f"it{item}") for user, item in LOG]


def test_the_part_with_the_header_comes_first(tmp_path: Path) -> None:
    written(tmp_path / "a", *LINES[:10])
    written(tmp_path / "b", HEADER, *LINES[10:])
    with pytest.raises(DataError, match=r"expected the files of one log; give the file with the header first$"):
        read_events(tmp_path)
