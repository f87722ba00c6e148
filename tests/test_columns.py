"""One table of column names for every reader of users and items: `preprocess`, titles, history files, tables."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.columns import COLUMN_NAMES, FEATURES, HISTORIES, LOG, TITLES, find_columns
from recvae.datasets.logs import read_events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.titles import read_titles
from recvae.errors import DataError, UsageError
from recvae.recommenders.history_files import HistoryFile
from recvae.recommenders.recommender import Recommender

Door = Callable[[pd.DataFrame, Path, Recommender], tuple[list[Any], list[Any]]]
USERS, ITEMS = ["ann", "bob"], [1000, 990]  # items of the blocks


@pytest.fixture(scope="module")
def ease(fitted: Callable[[str], Any], blocks: Any) -> Recommender:
    return Recommender(fitted("ease"), blocks)


def _events(path: Path) -> tuple[list[Any], list[Any]]:
    events = read_events(path)
    return events.user_ids[events.users].tolist(), events.item_ids[events.items].tolist()


def _blocks(path: Path) -> tuple[list[Any], list[Any]]:
    with HistoryFile(path) as file:
        (block,) = file.blocks()
    found = block.table.to_pydict()
    return found["user"], [int(item) for item in found["item"]]


def _csv(read: Callable[[Path], Any]) -> Door:
    def through(table: pd.DataFrame, folder: Path, _: Recommender) -> Any:
        table.to_csv(folder / "log.csv", index=False)
        return read(folder / "log.csv")

    return through


def _parquet(read: Callable[[Path], Any]) -> Door:
    def through(table: pd.DataFrame, folder: Path, _: Recommender) -> Any:
        pq.write_table(pa.table(table), folder / "log.parquet")
        return read(folder / "log.parquet")

    return through


def _batch(table: pd.DataFrame, _: Path, recommender: Recommender) -> tuple[list[Any], list[Any]]:
    found = recommender.recommend_batch(table, k=len(recommender.item_ids), filter_seen=True)
    everything = set(recommender.item_ids.tolist())
    return found.users, [item for one in found for item in everything - set(one.ids)]


DOORS: dict[str, Door] = {
    "preprocess a CSV": _csv(_events),
    "preprocess a Parquet file": _parquet(_events),
    "recommend --input a CSV": _csv(_blocks),
    "recommend --input a Parquet file": _parquet(_blocks),
    "recommend_batch a table": _batch,
}
PAIRS = [(name, "item") for name in COLUMN_NAMES["user"]] + [("user", name) for name in COLUMN_NAMES["item"]]


WRITTEN: list[Callable[[str], str]] = [str, str.upper, lambda name: f"{name[:2]}_{name[2:]}:token"]


@pytest.mark.parametrize("written", WRITTEN)
def test_every_name_of_the_table_is_known_however_it_is_written(written: Callable[[str], str]) -> None:
    for user, item in PAIRS:
        for roles in (HISTORIES, LOG):
            found = find_columns([written(item), written(user)], roles, "the table", "")
            assert (found.user, found.item) == (written(user), written(item))


@pytest.mark.parametrize("door", DOORS)
def test_every_name_of_the_table_is_known_in_every_door(door: str, ease: Recommender, tmp_path: Path) -> None:
    for number, (user, item) in enumerate(PAIRS):
        written = WRITTEN[number % len(WRITTEN)]
        table = pd.DataFrame({written(item): ITEMS, written(user): USERS})
        assert DOORS[door](table, tmp_path, ease) == (USERS, ITEMS), (user, item)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("names", [["customer_id", "product_id"], ["product_id", "customer_id"]])
def test_customers_and_products_are_users_and_items_in_either_order(
    door: str, names: list[str], ease: Recommender, tmp_path: Path
) -> None:
    table = pd.DataFrame({"customer_id": USERS, "product_id": ITEMS})[names]
    assert DOORS[door](cast(pd.DataFrame, table), tmp_path, ease) == (USERS, ITEMS)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["listener", "track_id"], "could not tell which column holds the user id; it has: listener, track_id; "),
        (["user_id", "what"], "could not tell which column holds the item id; it has: user_id, what; "),
        (["user", "id"], "could not tell which column holds the item id; it has: user, id; "),
        (["user_id", "userId", "item"], "'user_id' and 'userId' both look like the user id, expected one column; "),
        (["user", "itemId", "item_id"], "'itemId' and 'item_id' both look like the item id, expected one column; "),
    ],
)
def test_unknown_and_ambiguous_names_are_refused_with_the_way_out(
    door: str, names: list[str], said: str, ease: Recommender, tmp_path: Path
) -> None:
    role = "user" if "the user id" in said else "item"
    way_out = f"rename it to '{role}'" if door == "recommend_batch a table" else f"name it with --{role}-col"
    table = pd.DataFrame({name: USERS if "user" in name else ITEMS for name in names})
    with pytest.raises(DataError) as caught:
        DOORS[door](table, tmp_path, ease)
    assert said + way_out in str(caught.value)


@pytest.mark.parametrize("name", COLUMN_NAMES["rating"] + COLUMN_NAMES["time"])
def test_every_name_of_a_rating_or_a_time_is_known(name: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"user,item,{name}\nann,1,5\n")
    role = "rating" if name in COLUMN_NAMES["rating"] else "time"
    reading = read_events(tmp_path / "log.csv").reading
    assert reading is not None and getattr(reading.columns, role) == name


@pytest.mark.parametrize("item", (*COLUMN_NAMES["item"], "id"))
@pytest.mark.parametrize("title", COLUMN_NAMES["title"])
def test_titles_are_found_by_every_name(item: str, title: str, tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text(f"{title},{item}\nHeat,6\n")
    assert read_titles([tmp_path / "films.csv"]) == {"6": "Heat"}


def test_the_first_name_of_the_table_counts_where_several_are_there() -> None:
    names = ["asin", "parent_asin", "session_id", "user_id", "weight"]
    found = find_columns(names, HISTORIES, "the table", "")
    assert (found.user, found.item, found.weight, found.rating) == ("user_id", "asin", "weight", None)


def test_a_column_that_was_named_is_taken_and_is_no_other_role() -> None:
    found = find_columns(["user", "item", "item_id"], LOG, "a.csv", "", {"user": "item_id", "rating": None})
    assert (found.user, found.item) == ("item_id", "item")


def test_a_column_that_is_named_must_be_there_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^a.csv has 2 columns 'who'; it has: who, who, item; rename one of them$"):
        find_columns(["who", "who", "item"], LOG, "a.csv", "", {"user": "who"})
    (tmp_path / "log.csv").write_text("who,what\nann,1\n")
    events = read_events(tmp_path / "log.csv", LogFormat(user="who", item="what"))
    assert (events.user_ids.tolist(), events.item_ids.tolist()) == (["ann"], [1])


def test_two_columns_of_titles_are_refused() -> None:
    with pytest.raises(DataError, match=r"^films.csv: 'title' and 'Title' both look like the title, expected one col"):
        find_columns(["id", "title", "Title"], TITLES, "films.csv", "")


@pytest.mark.parametrize("roles", [TITLES, FEATURES])
@pytest.mark.parametrize("other", ["artist_id", "movieId", "asin", "productId:token"])
def test_an_id_beside_another_one_in_a_table_of_items_is_refused(roles: tuple[str, ...], other: str) -> None:
    """The other one may be that of an artist or a shop: songs had the titles of other songs, without a word."""
    for names in (["id", "title", other], [other, "ID", "title"]):
        with pytest.raises(DataError, match=r"^songs.csv: '(id|ID)' and '.*' both look like the item id, expected one"):
            find_columns(names, roles, "songs.csv", "name it with --id-col")
        assert find_columns(names, roles, "songs.csv", "", {"item": other}).item == other
    assert find_columns(["id", "title", "item_id"], roles, "songs.csv", "").item == "item_id"
    assert find_columns(["title", other], roles, "songs.csv", "").item == other


def test_columns_are_chosen_without_torch_and_pandas() -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'pyarrow', 'scipy'}"
    code = f"import sys, recvae.datasets.columns\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
