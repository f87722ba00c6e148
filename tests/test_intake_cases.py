"""Logs as people have them: each is read as its owner means it, or refused with the way out. The files are invented."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recvae import Dataset, Filters
from recvae.datasets.events import Events
from recvae.datasets.logs import read_events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.titles import read_titles
from recvae.errors import DataError, UsageError

CASES = Path(__file__).parent / "intake"
LINES = (CASES / "jsonl/log.jsonl").read_text().splitlines()
LOG = [(row["user_id"], int(row["item_id"])) for row in map(json.loads, LINES)]
Command = Callable[..., Any]


def pairs(events: Events) -> list[tuple[Any, Any]]:
    return list(zip(events.user_ids[events.users].tolist(), events.item_ids[events.items].tolist(), strict=True))


def read(name: str, **known: Any) -> Events:
    return read_events(CASES / name, LogFormat(**known))


def accounted(events: Events) -> dict[str, int]:
    """Check that every row is an event or counted, and return what was left out."""
    reading = events.reading
    assert reading is not None
    assert reading.rows == reading.events + sum(reading.dropped.values()) == len(events) + sum(reading.dropped.values())
    return {**reading.dropped, **reading.skipped}


@pytest.mark.parametrize(
    "name",
    [
        *("bom-crlf/ratings.csv", "comment/out.konect", "compression/ratings.csv.bz2", "compression/ratings.csv.gz"),
        *("decimal-comma-header/ratings.csv", "decimal-comma-noheader/ratings.csv", "float-ids/ids.csv"),
        *("hash-comment/log.tsv", "index-col/ratings.csv", "jsonl/log.jsonl", "lone-quote-tsv/plays.tsv"),
        *("mixed-time/films.csv", "newline-in-quotes/reviews.csv", "pipe-quoted/unload.txt"),
        *("time-first-date-only/films.csv", "trailing-blank/log.csv", "utf16/ratings.csv", "zip-macos/ratings.zip"),
    ],
)
def test_the_same_120_events_are_read_however_they_are_written(name: str) -> None:
    events = read(name)
    assert pairs(events) == LOG
    accounted(events)


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("comment/out.konect", {"comment lines": 1}),
        ("trailing-blank/log.csv", {"blank lines": 2}),
        ("null-marker/ids_NULL.csv", {"rows without a user id": 20}),
        ("null-marker/ids_nan.csv", {"rows without a user id": 20}),
        ("parquet/nullsints.parquet", {"rows without a user id": 1}),
        ("parquet/cat_null.parquet", {"rows without a user id": 1}),
        ("odd-item-ids/log.csv", {"rows without an item id": 39}),
        ("bom-crlf/ratings.csv", {}),
    ],
)
def test_every_line_that_is_no_event_is_counted(name: str, left_out: dict[str, int]) -> None:
    assert accounted(read(name)) == left_out


@pytest.mark.parametrize("name", ["null-marker/ids_NULL.csv", "null-marker/ids_nan.csv"])
def test_integers_stay_integers_beside_a_word_for_missing(name: str) -> None:
    events = read(name)
    assert events.user_ids.dtype == np.int64 and set(pairs(events)) <= set(LOG)


@pytest.mark.parametrize(
    ("name", "users", "items"),
    [
        ("lone-quote-csv/min.csv", [1, 2, 3, 4], [10, 11, 12, 13]),
        ("lone-quote-tsv/min.tsv", [1, 2, 3, 4], [10, 11, 12, 13]),
        ("numeric-column-name/min.csv", [1, 2], [10, 11]),
        ("pipe-quoted/min.txt", [1, 2], [10, 11]),
        ("mind/behaviors.tsv", None, None),
    ],
)
def test_small_files_are_read_line_by_line(name: str, users: list[int] | None, items: list[int] | None) -> None:
    if users is None:
        with pytest.raises(DataError, match="there is no header, and column 4 holds 'N55189 N42782', which is neither"):
            read(name)
        return
    events = read(name)
    assert pairs(events) == list(zip(users, items or [], strict=True))


def test_a_count_column_called_0_is_no_event_and_no_rating() -> None:
    events = read("numeric-column-name/plays.csv")
    assert len(events) == 840 and events.ratings is None and events.user_ids.dtype == np.int64
    assert read("numeric-column-name/plays.csv", rating="0").ratings is not None


@pytest.mark.parametrize("quote", [None, '"', ""])
def test_lines_between_two_lone_quotes_are_rows_unless_quotes_are_said_to_count(quote: str | None) -> None:
    assert len(read("lone-quote-tsv/min.tsv", quote=quote)) == (2 if quote == '"' else 4)


@pytest.mark.parametrize("n_before", [0, 1, 5000])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_lone_quote_swallows_nothing_wherever_it_stands(tmp_path: Path, n_before: int, separator: str) -> None:
    rows = [f"{n}{separator}{n % 7}{separator}name {n}" for n in range(n_before)]
    rows += [
        f'{10**6}{separator}1{separator}"Weird',
        f'{10**6 + 1}{separator}2{separator}x"',
        f"7{separator}3{separator}y",
    ]
    (tmp_path / "log.csv").write_text(f"user{separator}item{separator}name\n" + "\n".join(rows) + "\n")
    events = read_events(tmp_path / "log.csv")
    assert len(events) == n_before + 3


def test_a_quote_that_nothing_closes_in_a_file_with_quotes_is_named(tmp_path: Path) -> None:
    rows = ['1,10,"a, b"', '2,11,"Weird', '3,12,"c, d"', "4,13,e"]
    (tmp_path / "log.csv").write_text("user,item,name\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"log.csv line 3: got a quote that nothing closes: .* or say --quote none"):
        read_events(tmp_path / "log.csv")
    skipped = read_events(tmp_path / "log.csv", LogFormat(on_bad_row="skip"))
    assert skipped.reading is not None and skipped.reading.skipped["malformed rows"] >= 1


def test_a_newline_in_quotes_is_read_whatever_the_size(tmp_path: Path) -> None:
    text = "very nice. " * 14
    rows = [(user, item) for user in range(1, 3001) for item in range(10)]
    content = "user_id,item_id,rating,review\n" + "".join(f'{u},{i},5,"{text}\nbut late, alas"\n' for u, i in rows)
    assert len(content) > 5 << 20
    (tmp_path / "reviews.csv").write_text(content)
    events = read_events(tmp_path / "reviews.csv")
    assert pairs(events) == rows and not accounted(events)


def test_titles_follow_the_rules_of_logs() -> None:
    assert read_titles([CASES / "titles/nl.csv"]) == {"1": "dup", "2": "B", "3": "C"}
    assert len(read_titles([CASES / "pipe-quoted/titles.txt"])) == 12
    assert len(read_titles([CASES / "float-ids-parquet/titles.csv"])) == 12


def test_float_ids_of_eleven_digits_are_integers_and_meet_their_titles() -> None:
    events = read("float-ids-parquet/log.parquet")
    titles = read_titles([CASES / "float-ids-parquet/titles.csv"])
    dataset = Dataset.from_events(events, name="x", titles=titles)
    assert dataset.item_ids.dtype == np.int64 and dataset.titles is not None
    assert all(title is not None for title in dataset.titles)


@pytest.mark.parametrize(
    ("ids", "most"),
    [
        (pa.array([1.0, 2.0**53 + 2]), "9007199254740994, which are exact only up to 9007199254740992"),
        (pa.array([1.0, 2.0**24 + 2], pa.float32()), "16777218, which are exact only up to 16777216"),
        (pa.array([1.0, 2.5]), "holds the number 2.5, expected whole numbers or texts as ids"),
        (pa.array([1.0, float("inf")]), "holds the number inf, expected whole numbers"),
        (pa.array(["1", "1.23457e+09"]), "holds '1.23457e+09', a rounded number: different ids may have become one"),
        (pa.array(["1.0", "18014398509481985.0"]), "holds '18014398509481985.0', a rounded number"),
    ],
)
def test_ids_that_cannot_be_exact_are_refused_by_name(ids: pa.Array, most: str) -> None:
    with pytest.raises(DataError, match=re.escape(most)):
        Dataset.from_pandas(pa.table({"user": ids, "item": [1, 2]}))


def test_a_uuid_is_its_usual_text_and_other_bytes_are_refused() -> None:
    events = read("uuid/uuid.parquet")
    assert len(events.user_ids) == 20 and events.user_ids[0] == "00000000-0000-0000-0000-000000000001"
    with pytest.raises(
        DataError, match="column 'user' holds BLOB, expected integers or texts for the user; convert it"
    ):
        Dataset.from_pandas(pa.table({"user": pa.array([b" a", b"a"]), "item": [1, 2]}))


@pytest.mark.parametrize("name", ["dup-columns/ratings.csv", "parquet/dup.parquet"])
def test_a_column_name_twice_is_refused_alike(name: str) -> None:
    with pytest.raises(DataError, match="'item_id' and 'item_id' both look like the item id, expected one column"):
        read(name)


@pytest.mark.parametrize(
    ("name", "said", "role"),
    [
        ("us-date/events.csv", "'01/10/2019 8:26' may begin with the day or with the month; say which", "time"),
        ("rating-missing/log.csv", "line 2: column 'rating' is empty, expected a number", "rating"),
    ],
)
def test_a_guessed_column_that_cannot_be_used_names_the_switch_that_turns_it_off(
    name: str, said: str, role: str
) -> None:
    with pytest.raises(DataError, match=re.escape(said) + rf".*--no-{role}"):
        read(name)
    assert len(read(name, without=(role,))) == 120


def test_a_day_first_date_is_read_when_it_is_said() -> None:
    day = read("us-date/events.csv", time_format="%d/%m/%Y %H:%M").timestamps
    assert day is not None and day[0] == 1569918360
    with pytest.raises(DataError, match=r"expected a time as in the first rows \(your format\)"):
        read("us-date/events.csv", time_format="%Y-%m-%d")


def test_folders_and_partitions_are_read_whole() -> None:
    events = read("parquet/partitioned")
    assert len(events) == 120 and events.reading is not None and len(events.reading.files) == 3
    assert len(read("parquet/partitioned/*/*.parquet")) == 120
    with_day = read_events(CASES / "parquet/partitioned", LogFormat(rating="day"))
    assert with_day.ratings is not None and set(with_day.ratings.tolist()) == {0, 1, 2}


def test_a_user_with_a_list_of_items_in_each_row() -> None:
    events = read("parquet/list_items.parquet")
    assert len(events) == 120 and pairs(events)[:3] == [(1, 2), (1, 3), (1, 4)]


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("recbole/x.inter", 1),
        ("thousands/films.csv", "1,000"),
        ("parquet/decimal2.parquet", 1),
        ("parquet/strview.parquet", "u1"),
        ("parquet/large.parquet", "u1"),
        ("parquet/time_str.parquet", 1),
    ],
)
def test_what_was_read_rightly_before_still_is(name: str, user: object) -> None:
    events = read(name)
    assert len(events) == 120 and events.user_ids[0] == user


def test_a_file_of_events_is_read_by_the_names_of_its_columns() -> None:
    assert pairs(read("recommend-columns/events.csv")) == [("v1", "a/b"), ("v1", "NA"), ("v2", "007"), ("v2", "a/b")]


def test_blanks_around_ids_are_no_part_of_them() -> None:
    assert pairs(read("recommend-whitespace/log.csv"))[0] == ("u1", "i1")


def test_odd_ids_are_kept_as_they_are() -> None:
    events = read("odd-item-ids/log.csv")
    assert {"007", "12.0", '"quoted"', "#hash", "..", "Toy Story, The", "-5", "5", "1e5", "NA"} <= set(events.item_ids)
    assert events.reading is not None
    assert events.reading.warnings() == ["22 rows have the item 'NA', which may be no id; if so, give --null 'NA'"]
    assert "NA" not in set(read("odd-item-ids/log.csv", null=("NA",)).item_ids)


@pytest.mark.parametrize("through", ["pipe", "-"])
@pytest.mark.parametrize("name", ["bom-crlf/ratings.csv", "compression/ratings.csv.gz"])
def test_a_pipe_is_read_once(name: str, through: str, tmp_path: Path, warm_python: str) -> None:
    preprocess = f"{warm_python} -m recvae preprocess"
    where = f"--name log --data-dir {tmp_path} --json"
    line = f"cat {CASES / name} | {preprocess} - {where}"
    if through == "pipe":
        line = f"{preprocess} <(cat {CASES / name}) {where}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"]["reading"]["rows"] == 120


# The scale of ratings


@pytest.mark.parametrize(
    ("ratings", "said"),
    [
        (range(1, 11), "the ratings run from 1 to 10 .* --min-rating 8 for the upper part of the scale"),
        (range(0, 101, 5), "the ratings run from 0 to 100 .*--min-rating 50 for the upper half"),
        ([0, 1], r"0 to 1 \(0: 50%, 1: 50%\); .* --min-rating 1 for the positive ones"),
        ([-1, 1], "--min-rating 1 for the positive ones"),
        ([-1, *range(1, 11)], "negative ones often mean 'not rated'"),
        ([1, 2, 3, 50, 400], "--no-rating if they are counts"),
        ([1.5, 200.25, 3.75], "--no-rating to keep every row, or --min-rating"),
        ([1], "--no-rating, because all are the same"),
        ([0.1, 0.9], "--min-rating 0.5 for the upper half of the scale"),
        ([1, 2, 3], "the ratings run from 1 to 3 .* --min-rating 3 for the upper part of the scale"),
        ([1, 2, 3, 4], "the ratings run from 1 to 4 .* --min-rating 4 for the upper part of the scale"),
        ([0, 1, 2, 3, 4, 5], "the ratings run from 0 to 5"),
    ],
)
def test_a_scale_that_is_not_stars_asks_for_a_threshold(ratings: Any, said: str) -> None:
    values = list(ratings)
    rows = 400 * len(values)
    events = Events.from_columns(np.arange(rows) % 20, np.arange(rows) // 20, values * 400)
    with pytest.raises(UsageError, match=said):
        Dataset.from_events(events, name="x")
    assert Dataset.from_events(events, name="x", filters=Filters()).train.nnz > 0


@pytest.mark.parametrize("stars", [[1, 2, 3, 4, 5], [0.5, 1, 1.5, 4.5, 5], [3, 4, 5], [4], [5]])
def test_stars_have_the_threshold_of_the_paper(stars: list[float]) -> None:
    rows = 400 * len(stars)
    events = Events.from_columns(np.arange(rows) % 10, np.arange(rows) // 10, stars * 400)
    dataset = Dataset.from_events(events, name="x", filters=None)
    assert dataset.manifest["filters"]["min_rating"] == 4


def test_the_command_asks_for_a_threshold_and_takes_it(workplace: Path, command: Command) -> None:
    rows = "".join(f"{n % 20},{n // 20},{n % 11}\n" for n in range(600))
    Path("log.csv").write_text("user,item,rating\n" + rows)
    said = command("preprocess", "log.csv")
    assert said.code == 2 and "the ratings run from 0 to 10" in said.err and "--min-rating 8" in said.err
    assert not Path("data").exists()
    kept = json.loads(command("preprocess", "log.csv", "--min-rating", 8, "--json").out)
    assert kept["filters"]["min_rating"] == 8
    every = json.loads(command("preprocess", "log.csv", "--no-rating", "--overwrite", "--json").out)
    assert every["filters"]["min_rating"] is None and every["source"]["reading"]["events"] == 600


# Times

MOMENT = 1_700_000_000


@pytest.mark.parametrize(
    ("written", "form"),
    [
        (["1700000000", "1700000060"], "seconds"),
        (["1700000000000", "1700000060000"], "milliseconds"),
        (["1700000000000000", "1700000060000000"], "microseconds"),
        (["1700000000000000000", "1700000060000000000"], "nanoseconds"),
        (["1700000000.5", "1700000060"], "seconds"),
        (["1700000000", "1700000060.75"], "seconds"),
        (["1.7e9", "1700000060.0"], "seconds"),
        (["2023-11-14T22:13:20Z", "2023-11-14 22:14:20"], "ISO 8601"),
        (["2023-11-14 22:13:20 UTC", "2023-11-14T23:14:20+01:00"], "ISO 8601"),
        (["2023-11-14 22:13:20.999", "2023-11-14 22:14:20.5"], "ISO 8601"),
    ],
)
@pytest.mark.parametrize("door", ["CSV", "Parquet", "Python"])
def test_times_in_any_form_are_seconds(written: list[str], form: str, door: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"user": [1, 2], "item": [3, 4], "time": written})
    if door == "CSV":
        table.to_csv(tmp_path / "log", index=False)
    elif door == "Parquet":
        table.to_parquet(tmp_path / "log")
    events = (
        Events.from_columns(table["user"], table["item"], timestamps=table["time"])
        if door == "Python"
        else read_events(tmp_path / "log")
    )
    assert events.timestamps is not None and events.timestamps.tolist() == [MOMENT, MOMENT + 60]
    assert events.reading is not None and events.reading.times is not None
    assert str(events.reading.times) == f"{form}, 2023-11-14 to 2023-11-14"


@pytest.mark.parametrize(
    ("written", "first"), [(["2023-11-14", "2023-11-15"], 1699920000), (["20231114", "20231115"], 1699920000)]
)
def test_days_are_the_first_second_of_the_day(written: list[str], first: int) -> None:
    events = Events.from_columns([1, 2], [3, 4], timestamps=written)
    assert events.timestamps is not None and events.timestamps.tolist() == [first, first + 86400]


def test_a_log_that_needs_more_memory_than_is_allowed_is_refused(workplace: Path, command: Command) -> None:
    Path("log.csv").write_text("user,item\n" + "".join(f"{n % 100},{n % 77}\n" for n in range(2000)))
    said = command("preprocess", "log.csv", "--max-memory", "100MB")
    assert said.code == 1 and "log.csv: 2,000 rows or more need 250.0 MB of memory, 100.0 MB is allowed by" in said.err
    assert command("preprocess", "log.csv", "--max-memory", "1GB").code == 0


@pytest.mark.parametrize("value", ["--min-rating", "--min-user-items"])
def test_0_is_a_value(value: str, workplace: Path, command: Command) -> None:
    Path("log.csv").write_text("user,item,rating\n" + "".join(f"{n % 9},{n},{n % 5 + 1}\n" for n in range(90)))
    said = command("preprocess", "log.csv", value, 0, "--json")
    assert said.code == 0 and json.loads(said.out)["filters"][value[2:].replace("-", "_")] == 0


def test_what_is_known_about_a_file_is_said_by_name() -> None:
    events = read_events(CASES / "us-date/events.csv", time_format="%d/%m/%Y %H:%M", item="product_id")
    assert events.timestamps is not None and events.item_ids.dtype == np.int64
    with pytest.raises(TypeError, match="colour"):
        read_events(CASES / "us-date/events.csv", colour="red")


# Kinds that were found by trying


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_a_name_with_brackets_or_stars_is_no_pattern(tmp_path: Path) -> None:
    written(tmp_path / "plays1.csv", "user,item\n7,8\n")
    assert pairs(read_events(written(tmp_path / "plays[1].csv", "user,item\n1,2\n"))) == [(1, 2)]
    assert pairs(read_events(written(tmp_path / "p*s?.csv", "user,item\n3,4\n"))) == [(3, 4)]


def test_two_pipes_are_two_files(tmp_path: Path, warm_python: str) -> None:
    files = [written(tmp_path / f"{n}.csv", f"user,item\n{n},1\n{n},2\n") for n in (1, 2)]
    inputs = " ".join(f"<(cat {file})" for file in files)
    line = f"{warm_python} -m recvae preprocess {inputs} --name log --min-user-items 1 --split holdout --json"
    done = subprocess.run(["bash", "-c", f"{line} --data-dir {tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["filters"]["steps"][0]["users"] == 2


def test_positions_are_no_names_of_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "2,1,4\n2,20,5\n3,30,3\n")
    assert pairs(read_events(path, user="1", item="2")) == [(2, 1), (2, 20), (3, 30)]


@pytest.mark.parametrize("door", ["CSV", "JSON", "Python"])
def test_names_that_differ_in_case_are_two_columns(door: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"Item_ID": [10, 20], "user": [1, 2], "item_id": [110, 220]})
    if door == "Python":
        assert Dataset.from_pandas(
            table, user="user", item="item_id", split="holdout", filters=Filters(min_user_items=0)
        )
        return
    path = tmp_path / "log"
    table.to_csv(path, index=False) if door == "CSV" else table.to_json(path, orient="records", lines=True)
    assert pairs(read_events(path, item="item_id")) == [(1, 110), (2, 220)]


def test_parquet_columns_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"X": [8], "x": [1], "item": [2]}).to_parquet(tmp_path / "log")
    with pytest.raises(DataError, match="the columns 'X' and 'x' differ only in case; rename one of them"):
        read_events(tmp_path / "log", user="x")


def test_ids_that_begin_with_a_mark_are_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "#a,1,5\n#b,2,4\n#c,3,4\nd,4,5\n")
    assert [user for user, _ in pairs(read_events(path, header=False))] == ["#a", "#b", "#c", "d"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("2020-01-01", "1600000000000", "the times of .*a.csv are written as ISO 8601, those of .*b.csv as number"),
        ("1600000000", "1600000000000", "the times are in several units: seconds in .*a.csv, milliseconds in .*b.csv"),
        ("", "1600000000", "a.csv has no column for the time, but .*b.csv has time"),
    ],
)
def test_files_with_other_times_are_refused(first: str, second: str, said: str, tmp_path: Path) -> None:
    a = f"user,item,time\n1,2,{first}\n" if first else "user,item,x\n1,2,3\n"
    written(tmp_path / "a.csv", a)
    written(tmp_path / "b.csv", f"user,item,time\n3,4,{second}\n")
    with pytest.raises(DataError, match=said if first else "expected the files of one log"):
        read_events([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_rating_in_one_file_and_time_in_the_other_are_refused(tmp_path: Path) -> None:
    files = [written(tmp_path / "a.csv", "1,11,4\n"), written(tmp_path / "b.csv", "3,11,1600000000\n")]
    with pytest.raises(DataError, match=r"a.csv has 3 for the rating, but .*b.csv has no column"):
        read_events(files)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["1700000000", "1700000000000"], "the times are numbers from 1700000000 to 1700000000000, expected one unit"),
        (["20231204223108", "20231204223109"], "the last time is 20231204223109, as milliseconds 2611-02-07; expected"),
    ],
)
def test_numbers_that_are_no_times_in_one_unit_are_refused(times: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Events.from_columns([1, 2], [3, 4], timestamps=times)


def test_a_header_once_more_is_no_event(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "user_id,item_id\n1,104\nuser_id,item_id\n8,119\n")
    events = read_events(path)
    assert pairs(events) == [(1, 104), (8, 119)] and accounted(events) == {"rows without a user id": 1}


@pytest.mark.parametrize("cell", ['"[104, 118, 127]"', "104|118|127"])
def test_a_list_in_a_cell_is_refused(cell: str, tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", f"user,items\n1,{cell}\n2,{cell}\n")
    with pytest.raises(DataError, match=r"holds lists such as .*, expected one id per row"):
        read_events(path)


def test_a_whole_float_and_its_integer_are_one_id_beside_words(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "user,item\n1,100\n2,100.0\n3,abc\n4,7.0\n")
    assert [item for _, item in pairs(read_events(path))] == ["100", "100", "abc", "7.0"]


def test_a_comma_with_a_blank_is_a_comma(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "user_id, item_id\n1, 104\n2, 105\n")
    assert pairs(read_events(path)) == [(1, 104), (2, 105)]


@pytest.mark.parametrize("text", ["1e99999999999999999999", "1.5e9999999"])
def test_a_number_beyond_all_bounds_is_a_word(text: str) -> None:
    assert Events.from_columns([text, "1"], [1, 2]).user_ids.tolist() == ["1", text]


def test_a_column_of_texts_that_look_like_lists_in_json_stays_texts(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", '{"user":1,"item":"[REC]"}\n{"user":2,"item":"Alien"}\n')
    assert pairs(read_events(path)) == [(1, "[REC]"), (2, "Alien")]


def test_floats_of_one_file_are_checked_beside_integers_of_another(tmp_path: Path) -> None:
    pd.DataFrame({"user": [16777217, 2], "item": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    wide = pd.DataFrame({"user": np.array([16777220], np.float32), "item": [3]})
    wide.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="16777220, which are exact only up to 16777216"):
        read_events([tmp_path / "a.parquet", tmp_path / "b.parquet"])


@pytest.mark.parametrize("without", [(), ("rating", "time")])
def test_many_columns_of_numbers_without_a_header_are_not_cut_off(without: tuple[str, ...], tmp_path: Path) -> None:
    path = written(tmp_path / "log.txt", "1 104 118 127 125\n2 103 128 110 100\n")
    with pytest.raises(
        DataError, match="there is no header, and 5 columns of numbers, expected user, item, rating, time"
    ):
        read_events(path, without=without)
    assert pairs(read_events(path, user="1", item="2")) == [(1, 104), (2, 103)]


def test_several_titles_of_an_item_are_said(workplace: Path, command: Command) -> None:
    Path("log.csv").write_text("user,item\n" + "".join(f"{n % 9},{n % 20}\n" for n in range(180)))
    Path("titles.csv").write_text("item_id,title\n" + "".join(f"{n},Film {n}\n" for n in range(20)) + "3,Other\n")
    said = command("preprocess", "log.csv", "--titles", "titles.csv")
    assert said.code == 0 and "warning: 1 items have several titles, of which the last one is kept" in said.err


def test_users_that_are_objects_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", '{"user":{"id":1},"item":104}\n')
    with pytest.raises(DataError, match=r"the column 'user' holds objects or arrays, expected one user id per object"):
        read_events(path)


def test_rows_whose_rating_or_time_cannot_be_read_may_be_skipped_and_are_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "log.csv", "user,item,rating,time\n1,2,5,1700000000\n1,3,,1700000001\n2,2,4,\n2,3,n/a,\n3,2,4,17e8\n"
    )
    events = read_events(path, on_bad_row="skip")
    assert accounted(events) == {"rows without a readable rating": 2, "rows without a readable time": 1}
    assert pairs(events) == [(1, 2), (3, 2)] and events.timestamps is not None
    assert events.timestamps.tolist() == [1700000000, 1700000000]
