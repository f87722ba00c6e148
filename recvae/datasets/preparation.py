"""From a name or a file to a data set: reading, filtering, splitting and the manifest, in one call."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recvae.datasets.catalog import KnownDataset, check_counts, known_dataset, locate, read_titles
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, Filters, drop_duplicates, usual_min_rating
from recvae.datasets.log_format import LogFormat, is_user_lists
from recvae.datasets.logs import columns_of, read_events, read_user_lists
from recvae.datasets.sources import Source
from recvae.datasets.splits.base import LIANG_SEED, SPLIT, TARGET_SHARE
from recvae.datasets.splits.protocols import check_protocol
from recvae.datasets.splits.ready_made import ready_made
from recvae.datasets.synthetic import synthetic_log
from recvae.datasets.titles import read_titles_column
from recvae.errors import DataError
from recvae.storage.integrity import sha256_of

_MOST_STARS = 10


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a log is filtered and split; None is the default for the data.

    Parameters
    ----------
    min_rating : float, optional
        Lowest rating that counts; by default 4 if the log has ratings.
    min_user_items, min_item_users : int
        See `Filters`.
    split, heldout_users, seed, target_share
        See `recvae.datasets.splits.protocols.split_events`.
    """

    min_rating: float | None = None
    min_user_items: int = Filters.min_user_items
    min_item_users: int = Filters.min_item_users
    split: str = SPLIT
    heldout_users: int | None = None
    seed: int = LIANG_SEED
    target_share: float = TARGET_SHARE

    def __post_init__(self) -> None:
        # Refuse an impossible protocol before a long log is read.
        check_protocol(self.split, self.heldout_users, self.seed, self.target_share)


@dataclass(frozen=True)
class PreparedDataset:
    """A data set, and remarks on it for the user.

    Parameters
    ----------
    dataset : Dataset
        The data set, which is not written yet.
    warnings : list of str
        Remarks, e.g. on counts that differ from the published ones.
    confirmed : list of str
        Counts that equal the published ones.
    """

    dataset: Dataset
    warnings: list[str]
    confirmed: list[str]


def _dataset(
    events: Events, name: str, protocol: Protocol, source: dict[str, Any], titles: dict[str, str] | None
) -> Dataset:
    min_rating = usual_min_rating(events) if protocol.min_rating is None else protocol.min_rating
    return Dataset.from_events(
        events,
        name=name,
        filters=Filters(
            min_rating=min_rating, min_user_items=protocol.min_user_items, min_item_users=protocol.min_item_users
        ),
        split=protocol.split,
        heldout_users=protocol.heldout_users,
        seed=protocol.seed,
        target_share=protocol.target_share,
        titles=titles,
        source=source,
    )


def prepare_known(
    known_name: str,
    protocol: Protocol,
    *,
    source: Path,
    name: str | None = None,
) -> PreparedDataset:
    """Prepare a data set of the catalogue from disk; see `recvae.datasets.downloads.download`.

    Parameters
    ----------
    known_name : str
        A name of `recvae.datasets.catalog.CATALOG`.
    protocol : Protocol
        How to filter and split.
    source : Path
        Its folder or zip.
    name : str, optional
        Name of the result; by default `known_name`.

    Returns
    -------
    PreparedDataset
        With a warning for each count that differs from the published one.

    Raises
    ------
    UsageError, DataError
        If it cannot be read, or has other content.
    """
    known = known_dataset(known_name)
    ratings, log_format, titles = locate(known, source)
    events, file = _read(ratings, log_format)
    if protocol.min_rating is None and events.ratings is not None:
        protocol = replace(protocol, min_rating=known.min_rating)
    if protocol.heldout_users is None and protocol.split == "strong":
        protocol = replace(protocol, heldout_users=known.heldout_users)
    origin = {"name": known.name, "url": known.url, **file}
    names = None if titles is None else read_titles(known, titles)
    dataset = _dataset(events, name or known.name, protocol, origin, names)
    warnings = check_counts(known, events)
    confirmed = (
        [] if warnings else [f"{known.n_events:,} events, {known.n_users:,} users, {known.n_items:,} items read"]
    )
    for what, found, expected in _expected(known, dataset, protocol):
        if found == expected:
            confirmed.append(f"{expected:,} {what}")
        else:
            warnings.append(f"{known.name}: got {found:,} {what}, the published number is {expected:,}")
    return PreparedDataset(dataset, warnings, confirmed)


def _expected(known: KnownDataset, dataset: Dataset, protocol: Protocol) -> list[tuple[str, int, int]]:
    """Return (what, found, expected) for each published count that this protocol should reproduce."""
    usual = Protocol(heldout_users=known.heldout_users, min_rating=known.min_rating)
    if known.expected is None or protocol != usual:
        return []
    last = dataset.manifest["filters"]["steps"][-1]
    found = {key: last[key] for key in ("events", "users", "items")} | {"train_items": dataset.train.shape[1]}
    words = {"train_items": "training items"}
    return [(words.get(key, f"{key} after the filters"), found[key], value) for key, value in known.expected.items()]


