"""Films and series next to MovieLens: the Netflix Prize and Anime."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from recvae.datasets.catalog.converting import TITLES_TABLE, lines_of, open_each, titles_table, wrong_line
from recvae.datasets.catalog.entry import BY_HAND, TAR, KnownDataset
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source, file_errors
from recvae.errors import DataError

_CHUNK = 1 << 23
_ONE_FILM, _ALL_FILMS = "mv_*.txt", "training_set.tar"
_FILM = re.compile(rb"^(\d+):[ ]*\n", re.MULTILINE)
_RATINGS = re.compile(rb"(?:(?:\d+,[1-5],\d{4}-\d\d-\d\d)?\n)*+")
_BLANK = re.compile(rb"^\n", re.MULTILINE)


def netflix_ratings(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the ratings of the Netflix Prize as a table: `1:` begins a film, then come `user,rating,date`.

    Parameters
    ----------
    sources : sequence of Source
        Files of one film or of many, or the tar with a file for each film.
    """
    yield b"user,rating,time,item\n"
    for source, stream in open_each(sources):
        with file_errors(source):
            if PurePosixPath(source.name).name == _ALL_FILMS:
                yield from _in_tar(source.name, stream)
            else:
                yield from _films(source.name, stream)


def _in_tar(name: str, stream: BinaryIO) -> Iterator[bytes]:
    n_films = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                content = archive.extractfile(member) if fnmatch(member.name, f"*{_ONE_FILM}") else None
                if content is not None:
                    n_films += 1
                    yield from _films(f"{name}:{member.name}", cast(BinaryIO, content))
    except tarfile.TarError as error:
        raise DataError(f"{name} is truncated or damaged ({error}); download it again") from error
    if not n_films:
        raise DataError(f"{name} holds no {_ONE_FILM}, expected one such file for each film; download it again")


def _films(name: str, stream: BinaryIO) -> Iterator[bytes]:
    film, line, rest = b"", 1, b""
    while True:
        raw = stream.read(_CHUNK)
        whole = rest + raw if raw else rest + b"\n" * bool(rest)
        cut = whole.rfind(b"\n") + 1
        block, rest = whole[:cut].replace(b"\r\n", b"\n"), whole[cut:]
        before, *others = _FILM.split(block)
        for new, text in zip([b"", *others[::2]], [before, *others[1::2]], strict=True):
            film, line = new or film, line + bool(new)
            found = _RATINGS.match(text)
            end = found.end() if found is not None else 0
            if end < len(text) or (text.strip() and not film):
                at, expected = (end, "user,rating,date") if film else (0, "the id of a film, e.g. 1:")
                bad = text[at:].split(b"\n")[0].decode(errors="replace")
                raise wrong_line(name, line + text[:at].count(b"\n"), bad, expected)
            line += text.count(b"\n")
            if text.startswith(b"\n") or b"\n\n" in text:
                text = _BLANK.sub(b"", text)
            yield text.replace(b"\n", b"," + film + b"\n")
        if not raw:
            return


def netflix_titles(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the titles of the Netflix Prize as a table: lines of `id,year,title`, where titles may have commas."""
    return titles_table(_netflix_titles(sources))


def _netflix_titles(sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    for source, number, text in lines_of(sources, "latin-1"):
        values = text.split(",", 2)
        if len(values) < 3 or not values[0].strip().isdecimal():
            raise wrong_line(source.name, number, text, "id,year,title")
        yield values[0], values[2]


_NETFLIX_TABLE = LogFormat(separator=",", header=True, quote="", user="user", item="item", rating="rating", time="time")

FILMS = (
    KnownDataset(
        name="netflix",
        description="Netflix Prize: whole stars, 1998-2005",
        subject="films",
        url="https://archive.org/download/nf_prize_dataset.tar/nf_prize_dataset.tar.gz",
        download=TAR,
        archive_bytes=697_552_028,  # as one script states it
        licence="research only; no redistribution, no commercial use; acknowledge Netflix",
        # The download has a tar in its tar; the copy at Kaggle (netflix-inc/netflix-prize-data) has four files.
        ratings={
            _ALL_FILMS: _NETFLIX_TABLE,
            "combined_data_[1-4].txt": _NETFLIX_TABLE,
            _ONE_FILM: _NETFLIX_TABLE,
        },
        titles={"movie_titles.txt": TITLES_TABLE, "movie_titles.csv": TITLES_TABLE},
        convert={
            **dict.fromkeys((_ALL_FILMS, "combined_data_[1-4].txt", _ONE_FILM), netflix_ratings),
            **dict.fromkeys(("movie_titles.txt", "movie_titles.csv"), netflix_titles),
        },
        n_events=100_480_507,
        n_users=480_189,
        n_items=17_770,
        heldout_users=40_000,
        protocol_of="Liang et al. (2018)",
        expected={"events": 56_880_037, "users": 463_435, "items": 17_769},
    ),
    KnownDataset(
        name="anime",
        description="MyAnimeList: series watched, with marks from 1 to 10; -1 is no mark",
        subject="films",
        url="https://www.kaggle.com/datasets/CooperUnion/anime-recommendations-database",
        download=BY_HAND,
        by_hand="Kaggle asks for a login",
        archive_bytes=26_000_000,  # from memory
        licence="CC0 1.0, as far as we know; see its page",  # from memory
        ratings={
            "rating.csv": LogFormat(
                separator=",", header=True, user="user_id", item="anime_id", rating="rating", without=("time",)
            )
        },
        titles={"anime.csv": LogFormat(separator=",", header=True, quote='"', item="anime_id", title="name")},
        has_entities=True,
        n_events=7_813_737,
        n_users=73_515,
        n_items=11_200,
        min_rating=-1,  # every row: to have watched is the event
    ),
)
"""Data sets of films."""
