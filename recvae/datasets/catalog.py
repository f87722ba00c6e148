"""The MovieLens data sets: addresses, file formats, and the counts that they must have."""

import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from recvae.datasets.events import LIANG_MIN_RATING, Events
from recvae.datasets.log_format import LogFormat
from recvae.datasets.sources import Source, file_errors
from recvae.datasets.titles import text_rows, titles_by_id
from recvae.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A public data set that `recvae` can download and read by name.

    Parameters
    ----------
    name, description : str
        Its name in commands, and one line about it.
    url, md5 : str
        Address of its zip, and the MD5 of the zip; None if the publisher sometimes replaces the zip.
    archive_bytes : int
        Size of the zip in bytes, approximate.
    licence : str
        The terms of use in short; the zip has the full terms.
    ratings : dict of str to LogFormat
        Possible names of the ratings file, the official one first, and the format of each.
    titles : dict of str to (str, str)
        Possible names of the titles file, with separator and encoding; item id and title are the first columns.
    n_events, n_users, n_items : int
        Ratings, users and rated items as published.
    min_rating : float
        Lowest rating that counts as an interaction by default, in stars.
    heldout_users : int, optional
        Users in each of validation and test, in the usual protocol for this data set.
    expected : dict of str to int, optional
        The published numbers of events, users, items and training items of that protocol.
    """

    name: str
    description: str
    url: str
    md5: str | None
    archive_bytes: int
    licence: str
    ratings: dict[str, LogFormat]
    titles: dict[str, tuple[str, str]]
    n_events: int
    n_users: int
    n_items: int
    min_rating: float = LIANG_MIN_RATING
    heldout_users: int | None = None
    expected: dict[str, int] | None = None


_ADDRESS = "https://files.grouplens.org/datasets/movielens"
_CLOSED = "research only; no redistribution and no commercial use without permission; cite Harper & Konstan (2015)"
_SHARED = "research only; redistribution under the same terms, no commercial use; cite Harper & Konstan (2015)"

# The columns are found by their names: there are copies of ML-1M as CSV without timestamps.
_RATINGS_CSV = {"ratings.csv": LogFormat(separator=",", header=True)}
_RATINGS_DAT = {"ratings.dat": LogFormat(separator="::", header=False, user="1", item="2", rating="3", time="4")}
_U_DATA = {"u.data": LogFormat(separator="\t", header=False, user="1", item="2", rating="3", time="4")}
# "utf-8-sig" is UTF-8 with or without a byte order mark.
_MOVIES_CSV = {"movies.csv": (",", "utf-8-sig")}

CATALOG: dict[str, KnownDataset] = {
    "ml-100k": KnownDataset(
        name="ml-100k",
        description="MovieLens 100K: whole stars, 1997-1998",
        url=f"{_ADDRESS}/ml-100k.zip",
        md5="0e33842e24a9c977be4e0107933c0723",
        archive_bytes=4_900_000,
        licence=_CLOSED,
        ratings=_U_DATA | _RATINGS_CSV,
        titles={"u.item": ("|", "latin-1")} | _MOVIES_CSV,
        n_events=100_000,
        n_users=943,
        n_items=1_682,
    ),
    "ml-1m": KnownDataset(
        name="ml-1m",
        description="MovieLens 1M: whole stars, users who joined in 2000",
        url=f"{_ADDRESS}/ml-1m.zip",
        md5="c4d9eecfca2ab87c1945afe126590906",
        archive_bytes=5_900_000,
        licence=_CLOSED,
        ratings=_RATINGS_DAT | _RATINGS_CSV,
        titles={"movies.dat": ("::", "latin-1")} | _MOVIES_CSV,
        n_events=1_000_209,
        n_users=6_040,
        n_items=3_706,
    ),
    "ml-10m": KnownDataset(
        name="ml-10m",
        description="MovieLens 10M: half stars, released in 2009",
        url=f"{_ADDRESS}/ml-10m.zip",
        md5="ce571fd55effeba0271552578f2648bd",
        archive_bytes=65_600_000,
        licence=_CLOSED,
        ratings=_RATINGS_DAT | _RATINGS_CSV,
        titles={"movies.dat": ("::", "utf-8-sig")} | _MOVIES_CSV,
        n_events=10_000_054,
        n_users=69_878,
        n_items=10_677,
    ),
    "ml-20m": KnownDataset(
        name="ml-20m",
        description="MovieLens 20M: half stars, released in 2015; the benchmark of Liang et al. (2018)",
        url=f"{_ADDRESS}/ml-20m.zip",
        md5="cd245b17a1ae2cc31bb14903e1204af3",
        archive_bytes=198_702_078,
        licence=_CLOSED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=20_000_263,
        n_users=138_493,
        n_items=26_744,
        heldout_users=10_000,
        expected={"events": 9_990_682, "users": 136_677, "items": 20_720, "train_items": 20_108},
    ),
    "ml-25m": KnownDataset(
        name="ml-25m",
        description="MovieLens 25M: half stars, released in 2019",
        url=f"{_ADDRESS}/ml-25m.zip",
        md5="6b51fb2759a8657d3bfcbfc42b592ada",
        archive_bytes=262_000_000,
        licence=_CLOSED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=25_000_095,
        n_users=162_541,
        n_items=59_047,
    ),
    "ml-32m": KnownDataset(
        name="ml-32m",
        description="MovieLens 32M: half stars, released in 2024",
        url=f"{_ADDRESS}/ml-32m.zip",
        md5="d472be332d4daa821edc399621853b57",
        archive_bytes=238_950_008,
        licence=_SHARED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=32_000_204,
        n_users=200_948,
        n_items=84_432,
    ),
    "ml-latest-small": KnownDataset(
        name="ml-latest-small",
        description="MovieLens latest-small: half stars, 1996-2018; for trials, not for published results",
        url=f"{_ADDRESS}/ml-latest-small.zip",
        md5=None,  # GroupLens sometimes replaces this zip: the published counts verify it
        archive_bytes=1_000_000,
        licence=_SHARED,
        ratings=_RATINGS_CSV,
        titles=_MOVIES_CSV,
        n_events=100_836,
        n_users=610,
        n_items=9_724,
    ),
}


def known_dataset(name: str) -> KnownDataset:
    """Return a data set by its name.

    Parameters
    ----------
    name : str
        A key of `CATALOG`, e.g. "ml-1m".

    Returns
    -------
    KnownDataset
        Its entry.

    Raises
    ------
    UsageError
        If the name is unknown; the message lists the known ones.
    """
    if name not in CATALOG:
        close = get_close_matches(name.lower(), CATALOG, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        names = ", ".join([*CATALOG, "synthetic"])
        raise UsageError(f"got data set '{name}', expected one of {names}, or the path of a log{hint}")
    return CATALOG[name]


def check_counts(known: KnownDataset, events: Events) -> list[str]:
    """Return one warning for each count of `events`, before filtering, that differs from the published one."""
    published = {"events": known.n_events, "users": known.n_users, "items": known.n_items}
    return [
        f"{known.name}: got {found:,} {what}, expected {published[what]:,}; the file is incomplete or another version"
        for what, found in events.counts().items()
        if found != published[what]
    ]


def locate(known: KnownDataset, source: Path) -> tuple[Source, LogFormat, Source | None]:
    """Find the ratings and the titles of a data set in a folder, one of its sub-folders, or a zip.

    Parameters
    ----------
    known : KnownDataset
        The data set.
    source : Path
        A folder or a zip on disk.

    Returns
    -------
    (Source, LogFormat, Source or None)
        The ratings file, its format, and the titles file in the same folder, if any.

    Raises
    ------
    UsageError
        If `source` does not exist, or is neither a folder nor a zip.
    DataError
        If it has no ratings file of this data set, or more than one, or the zip is damaged.
    """
    files = _files(known, source)
    names = list(known.ratings)
    # Best first: in the top folder, in a folder named like the data set ("ml-10M100K"), the official file.
    found = sorted(
        (len(path.parts) > 1, not path.parent.name.lower().startswith(known.name), names.index(path.name), path)
        for path in files
        if path.name in names
    )
    wanted = f"{' or '.join(names)} of {known.name}"
    if not found:
        there = ", ".join(map(str, sorted(files)[:8])) + (", ..." if len(files) > 8 else "") or "nothing"
        raise DataError(f"{source} holds no {wanted}; it holds: {there}; give the folder or zip with that file")
    best = found[0][-1]
    if len(found) > 1 and found[1][:-1] == found[0][:-1]:
        raise DataError(f"{source} holds both {best} and {found[1][-1]}, expected one {wanted}; give one folder")
    neighbours = (files.get(best.with_name(name)) for name in known.titles)
    return files[best], known.ratings[best.name], next((titles for titles in neighbours if titles), None)


def _files(known: KnownDataset, source: Path) -> dict[PurePosixPath, Source]:
    """List the files in a folder and its sub-folders, or in a zip, by their paths inside it."""
    if not source.exists():
        raise UsageError(f"no file or folder {source}, expected a folder or zip of {known.name}; check the path")
    with file_errors(Source(source)):
        if source.is_dir():
            found = (path for pattern in ("*", "*/*") for path in source.glob(pattern) if path.is_file())
            return {PurePosixPath(path.relative_to(source).as_posix()): Source(path) for path in found}
        if source.suffix.lower() != ".zip" and not zipfile.is_zipfile(source):
            raise UsageError(f"{source} is neither a folder nor a zip; give the folder of {known.name}, or its zip")
        with zipfile.ZipFile(source) as archive:
            members = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    return {PurePosixPath(member): Source(source, member) for member in members}


def read_titles(known: KnownDataset, source: Source) -> dict[str, str]:
    """Read the titles of the items.

    Parameters
    ----------
    known : KnownDataset
        The data set that the file belongs to.
    source : Source
        The titles file, from `locate`.

    Returns
    -------
    dict of str to str
        The title of each item id.

    Raises
    ------
    UsageError, DataError
        If it is missing or has an unknown name, or a line cannot be read (the message says which).
    """
    name = PurePosixPath(source.member or source.path.name).name
    if name not in known.titles:
        raise UsageError(f"got titles file {source.name}, expected {' or '.join(known.titles)} for {known.name}")
    separator, encoding = known.titles[name]
    titles = titles_by_id(text_rows(source, separator, encoding), item=0, title=1)
    titles.pop("movieId", None)  # the header of movies.csv
    return titles
