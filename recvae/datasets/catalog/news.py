"""News: MIND."""

import re
from collections.abc import Iterator, Sequence

from recvae.datasets.catalog.converting import TITLES_TABLE, lines_of, row, titles_table, wrong_line
from recvae.datasets.catalog.entry import BY_HAND, KnownDataset
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source

_TIME = re.compile(r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M")
_BEHAVIOURS = LogFormat(
    separator=",",
    header=True,
    quote='"',
    user="user",
    item="item",
    time="time",
    without=("rating",),
    time_format="%m/%d/%Y %I:%M:%S %p",
)
_PAGE, _TERMS = (
    "https://msnews.github.io/",
    "Microsoft Research Licence: research, no commercial use; cite Wu et al. (2020)",
)
_BY_HAND = "its terms have to be accepted"


def clicks(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the clicks of MIND as a table: lines of impression, user, time, history and `N1-1 N2-0`.

    A click is an article that was shown and chosen. The history is left out: it has no times, and is the same in all
    lines of a user. Articles without `-1` or `-0`, as in the large test file, are left out too.
    """
    yield b"user,item,time\n"
    for source, number, text in lines_of(sources):
        values = text.split("\t")
        if len(values) != 5 or not values[1] or not _TIME.fullmatch(values[2]):
            raise wrong_line(source.name, number, text, "impression, user, time, history and articles, with tabs")
        _, user, time, _, shown = values
        yield b"".join(row(user, article[:-2], time) for article in shown.split() if article.endswith("-1"))


def news_titles(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the titles of MIND as a table: the first and the fourth of eight columns."""
    return titles_table(_news_titles(sources))


def _news_titles(sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    for source, number, text in lines_of(sources):
        values = text.split("\t")
        if len(values) < 4:
            raise wrong_line(source.name, number, text, "eight columns, of which the fourth is the title, with tabs")
        yield values[0], values[3]


def _mind(size: str, archive_bytes: int) -> KnownDataset:
    behaviours = (f"MIND{size}_*/behaviors.tsv", "behaviors.tsv")
    return KnownDataset(
        name=f"mind:{size}",
        description=f"Microsoft News, {size}: articles clicked, 2019",
        subject="news",
        url=_PAGE,
        download=BY_HAND,
        by_hand=_BY_HAND,
        archive_bytes=archive_bytes,
        licence=_TERMS,
        ratings=dict.fromkeys(behaviours, _BEHAVIOURS),
        titles={"news.tsv": TITLES_TABLE},
        convert={**dict.fromkeys(behaviours, clicks), "news.tsv": news_titles},
        archives=(f"MIND{size}_*.zip",),
        min_rating=None,
        split="time",
    )


_PARTS = (_mind("small", 83_898_324), _mind("large", 633_652_876))  # train and dev

NEWS = (
    KnownDataset(
        name="mind",
        description="Microsoft News: articles clicked, 2019, in two sizes",
        subject="news",
        url=_PAGE,
        download=BY_HAND,
        by_hand=_BY_HAND,
        licence=_TERMS,
        ratings={},
        min_rating=None,
        split="time",
        parts={known.name.partition(":")[2]: known for known in _PARTS},
    ),
)
"""Data sets of news."""
