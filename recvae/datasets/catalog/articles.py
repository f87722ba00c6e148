"""Scientific articles: citeulike-a."""

import csv
from collections.abc import Iterator, Sequence

from recvae.datasets.catalog.converting import TITLES_TABLE, lines_of, row, titles_table, wrong_line
from recvae.datasets.catalog.entry import FILES, KnownDataset, RemoteFile
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError

_ADDRESS = "https://raw.githubusercontent.com/js05212/citeulike-a/master"


def libraries(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the libraries of users as a table: each line has the number of articles, then the articles.

    The user is the number of the line, counted from 0.
    """
    yield b"user,item\n"
    for source, number, text in lines_of(sources):
        count, *articles = text.split()
        if not text.replace(" ", "").isdecimal() or int(count) != len(articles):
            raise wrong_line(source.name, number, text, "the number of articles, then as many articles")
        yield b"".join(row(str(number - 1), article) for article in articles)


def article_titles(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the titles of articles as a table: `doc.id` counts from 1, the articles of users from 0."""
    return titles_table(_article_titles(sources))


def _article_titles(sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    rows = csv.DictReader(text + "\n" for _, _, text in lines_of(sources, "latin-1"))
    for values in rows:
        number, title = values.get("doc.id"), values.get("raw.title")
        if number is None or title is None or not number.isdecimal():
            raise DataError(
                f"{sources[0].name} near line {rows.line_num}: got no doc.id and raw.title, expected both; download "
                "the file again, or remove it"
            )
        yield str(int(number) - 1), title


ARTICLES = (
    KnownDataset(
        name="citeulike-a",
        description="CiteULike: articles in libraries of users, no times",
        subject="articles",
        url="https://github.com/js05212/citeulike-a",
        download=FILES,
        files=(
            RemoteFile(name="users.dat", url=f"{_ADDRESS}/users.dat", md5="b384e22f3b6cd9d0c8e11a13066fe70e"),
            RemoteFile(name="raw-data.csv", url=f"{_ADDRESS}/raw-data.csv"),
        ),
        archive_bytes=23_000_000,  # the titles from memory
        licence="no licence stated; cite Wang & Blei (2011) and Wang, Chen & Li (2013)",
        ratings={
            "users.dat": LogFormat(
                separator=",", header=True, quote='"', user="user", item="item", without=("rating", "time")
            )
        },
        titles={"raw-data.csv": TITLES_TABLE},
        convert={"users.dat": libraries, "raw-data.csv": article_titles},
        n_events=204_986,  # the README says 204,987
        n_users=5_551,
        n_items=16_980,
        min_rating=None,
    ),
)
"""Data sets of articles."""
