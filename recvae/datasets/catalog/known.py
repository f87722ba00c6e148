"""All data sets by name: their files in what a user downloaded, and the counts that they must have."""

from difflib import get_close_matches
from pathlib import Path, PurePosixPath

import numpy as np

from recvae.datasets.catalog.articles import ARTICLES
from recvae.datasets.catalog.books import BOOKS
from recvae.datasets.catalog.converting import converted
from recvae.datasets.catalog.entry import KnownDataset
from recvae.datasets.catalog.files import Files, files_of, matches, unpacked
from recvae.datasets.catalog.films import FILMS
from recvae.datasets.catalog.movielens import MOVIELENS
from recvae.datasets.catalog.music import MUSIC
from recvae.datasets.catalog.news import NEWS
from recvae.datasets.catalog.ready_made import READY_MADE
from recvae.datasets.catalog.shops import SHOPS
from recvae.datasets.events import Events
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.errors import DataError, UsageError

CATALOG: dict[str, KnownDataset] = {
    **MOVIELENS,
    **{known.name: known for known in (*FILMS, *MUSIC, *BOOKS, *SHOPS, *READY_MADE, *NEWS, *ARTICLES)},
}
"""The data sets by name."""

_FAR = 0.05  # of a published count


def known_dataset(name: str) -> KnownDataset:
    """Return a data set by its name.

    Parameters
    ----------
    name : str
        A key of `CATALOG`, e.g. "ml-1m", or a part of one, e.g. "amazon-2023:Video_Games".

    Returns
    -------
    KnownDataset
        Its entry.

    Raises
    ------
    UsageError
        If the name is unknown, or means several data sets; the message lists the known ones.
    """
    whole, colon, part = name.partition(":")
    if whole not in CATALOG:
        close = get_close_matches(name.lower(), CATALOG, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        names = ", ".join([*CATALOG, "synthetic"])
        raise UsageError(f"got data set '{name}', expected one of {names}, or the path of a log{hint}")
    known = CATALOG[whole]
    if part in known.parts:
        return known.parts[part]
    if not known.parts:
        if colon:
            raise UsageError(f"got data set '{name}', but {whole} has no parts; expected '{whole}' alone")
        return known
    close = get_close_matches(part, known.parts, n=1)
    meant = close[0] if close else next(iter(known.parts))
    raise UsageError(
        f"got data set '{name}', expected one part of {whole}, e.g. {whole}:{meant}; "
        f"its parts: {', '.join(known.parts)}"
    )


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
        One warning for each published count that differs.

    Raises
    ------
    DataError
        If one is further off than a twentieth: this is another data set, or half of one.
    """
    published = {"events": known.n_events, "users": known.n_users, "items": known.n_items}
    expected = {what: count for what, count in published.items() if count is not None}
    found = events.counts()
    differing = [what for what, count in expected.items() if found[what] != count]
    if not force and any(abs(found[what] - expected[what]) > _FAR * expected[what] for what in differing):
        shown = ", ".join(f"{count:,} {what}" for what, count in found.items())
        wanted = ", ".join(f"{count:,} {what}" for what, count in expected.items())
        raise DataError(
            f"this is not {known.name}: got {shown}, expected {wanted}; check --source, or prepare it under a name of "
            "its own with --force --name NAME"
        )
    return [
        f"{known.name}: got {found[what]:,} {what}, expected {expected[what]:,}; the file is incomplete or another "
        "version"
        for what in differing
    ]


def both(train: Events, test: Events) -> Events:
    """Return the events of a ready-made pair as one log, for its counts; ids only, no times."""
    users, items = (np.concatenate([getattr(train, ids), getattr(test, ids)]) for ids in ("user_ids", "item_ids"))
    new_users, new_items = (np.unique(ids, return_inverse=True) for ids in (users, items))
    codes = []
    for (_, new), role in ((new_users, "users"), (new_items, "items")):
        first, second = getattr(train, role), getattr(test, role)
        n_first = len(train.user_ids if role == "users" else train.item_ids)
        codes.append(np.concatenate([new[:n_first][first], new[n_first:][second]]).astype(np.int32))
    return Events(users=codes[0], items=codes[1], user_ids=new_users[0], item_ids=new_items[0])


def locate(
    known: KnownDataset, source: Path, scratch: Path | None = None
) -> tuple[Source, LogFormat, tuple[Source, LogFormat] | None]:
    """Find the events and the titles of a data set in a folder, one of its sub-folders, a zip, a tar, or a file.

    Parameters
    ----------
    known : KnownDataset
        The data set.
    source : Path
        What the user has.
    scratch : Path, optional
        A folder for what must be unpacked or converted; needed for tars and files that are no tables.

    Returns
    -------
    (Source, LogFormat, (Source, LogFormat) or None)
        The file of events and its format; the titles file near it and its format, if there is one.

    Raises
    ------
    UsageError
        If `source` does not exist, or is of another kind.
    DataError
        If it has no file of events of this data set, or more than one, or is damaged.
    """
    files = files_of(known, source, scratch)
    names = list(known.ratings)
    wanted = f"{' or '.join(names)} of {known.name}"
    # Best first: in the top folder, in a folder named like the data set ("ml-10M100K"), the official file.
    found = sorted(
        (len(path.parts) > 1, not path.parent.name.lower().startswith(known.name), names.index(name), path)
        for path in files
        if (name := matches(path, names)) is not None
    )
    if not found:
        there = ", ".join(map(str, sorted(files)[:8])) + (", ..." if len(files) > 8 else "") or "nothing"
        raise DataError(f"{source} holds no {wanted}; it holds: {there}; give the folder or zip with that file")
    best, pattern = found[0][-1], names[found[0][2]]
    paths = [path for *_, path in found if matches(path, names) == pattern] if pattern in known.convert else [best]
    if len(paths) == 1 and len(found) > 1 and found[1][:-1] == found[0][:-1]:
        raise DataError(f"{source} holds both {best} and {found[1][-1]}, expected one {wanted}; give one folder")
    log = _table(known, files, paths, pattern, scratch)
    return log, known.ratings[pattern], _titles(known, files, paths, scratch)


def _titles(
    known: KnownDataset, files: Files, paths: list[PurePosixPath], scratch: Path | None
) -> tuple[Source, LogFormat] | None:
    """Return the titles in the folders of the events; if they are converted or unpacked anyway, also one above."""
    folders = {path.parent for path in paths}
    nearby = folders | {folder.parent for folder in folders if known.convert or known.archives}
    for pattern, form in known.titles.items():
        found = sorted(path for path in files if path.parent in nearby and path.match(pattern))
        if found:
            several = found if pattern in known.convert else found[:1]
            return _table(known, files, several, pattern, scratch), form
    return None


def _table(known: KnownDataset, files: Files, paths: list[PurePosixPath], pattern: str, scratch: Path | None) -> Source:
    """Return the file itself, or the table that is made of the files."""
    sources = [source for path in paths if (source := files[path]) is not None]
    converter = known.convert.get(pattern)
    if converter is None:
        return unpacked(sources[0], scratch)
    if scratch is None:
        raise UsageError(f"got {sources[0].name}, which is no table, and no folder to convert it in; give `scratch`")
    return converted(sources, converter, scratch / f"table-{len(list(scratch.iterdir()))}.csv")
