"""Titles from a table of one's own."""

import gzip
from pathlib import Path

import pytest

from recvae.errors import DataError, UsageError
from recvae.sources import Source
from recvae.titles import read_titles_column


@pytest.mark.parametrize(
    "content",
    [
        'movieId,title,genres\n1,Heat,Crime\n2,"Postman, The",Drama\n',
        "\ufefftitle\titem_id:token\nHeat\t1\nPostman, The\t2\n",
        "id;year;name\r\n1;1995;Heat\r\n\r\n2;1994;Postman, The\r\n3\r\n",
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
        (b"item,title\n1,Am\xe9lie\n", " is not UTF-8 text .*; convert it first$"),
        (b"", " is empty; expected "),
    ],
)
def test_a_table_without_titles_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "films.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"^{tmp_path / 'films.csv'}{message}"):
        read_titles_column(Source(tmp_path / "films.csv"))


def test_a_missing_table_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^no file at {tmp_path / 'none.csv'}; check the path$"):
        read_titles_column(Source(tmp_path / "none.csv"))
