"""What is known about a public data set: address, terms, the form of its files, and the protocol of its papers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from recvae.datasets.catalog.converting import Converter
from recvae.datasets.events import Filters
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.ratings import STARS_MIN_RATING
from recvae.datasets.splits.base import SPLIT
from recvae.ids import MARKERS, MARKERS_AMONG_INTEGERS

SUBJECTS = ("films", "music", "books", "shops", "places", "news", "articles")
"""What data sets are about, in the order in which they are listed."""

ZIP, TAR, FILES, BY_HAND = "zip", "tar.gz", "files", "by hand"
"""How a data set is downloaded: one zip, one tar, plain files, or only by a person."""

EVERY_WORD = tuple(sorted(MARKERS | MARKERS_AMONG_INTEGERS))
"""Words that mean a missing id in most logs, for a log in which each may be a name, e.g. of an artist."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a data set that is no single archive.

    Parameters
    ----------
    name : str
        Its name on disk.
    url : str
        Its address.
    md5 : str, optional
        Its MD5, if it is known.
    """

    name: str
    url: str
    md5: str | None = None


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A public data set that `recvae` can read by name, and download unless a person has to.

    Files are named by patterns, as in `Path.match`: `ratings.csv`, `mv_*.txt`, `50m/likes.parquet`.

    Parameters
    ----------
    name, description : str
        Its name in commands, and one line about it.
    subject : str
        One of `SUBJECTS`.
    url : str
        Address of its archive; of its page where it is no single archive.
    download : str
        `ZIP`, `TAR`, `FILES` or `BY_HAND`.
    by_hand : str
        Why a person has to download it.
    files : tuple of RemoteFile
        The files to download, for `FILES`.
    md5 : str, optional
        MD5 of the archive; None if it is unknown, or the publisher sometimes replaces the archive.
    archive_bytes : int
        Size of the download in bytes, approximate; 0 if unknown.
    licence : str
        The terms of use in short; its page or archive has the full terms.
    ratings : dict of str to LogFormat
        Possible names of the file of events, the official one first, and the format of each, after a conversion.
    test : dict of str to LogFormat
        The same for the test file of a ready-made pair; then `ratings` is the training file.
    titles : dict of str to LogFormat
        Possible names of the titles file, and the format of each, after a conversion.
    convert : mapping of str to Converter
        By name of a file that is no table: what makes one of it. All files of that name are read together.
    archives : tuple of str
        Zips in a folder that are looked into.
    is_file : bool
        Whether `--source` may be the file of events itself.
    has_entities : bool
        Whether titles are written with HTML entities, e.g. `&amp;`.
    n_events, n_users, n_items : int, optional
        Events, users and items as published; None if unknown.
    min_rating : float, optional
        Lowest rating that counts as an interaction by default; None if there are no ratings.
    min_user_items, min_item_users : int
        The filters by default; see `Filters`.
    split : str
        The split by default.
    heldout_users : int, optional
        Users in each of validation and test, in the usual protocol for this data set.
    protocol_of : str
        Whose protocol the filters and the split are.
    expected : dict of str to int, optional
        The published numbers of events, users, items and training items of that protocol.
    parts : mapping of str to KnownDataset
        Data sets of their own, named NAME:PART; the whole is only a heading then.
    """

    name: str
    description: str
    subject: str
    url: str
    licence: str
    ratings: dict[str, LogFormat]
    download: str = ZIP
    by_hand: str = ""
    files: tuple[RemoteFile, ...] = ()
    md5: str | None = None
    archive_bytes: int = 0
    test: dict[str, LogFormat] = field(default_factory=dict)
    titles: dict[str, LogFormat] = field(default_factory=dict)
    convert: Mapping[str, Converter] = field(default_factory=dict)
    archives: tuple[str, ...] = ()
    is_file: bool = True
    has_entities: bool = False
    n_events: int | None = None
    n_users: int | None = None
    n_items: int | None = None
    min_rating: float | None = STARS_MIN_RATING
    min_user_items: int = Filters.min_user_items
    min_item_users: int = Filters.min_item_users
    split: str = SPLIT
    heldout_users: int | None = None
    protocol_of: str = ""
    expected: dict[str, int] | None = None
    parts: "Mapping[str, KnownDataset]" = field(default_factory=dict)

    @property
    def is_pair(self) -> bool:
        """Whether it is a ready-made pair of a training and a test file."""
        return bool(self.test)

    @property
    def folder_name(self) -> str:
        """Its name as that of a folder: a part is NAME-PART."""
        return self.name.replace(":", "-")