def prepare_log(
    path: Path,
    protocol: Protocol,
    *,
    name: str,
    log_format: LogFormat | None = None,
    titles: Path | None = None,
) -> PreparedDataset:
    """Prepare your own log.

    Parameters
    ----------
    path : Path
        CSV, TSV, `::`-separated text (plain, gzip, zip) or Parquet.
    protocol : Protocol
        How to filter and split.
    name : str
        Name of the result.
    log_format : LogFormat, optional
        What is known about the file; the rest is guessed.
    titles : Path, optional
        A file with a column of item ids and a column of titles.

    Returns
    -------
    PreparedDataset
        With a warning if the ratings are not on a scale up to 5 or 10, or titles are missing.

    Raises
    ------
    UsageError, DataError
        If the log cannot be used.
    """
    source = Source(path)
    events, file = _read(source, log_format)
    names = None if titles is None else read_titles_column(Source(titles))
    origin = {"name": name, **file, "columns": columns_of(source, log_format)}
    dataset = _dataset(events, name, protocol, origin, names)
    warnings = []
    if protocol.min_rating is None and events.ratings is not None and events.ratings.max() > _MOST_STARS:
        low, high = events.ratings.min(), events.ratings.max()
        warnings.append(
            f"the ratings are from {low:g} to {high:g}, but the default --min-rating {usual_min_rating(events):g} is "
            "for ratings up to 5; choose your own"
        )
    if dataset.titles is not None:
        missing = sum(title is None for title in dataset.titles)
        warnings += [f"{missing:,} of {len(dataset.titles):,} items have no title in {titles}"] if missing else []
    return PreparedDataset(dataset, warnings, [])


def prepare_synthetic(protocol: Protocol, *, name: str, n_users: int, n_items: int, n_events: int) -> PreparedDataset:
    """Prepare a generated log with tastes and a long tail; its seed is 0, that of the protocol is for the split.

    Raises
    ------
    UsageError
        If a size is out of range.
    """
    events, titles = synthetic_log(n_users=n_users, n_items=n_items, n_events=n_events, seed=0)
    names = dict(zip(map(str, events.item_ids.tolist()), titles.tolist(), strict=True))
    source = {"name": "synthetic", "n_users": n_users, "n_items": n_items, "n_events": n_events, "seed": 0}
    return PreparedDataset(_dataset(events, name, protocol, source, names), [], [])


def prepare_pair(
    train: Path, test: Path, *, name: str, seed: int = LIANG_SEED, log_format: LogFormat | None = None
) -> PreparedDataset:
    """Prepare an existing train / test pair; only duplicates are filtered.

    Parameters
    ----------
    train, test : Path
        Lines of `user item item ...` (LightGCN), or logs with a user and an item column.
    name : str
        Name of the result.
    seed : int
        Seed of the draw of validation targets.
    log_format : LogFormat, optional
        What is known about the columns; if anything is known, the files are not read as lists.

    Returns
    -------
    PreparedDataset
        With the items of the training file; the validation targets are taken from its interactions.

    Raises
    ------
    UsageError, DataError
        If a file cannot be used, or they share nothing.
    """
    sources = Source(train), Source(test)
    unspecified = log_format in (None, LogFormat())
    events = [
        read_user_lists(source) if unspecified and is_user_lists(source) else read_events(source, log_format)
        for source in sources
    ]
    if events[0].item_ids.dtype != events[1].item_ids.dtype or events[0].user_ids.dtype != events[1].user_ids.dtype:
        raise DataError(
            f"{train} and {test} have different types of ids (numbers in one, strings in the other); "
            "use the same ids in both"
        )
    unique = [drop_duplicates(part) for part in events]
    split = ready_made(unique[0], unique[1], seed)
    dataset = Dataset.from_split(
        split,
        name=name,
        source={"name": name, "train": _origin(sources[0]), "test": _origin(sources[1])},
    )
    return PreparedDataset(dataset, [], [])


def _read(source: Source, log_format: LogFormat | None) -> tuple[Events, dict[str, Any]]:
    """Return the events of a log and its origin; the checksum is computed while the log is read."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        origin = pool.submit(_origin, source)
        return read_events(source, log_format), origin.result()


def _origin(source: Source) -> dict[str, Any]:
    """Return the file's name and checksum, without its folder, which may be private."""
    origin = {"file": source.path.name, "sha256": sha256_of(source.path)}
    return origin if source.member is None else {**origin, "member": source.member}
