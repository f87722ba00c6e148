"""Titles from a table of one's own."""

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.datasets.reading.sources import Source
from recvae.datasets.titles import read_titles_column
from recvae.errors import DataError, UsageError


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
    assert read_titles_column(Source(tmp_path / "films")) == {"1": "Heat", "2": "Postman, The"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"movieId,genre\n1,Crime\n",
            ": expected a column item_id and a column title, it has: movieId, genre; rename ",
        ),
        (b"what,title\n1,Heat\n", ": expected a column item_id and a column title, it has: what, title; rename them$"),
        (b"item,title\n1,Am\xe9lie\n", " line 2: 'utf-8' codec can't decode byte 0xe9 .*; repair the line$"),
        (b"", " is empty; expected "),
        (
            b"item_id,title\n2,Heat\n1,Hello, World\n",
            " line 3: got 3 columns, expected 2 as in the first line: '1,Hello, World'; repair the line; "
            "put a title with a comma in double quotes$",
        ),
        (b"item_id\ttitle\n1\n", " line 2: got 1 columns, expected 2 as in the first line: '1'; repair the line$"),
        (b"title,item_id\nHeat, \n", " line 2: got .*, expected an item id and a title; repair the line$"),
        (b'item_id,title\n1,"Heat\n', " line 2: unexpected end of data; repair the line$"),
    ],
)
def test_a_table_without_titles_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "films.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"^{tmp_path / 'films.csv'}{message}"):
        read_titles_column(Source(tmp_path / "films.csv"))


def test_a_missing_table_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^no file at {tmp_path / 'none.csv'}; check the path$"):
        read_titles_column(Source(tmp_path / "none.csv"))


def parquet(**columns: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize("ids", [[1, 2, 3], ["1", "2", "3"], [1.0, 2.0, 3.0]])
def test_titles_are_read_from_parquet(tmp_path: Path, ids: list[object]) -> None:
    (tmp_path / "films").write_bytes(parquet(title=["Heat", "Postman, The", None], year=[1995, 1994, 0], item_id=ids))
    assert read_titles_column(Source(tmp_path / "films")) == {"1": "Heat", "2": "Postman, The"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            parquet(item_id=[1], genre=["Crime"]),
            ": expected a column item_id and a column title, it has: item_id, genre",
        ),
        (
            parquet(item_id=["1", None], title=["Heat", "Ran"]),
            " row 2: got .*, expected an item id and a title; repair",
        ),
        (parquet(item_id=[[1]], title=["Heat"]), ": could not read ids and titles .*; write or fetch it again$"),
        (b"PAR1", ": could not read ids and titles .*; write or fetch it again$"),
    ],
)
def test_a_parquet_file_without_usable_titles_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "films").write_bytes(content)
    with pytest.raises(DataError, match=f"^{tmp_path / 'films'}{message}"):
        read_titles_column(Source(tmp_path / "films"))
