"""The MovieLens data sets."""

from dataclasses import replace
from typing import Any

from recvae.datasets.catalog.entry import KnownDataset
from recvae.datasets.reading.options import LogFormat

_ADDRESS = "https://files.grouplens.org/datasets/movielens"
_CLOSED = "research only; no redistribution and no commercial use without permission; cite Harper & Konstan (2015)"
_SHARED = "research only; redistribution under the same terms, no commercial use; cite Harper & Konstan (2015)"

# The columns are found by their names: there are copies of ML-1M as CSV without timestamps.
_RATINGS_CSV = {"ratings.csv": LogFormat(separator=",", header=True)}
_RATINGS_DAT = {"ratings.dat": LogFormat(separator="::", header=False, user="1", item="2", rating="3", time="4")}
_U_DATA = {"u.data": LogFormat(separator="\t", header=False, user="1", item="2", rating="3", time="4")}
_MOVIES_CSV = {"movies.csv": LogFormat(separator=",", header=True)}
_MOVIES_DAT = LogFormat(separator="::", header=False, quote="", item="1", title="2")
_U_ITEM = LogFormat(separator="|", header=False, quote="", item="1", title="2", encoding="latin-1")


def _movielens(name: str, description: str, **known: Any) -> KnownDataset:
    return KnownDataset(
        name=name, description=description, subject="films", url=f"{_ADDRESS}/{name}.zip", is_file=False, **known
    )


_ENTRIES = (
    _movielens(
        "ml-100k",
        "MovieLens 100K: whole stars, 1997-1998",
        md5="0e33842e24a9c977be4e0107933c0723",
        archive_bytes=4_900_000,
        licence=_CLOSED,
        ratings=_U_DATA | _RATINGS_CSV,
        titles={"u.item": _U_ITEM} | _MOVIES_CSV,
        n_events=100_000,
        n_users=943,
        n_items=1_682,
    ),
    _movielens(
        "ml-1m",
        "MovieLens 1M: whole stars, users who joined in 2000",
        md5="c4d9eecfca2ab87c1945afe126590906",
        archive_bytes=5_900_000,
        licence=_CLOSED,
        ratings=_RATINGS_DAT | _RATINGS_CSV,
        titles={"movies.dat": replace(_MOVIES_DAT, encoding="latin-1")} | _MOVIES_CSV,
        n_events=1_000_209,
        n_users=6_040,
        n_items=3_706,
    ),
    _movielens(
        "ml-10m",
        "MovieLens 10M: half stars, released in 2009",
        md5="ce571fd55effeba0271552578f2648bd",
        archive_bytes=65_600_000,
        licence=_CLOSED,
        ratings=_RATINGS_DAT | _RATINGS_CSV,
        titles={"movies.dat": _MOVIES_DAT} | _MOVIES_CSV,
        n_events=10_000_054,
        n_users=69_878,
        n_items=10_677,
    ),
    _movielens(
        "ml-20m",
        "MovieLens 20M: half stars, released in 2015; the benchmark of Liang et al. (2018)",
        md5="cd245b17a1ae2cc31bb14903e1204af3",
        archive_bytes=198_702_078,
        licence=_CLOSED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=20_000_263,
        n_users=138_493,
        n_items=26_744,
        heldout_users=10_000,
        protocol_of="Liang et al. (2018)",
        expected={"events": 9_990_682, "users": 136_677, "items": 20_720, "train_items": 20_108},
    ),
    _movielens(
        "ml-25m",
        "MovieLens 25M: half stars, released in 2019",
        md5="6b51fb2759a8657d3bfcbfc42b592ada",
        archive_bytes=262_000_000,
        licence=_CLOSED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=25_000_095,
        n_users=162_541,
        n_items=59_047,
    ),
    _movielens(
        "ml-32m",
        "MovieLens 32M: half stars, released in 2024",
        md5="d472be332d4daa821edc399621853b57",
        archive_bytes=238_950_008,
        licence=_SHARED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=32_000_204,
        n_users=200_948,
        n_items=84_432,
    ),
    _movielens(
        "ml-latest-small",
        "MovieLens latest-small: half stars, 1996-2018; for trials, not for published results",
        md5=None,  # GroupLens sometimes replaces this zip: the published counts verify it
        archive_bytes=1_000_000,
        licence=_SHARED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=100_836,
        n_users=610,
        n_items=9_724,
    ),
)

MOVIELENS = {known.name: known for known in _ENTRIES}
"""The MovieLens data sets by name."""
