"""Titles from a table of one's own."""

import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.titles import read_titles
from recvae.errors import DataError, UsageError

TOLD = "could not tell which column holds the"
WAY_OUT = "name it with --id-col or --title-col"
REPAIR = "repair the line; put a title that holds the separator in quotes"


@pytest.mark.parametrize(
    "content",
    [
        'movieId,title,genres\n1,Heat,Crime\n2,"Postman, The",Drama\n',
        "\ufefftitle\titem_id:token\nHeat\t1\nPostman, The\t2\n",
        "id;year;name\r\n1;1995;Heat\r\n\r\n2;1994;Postman, The\r\n",
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_titles_are_found_by_the_names_of_their_columns(tmp_path: Path, content: str, pack: type[bytes]) -> None:
    (tmp_path / "films").write_bytes(pack(content.encode()))
    assert read_titles([tmp_path / "films"]) == {"1": "Heat", "2": "Postman, The"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"movieId,genre\n1,2\n", f": {TOLD} title; it has: movieId, genre; {WAY_OUT}"),
        (b"what,title\n1,Heat\n", f": {TOLD} item id; it has: what, title; {WAY_OUT}"),
        (b"item,title\n1,Am\xe9lie\n", " line 2: not UTF-8 text: b'1,Am\\xe9lie'; convert the file first"),
        (b"", " is empty; expected a log with one row per event"),
        (
            b"item_id,title\n2,Heat\n1,Hello, World\n",
            f" line 3: got 3 columns, expected 2 as in the first line: '1,Hello, World'; {REPAIR}",
        ),
        (
            b"item_id\ttitle\n1\n",
            f" line 2: got 1 column, expected 2 as in the first line: '1'; {REPAIR}",
        ),
        (
            b"title\nHeat\n",
            " line 1: got one column: 'title'; expected at least a column of ids and one of titles; "
            "give the right separator with --sep",
        ),
    ],
)
def test_a_table_without_titles_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "films.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/films.csv{message}')}$"):
        read_titles([tmp_path / "films.csv"])


@pytest.mark.parametrize(
    ("content", "titles"),
    [
        (b"title,item_id\nHeat, \nRan,1\nFire,NULL\n", {"1": "Ran"}),  # a row without an id
        (b"item_id,title\n1,Heat\n2, \n", {"1": "Heat"}),  # a row without a title
        (b"item_id,title\n1,Heat\n1.0,Fire\n", {"1": "Fire"}),  # of several titles the last
        (b'item_id,title\n1,"Heat\n2,Fire\n', {"1": '"Heat', "2": "Fire"}),  # a quote that nothing closes is a letter
        (b'item_id,title\n1,"Heat,\nthe film"\n2,Fire\n', {"1": "Heat,\nthe film", "2": "Fire"}),
        (b"item_id,title\n1,NA\n2,Null\n", {"1": "NA", "2": "Null"}),  # films may be called so
        ("item_id,title\n1,Am\xe9lie\n".encode("utf-16"), {"1": "Am\xe9lie"}),
        (b'{"id": 1, "title": "Heat"}\n{"title": "Ran", "id": 2}\n', {"1": "Heat", "2": "Ran"}),
    ],
)
def test_titles_are_read_by_the_rules_of_logs(tmp_path: Path, content: bytes, titles: dict[str, str]) -> None:
    (tmp_path / "films").write_bytes(content)
    assert read_titles([tmp_path / "films"]) == titles


def test_columns_of_titles_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("code,film\n1,Heat\n")
    assert read_titles([tmp_path / "films.csv"], LogFormat(item="code", title="film")) == {"1": "Heat"}
    with pytest.raises(UsageError, match=r"has no column 'codes'; it has: code, film; did you mean --id-col code\?$"):
        read_titles([tmp_path / "films.csv"], LogFormat(item="codes", title="film"))


def test_a_missing_table_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^no file at {tmp_path / 'none.csv'}; check the path$"):
        read_titles([tmp_path / "none.csv"])


def parquet(**columns: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize("ids", [[1, 2, 3], ["1", "2", "3"], [1.0, 2.0, 3.0]])
def test_titles_are_read_from_parquet(tmp_path: Path, ids: list[object]) -> None:
    (tmp_path / "films").write_bytes(parquet(title=["Heat", "Postman, The", None], year=[1995, 1994, 0], item_id=ids))
    assert read_titles([tmp_path / "films"]) == {"1": "Heat", "2": "Postman, The"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parquet(item_id=[1], genre=["Crime"]), f": {TOLD} title; it has: item_id, genre; {WAY_OUT}"),
        (parquet(what=[1], title=["Heat"]), f": {TOLD} item id; it has: what, title; {WAY_OUT}"),
        (
            parquet(item_id=[b"1"], title=["Heat"]),
            ": column 'item_id' holds BLOB, expected integers or texts for the item; cast it to text first; "
            "name another column with --id-col",
        ),
        (
            b"PAR1",
            " is damaged or not a Parquet file (Parquet file size is 4 bytes, smaller than the minimum file footer "
            "(8 bytes)); write or fetch it again",
        ),
    ],
)
def test_a_parquet_file_without_usable_titles_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "films").write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/films{message}')}$"):
        read_titles([tmp_path / "films"])


@pytest.mark.parametrize("titles", [["One", "Two"], np.array(["One", "Two"])])
def test_titles_without_ids_are_refused(titles: Any, random_log: Callable[..., Events]) -> None:
    kind = type(titles).__name__
    with pytest.raises(UsageError, match=f"got titles as {kind}, expected a mapping from item id to title; write e.g."):
        Dataset.from_events(random_log(), name="made", titles=titles, heldout_users=3)
