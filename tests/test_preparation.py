"""From a name or a file to a data set: what is usual for the data, and the same through Python and the command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.catalog.known import CATALOG
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events
from recvae.datasets.logs import read_events
from recvae.datasets.preparation import Protocol, prepare_known, prepare_log
from recvae.datasets.reading.options import LogFormat
from recvae.errors import DataError, UsageError
from recvae.training import monitors

MakeLog = Callable[..., Events]


def write_log(path: Path, events: Events, separator: str = ",", header: str = "user,item,rating,time\n") -> Path:
    assert events.ratings is not None and events.timestamps is not None
    columns = (events.user_ids[events.users], events.item_ids[events.items], events.ratings, events.timestamps)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join(separator.join(map(str, row)) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(random_log: MakeLog, workplace: Path) -> Path:
    """Return a folder with a log in the form of ML-100K."""
    write_log(workplace / "source" / "u.data", random_log(), "\t", "")
    return workplace / "source"


def test_the_same_log_gives_the_same_data_through_python_and_the_command(
    random_log: MakeLog, workplace: Path, command: Callable[..., Any]
) -> None:
    path = write_log(workplace / "log.csv", random_log())
    said = command("preprocess", path, "--json")
    assert json.loads(said.out)["fingerprint"] == Dataset.from_events(read_events(path), name="log").fingerprint


def test_a_known_data_set_has_its_own_least_rating(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "ml-100k", replace(CATALOG["ml-100k"], min_rating=3.0))
    usual = prepare_known("ml-100k", Protocol(), source=folder, force=True).dataset
    assert usual.manifest["filters"]["min_rating"] == 3
    asked = prepare_known("ml-100k", Protocol(min_rating=2), source=folder, force=True).dataset
    assert asked.manifest["filters"]["min_rating"] == 2


def test_a_known_data_set_without_ratings_keeps_every_row(folder: Path) -> None:
    (folder / "u.data").rename(folder / "old")
    rows = [line.split("\t") for line in (folder / "old").read_text().splitlines()]
    (folder / "ratings.csv").write_text("userId,movieId\n" + "".join(f"{row[0]},{row[1]}\n" for row in rows))
    dataset = prepare_known("ml-100k", Protocol(), source=folder, force=True).dataset
    assert dataset.manifest["filters"]["min_rating"] is None


def test_another_data_set_is_not_taken_for_a_known_one_unless_this_is_said(
    folder: Path, workplace: Path, command: Callable[..., Any]
) -> None:
    with pytest.raises(
        DataError, match=r"^this is not ml-100k: got .* expected 100,000 events, 943 users, 1,682 items; ch"
    ):
        prepare_known("ml-100k", Protocol(), source=folder)
    said = command("preprocess", "ml-100k", "--source", folder)
    assert (said.code, said.out) == (1, "") and "--force --name NAME" in said.err
    said = command("preprocess", "ml-100k", "--source", folder, "--force", "--name", "mine")
    assert said.code == 0 and "warning: ml-100k: got 500 events, expected 100,000; the file is incom" in said.err, (
        said.err
    )


def test_a_bar_stands_around_the_download_and_around_the_reading(
    folder: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[str] = []

    class Bar(monitors.ProgressBar):
        def __init__(self, title: str) -> None:
            bars.append(title)
            super().__init__(title)

        def __exit__(self, *error: Any) -> None:
            bars.append("end")
            super().__exit__(*error)

    def fetched(*_: Any) -> Path:
        bars.append("fetched")
        return folder

    monkeypatch.setattr("recvae.training.monitors.ProgressBar", Bar)
    monkeypatch.setattr("recvae.datasets.downloads.download", fetched)
    monkeypatch.setattr(
        "recvae.datasets.preparation.read_events",
        lambda *given, **more: bars.append("read") or read_events(*given, **more),
    )
    assert command("preprocess", "ml-100k", "--source", folder, "--force").code == 0
    assert bars == ["reading", "read", "end"]
    bars.clear()
    assert command("preprocess", "ml-100k", "--name", "again", "--force").code == 0
    assert bars == ["downloading ml-100k", "fetched", "end", "reading", "read", "end"]


def test_titles_of_a_log_may_be_parquet(random_log: MakeLog, workplace: Path, command: Callable[..., Any]) -> None:
    events = random_log()
    write_log(workplace / "log.csv", events)
    titles = [f"Film {item}" for item in events.item_ids]
    pq.write_table(pa.table({"item_id": events.item_ids, "title": titles}), "films.parquet")
    assert command("preprocess", "log.csv", "--titles", "films.parquet").code == 0
    dataset = Dataset.load("data/log")
    assert dataset.titles is not None
    assert dataset.titles.tolist() == [f"Film {item}" for item in dataset.item_ids]


def test_the_columns_that_were_guessed_are_in_the_manifest(tmp_path: Path) -> None:
    lines = [f"{i % 20},{i % 13},{i % 5 + 1},{1_700_000_000 + i}" for i in range(240)]
    (tmp_path / "log.csv").write_text("Customer ID,SKU,Stars,When\n" + "\n".join(lines))
    dataset = prepare_log(tmp_path / "log.csv", Protocol(), name="log", log_format=LogFormat(item="SKU")).dataset
    expected = {"user": "Customer ID", "item": "SKU", "rating": "Stars", "time": None}
    assert dataset.manifest["source"]["columns"] == expected


def test_ratings_that_are_no_stars_need_a_threshold(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,rating\n" + "\n".join(f"{i % 20},{i % 13},90" for i in range(240)))
    with pytest.raises(
        UsageError, match=r"^the ratings run from 90 to 90 \(90: 100%\); 4 is the usual threshold for stars"
    ):
        prepare_log(tmp_path / "log.csv", Protocol(), name="log")
    assert prepare_log(tmp_path / "log.csv", Protocol(min_rating=4), name="log").warnings == []
    without = LogFormat(without=("rating",))
    assert prepare_log(tmp_path / "log.csv", Protocol(), name="log", log_format=without).warnings == []


def test_an_id_that_may_mean_none_is_pointed_out(tmp_path: Path) -> None:
    users = ["ann", "bob", "eve", "unknown"]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(f"{users[i % 4]},i{i % 13}" for i in range(240)))
    [warning] = prepare_log(tmp_path / "log.csv", Protocol(), name="log").warnings
    assert warning == "60 rows have the user 'unknown', which may be no id; if so, give --null 'unknown'"
    log_format = LogFormat(null=("unknown",))
    prepared = prepare_log(tmp_path / "log.csv", Protocol(), name="log", log_format=log_format)
    assert prepared.warnings == []
    assert prepared.dataset.manifest["source"]["reading"]["dropped"] == {"rows without a user id": 60}
