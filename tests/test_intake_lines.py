"""Lines held against rows where something is wrong: nothing is lost beside what is left out, and the line is right."""

import json
import re
from pathlib import Path
from threading import Event
from typing import Any

import pandas as pd
import pytest

from recvae.datasets.events import Events
from recvae.datasets.logs import events_of, read_events
from recvae.datasets.reading.census import sha256_of_content, take_census
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError
from recvae.recommenders.history_files import HistoryFile

SKIP = LogFormat(on_bad_row="skip")


def rows(n: int) -> list[str]:
    return [f"{row % 50},item{row % 31},{row % 5 + 1},{1_700_000_000 + row}" for row in range(n)]


def log(path: Path, lines: list[str], header: str = "user,item,rating,timestamp", end: str = "\n") -> Path:
    path.write_bytes(end.join([header, *lines, ""]).encode())
    return path


def pairs(events: Events) -> list[tuple[Any, Any]]:
    return list(zip(events.user_ids[events.users].tolist(), events.item_ids[events.items].tolist(), strict=True))


# Rows that are skipped take no others with them


@pytest.mark.parametrize("n", [60, 500, 5000])
@pytest.mark.parametrize("quotes", [[7], [10, 30], [10, 11, 12]])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_open_quote_beside_a_malformed_row_swallows_nothing(
    tmp_path: Path, n: int, quotes: list[int], end: str
) -> None:
    lines = rows(n)
    for place in quotes:
        lines[place] = '"' + lines[place]
    lines[3] = "1,2,3,4,5,6"
    events = read_events(log(tmp_path / "log", lines, end=end), SKIP)
    assert events.reading is not None
    assert len(events) == n - 1 and events.reading.skipped == {"malformed rows": 1}


def test_what_a_quote_that_was_said_swallows_is_counted_line_by_line(tmp_path: Path) -> None:
    lines = rows(60)
    lines[40] = '"' + lines[40]
    events = read_events(log(tmp_path / "log", lines), LogFormat(quote='"', on_bad_row="skip"))
    assert events.reading is not None
    assert len(events) == 40 and events.reading.skipped == {"malformed rows": 20}


def test_unreadable_values_are_counted_once_where_a_file_is_read_again(tmp_path: Path) -> None:
    lines = rows(40)
    lines[4] = "1,x,good,1700000000"
    lines[20] = '1,"x,4,1700000000'
    for names in (["a"], ["a", "b"]):
        paths = [log(tmp_path / name, lines) for name in names]
        events = read_events(paths, SKIP)
        assert events.reading is not None
        assert len(events) == 39 * len(names)
        assert events.reading.dropped == {"rows without a readable rating": len(names)}


def test_a_time_before_1970_is_skipped_like_one_that_is_none(tmp_path: Path) -> None:
    lines = rows(40)
    lines[3], lines[9] = "1,x,good,1700000000", "1,x,4,-5"
    events = read_events(log(tmp_path / "log", lines), SKIP)
    assert events.reading is not None
    expected = {"rows without a readable rating": 1, "rows without a readable time": 1}
    assert events.reading.dropped == expected and len(events) == 38


# JSON lines: what DuckDB takes for JSON is what counts


def test_json_lines_are_counted_by_the_parser_that_reads_them(tmp_path: Path) -> None:
    lines = [json.dumps({"user": row, "item": 1}) for row in range(10)]
    lines[2], lines[4] = lines[2][:-1] + ",}", lines[4][:-1] + ",}"
    lines[6] = '{"user": "\\ud800", "item": 1}'
    path = tmp_path / "log"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        DataError, match=r"log line 7: got '{\"user\": \"\\\\ud800\", \"item\": 1}', which is not valid"
    ):
        read_events(path)
    events = read_events(path, SKIP)
    assert events.reading is not None
    assert len(events) == 9 and events.reading.skipped == {"malformed rows": 1}


