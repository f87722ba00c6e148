"""The MovieLens data sets: addresses, file formats, and the counts that they must have."""

import zipfile
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from recvae.datasets.events import Events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.ratings import STARS_MIN_RATING
from recvae.datasets.reading.sources import Source, file_errors
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
    titles : dict of str to LogFormat
        Possible names of the titles file, and the format of each.
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
    titles: dict[str, LogFormat]
    n_events: int
    n_users: int
    n_items: int
    min_rating: float = STARS_MIN_RATING
    heldout_users: int | None = None
    expected: dict[str, int] | None = None


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

_FAR = 0.05  # of a published count

CATALOG: dict[str, KnownDataset] = {
    "ml-100k": KnownDataset(
        name="ml-100k",
        description="MovieLens 100K: whole stars, 1997-1998",
        url=f"{_ADDRESS}/ml-100k.zip",
        md5="0e33842e24a9c977be4e0107933c0723",
        archive_bytes=4_900_000,
        licence=_CLOSED,
        ratings=_U_DATA | _RATINGS_CSV,
        titles={"u.item": _U_ITEM} | _MOVIES_CSV,
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
        titles={"movies.dat": replace(_MOVIES_DAT, encoding="latin-1")} | _MOVIES_CSV,
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
        titles={"movies.dat": _MOVIES_DAT} | _MOVIES_CSV,
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


def check_counts(known: KnownDataset, events: Events, force: bool = False) -> list[str]:
    """Compare the counts of events, before filtering, with the published ones.

    Parameters
    ----------
    known : KnownDataset
        The data set.
    events : Events
        What was read.
    force : bool
        Whether counts that are far off are warnings too.

    Returns
    -------
    list of str
        One warning for each count that differs.

    Raises
    ------
    DataError
        If one is further off than a twentieth: this is another data set, or half of one.
    """
    published = {"events": known.n_events, "users": known.n_users, "items": known.n_items}
    differing = {what: found for what, found in events.counts().items() if found != published[what]}
    if not force and any(abs(found - published[what]) > _FAR * published[what] for what, found in differing.items()):
        found = ", ".join(f"{count:,} {what}" for what, count in events.counts().items())
        expected = ", ".join(f"{count:,} {what}" for what, count in published.items())
        raise DataError(
            f"this is not {known.name}: got {found}, expected {expected}; check --source, or prepare it under a name "
            "of its own with --force --name NAME"
        )
    return [
        f"{known.name}: got {found:,} {what}, expected {published[what]:,}; the file is incomplete or another version"
        for what, found in differing.items()
    ]


def locate(known: KnownDataset, source: Path) -> tuple[Source, LogFormat, tuple[Source, LogFormat] | None]:
    """Find the ratings and the titles of a data set in a folder, one of its sub-folders, or a zip.

    Parameters
    ----------
    known : KnownDataset
        The data set.
    source : Path
        A folder or a zip on disk.

    Returns
    -------
    (Source, LogFormat, (Source, LogFormat) or None)
        The ratings file and its format; the titles file in the same folder and its format, if there is one.

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
    neighbours = ((files[best.with_name(n)], form) for n, form in known.titles.items() if best.with_name(n) in files)
    return files[best], known.ratings[best.name], next(neighbours, None)


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