@pytest.mark.parametrize("blank", ["", "  "])
def test_the_line_of_a_json_object_is_right_after_odd_ones(tmp_path: Path, blank: str) -> None:
    lines = [json.dumps({"user": row, "item": 1, "rating": 4}) for row in range(12)]
    lines[2] = lines[2][:-1] + ",}"
    lines[5:5] = [blank]
    lines[9] = '{"user": 1, "item": 1, "rating": "good"}'
    path = tmp_path / "log"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="log line 10: column 'rating' holds 'good'"):
        read_events(path)


def test_blank_lines_of_json_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"user":1,"item":1}\n\n  \n{"user":2,"item":1}\n')
    events = read_events(path)
    assert events.reading is not None and events.reading.skipped == {"blank lines": 2}


# Rows of which only some are read


def only(*values: str) -> LogFormat:
    return LogFormat(only=(("event", values),))


def test_rows_are_chosen_without_their_quotes(tmp_path: Path) -> None:
    lines = [f'{row},i{row % 7},"view"' if row % 2 else f"{row},i{row % 7},view" for row in range(40)]
    lines.append('40,"1" x,view')
    events = read_events(log(tmp_path / "log", lines, "user,item,event"), only("view"))
    assert len(events) == 41 and events.reading is not None and not events.reading.dropped


@pytest.mark.parametrize("form", ["csv", "jsonl", "folder"])
def test_the_line_is_right_where_only_some_rows_are_read(tmp_path: Path, form: str) -> None:
    found = [(row, 1, "good" if row == 10 else 4, "buy" if row % 2 else "view") for row in range(20)]
    names = ["user", "item", "rating", "event"]
    if form == "jsonl":
        path = tmp_path / "log"
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in found))
        line = 11
    elif form == "csv":
        path = log(tmp_path / "log", [",".join(map(str, row)) for row in found], ",".join(names))
        line = 12
    else:
        (tmp_path / "event=view").mkdir()
        path = log(tmp_path / "event=view" / "log", [",".join(map(str, row[:3])) for row in found], "user,item,rating")
        line = 12
    with pytest.raises(DataError, match=f"log line {line}: column 'rating' holds 'good'"):
        read_events(path, only("view"))


def test_rows_of_a_table_in_memory_can_be_chosen() -> None:
    table = pd.DataFrame({"user": [1, 2, 3], "item": [4, 5, 6], "event": ["view", "buy", "view"]})
    assert pairs(events_of(table, only("view"))) == [(1, 4), (3, 6)]


def test_a_row_of_separators_alone_counts_as_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("user\titem\trating\n1\t1\t4\n\t\t4\n\t\t\n1\t2\tx\n")
    with pytest.raises(DataError, match="log line 4: column 'rating' is empty"):
        read_events(path, LogFormat(quote=""))


def test_what_counts_the_lines_of_a_file_stops_when_it_is_told(tmp_path: Path) -> None:
    source, stop = Source(log(tmp_path / "log", rows(1000))), Event()
    assert take_census(source, stop).lines == 1001
    whole = sha256_of_content(source, stop)
    stop.set()  # as an error in the first rows does
    assert take_census(source, stop).n_bytes == 0 and sha256_of_content(source, stop) != whole


# Histories in several files


def test_files_with_lists_and_with_single_items_are_one_file_of_histories(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"user":1,"items":[1,2]}\n')
    (tmp_path / "b").write_text('{"user":2,"items":5}\n')
    with HistoryFile(tmp_path) as file:
        found = [block.table.to_pydict() for block in file.blocks(10)]
    assert [(one["user"], [str(item) for item in one["item"]]) for one in found] == [([1, 1, 2], ["1", "2", "5"])]


@pytest.mark.parametrize("weight", ["null", "0", "-1", "1e30"])
def test_a_weight_in_json_that_is_none_is_named_with_its_line(tmp_path: Path, weight: str) -> None:
    path = tmp_path / "log"
    path.write_text(f'{{"user":1,"items":{{"5":1.5}}}}\n{{"user":3,"items":{{"318":{weight}}}}}\n')
    expected = f"{path} line 2: a weight in 'items' is out of range or no number, expected a number from"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}"):
        HistoryFile(path)
