"""From a name or a file to a data set: reading, filtering, splitting and the manifest, in one call."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recvae.datasets.catalog import KnownDataset, check_counts, known_dataset, locate
from recvae.datasets.columns import LOG
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, Filters, drop_duplicates, usual_min_rating
from recvae.datasets.logs import read_events
from recvae.datasets.reading.log import Reading
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.datasets.splits.base import LIANG_SEED, SPLIT, TARGET_SHARE, Split
from recvae.datasets.splits.protocols import check_protocol
from recvae.datasets.splits.ready_made import other_users, ready_made
from recvae.datasets.synthetic import synthetic_log
from recvae.datasets.titles import read_titles
from recvae.errors import DataError
from recvae.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a log is filtered and split; None is the default for the data.

    Parameters
    ----------
    min_rating : float, optional
        Lowest rating that counts; by default 4 for stars from 1 to 5; on another scale it must be given.
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
    reading : Reading, optional
        What was read, and how.
    """

    dataset: Dataset
    warnings: list[str]
    confirmed: list[str]
    reading: Reading | None = None


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
    force: bool = False,
    progress: Progress | None = None,
    max_memory: int | None = None,
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
    force : bool
        Also if the counts are far from the published ones.
    progress, max_memory
        See `read_events`.

    Returns
    -------
    PreparedDataset
        With a warning for each count that differs from the published one.

    Raises
    ------
    UsageError
        If the source is missing or of another kind.
    DataError
        If it cannot be read, or is another data set by its counts.
    """
    known = known_dataset(known_name)
    ratings, log_format, titles = locate(known, source)
    events = read_events(ratings, log_format, progress=progress, max_memory=max_memory)
    warnings = check_counts(known, events, force)
    if protocol.min_rating is None and events.ratings is not None:
        protocol = replace(protocol, min_rating=known.min_rating)
    if protocol.heldout_users is None and protocol.split == "strong":
        protocol = replace(protocol, heldout_users=known.heldout_users)
    origin = {"name": known.name, "url": known.url, **_origin([ratings], events)}
    names = None if titles is None else read_titles([titles[0]], titles[1])
    dataset = _dataset(events, name or known.name, protocol, origin, names)
    confirmed = (
        [] if warnings else [f"{known.n_events:,} events, {known.n_users:,} users, {known.n_items:,} items read"]
    )
    for what, found, expected in _expected(known, dataset, protocol):
        if found == expected:
            confirmed.append(f"{expected:,} {what}")
        else:
            warnings.append(f"{known.name}: got {found:,} {what}, the published number is {expected:,}")
    return PreparedDataset(dataset, [*warnings, *_doubts(events)], confirmed, events.reading)


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
    paths: Path | str | Sequence[Path | str],
    protocol: Protocol,
    *,
    name: str,
    log_format: LogFormat | None = None,
    titles: Path | None = None,
    titles_format: LogFormat | None = None,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> PreparedDataset:
    """Prepare your own log.

    Parameters
    ----------
    paths : Path or str, or a sequence of these
        Files, folders or globs; see `read_events`.
    protocol : Protocol
        How to filter and split.
    name : str
        Name of the result.
    log_format : LogFormat, optional
        What is known about the files; the rest is guessed.
    titles : Path, optional
        A file with a column of item ids and a column of titles.
    titles_format : LogFormat, optional
        What is known about it.
    progress, max_memory
        See `read_events`.

    Returns
    -------
    PreparedDataset
        With a warning if titles are missing, or an id may mean that there is none.

    Raises
    ------
    UsageError
        If the ratings are no stars from 1 to 5 and no threshold is given.
    UsageError, DataError
        If the log cannot be used.
    """
    sources = [paths] if isinstance(paths, Path | str) else list(paths)
    events = read_events(sources, log_format, progress=progress, max_memory=max_memory)
    names = None if titles is None else read_titles([titles], titles_format)
    reading = events.reading
    assert reading is not None
    columns = {role: getattr(reading.columns, role) for role in LOG}
    origin = {"name": name, **_origin(sources, events), "columns": columns}
    dataset = _dataset(events, name, protocol, origin, names)
    warnings = _doubts(events)
    if dataset.titles is not None:
        missing = sum(title is None for title in dataset.titles)
        warnings += [f"{missing:,} of {len(dataset.titles):,} items have no title in {titles}"] if missing else []
    return PreparedDataset(dataset, warnings, [], reading)


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
    return PreparedDataset(_dataset(replace(events, reading=None), name, protocol, source, names), [], [])


def prepare_pair(
    train: Path,
    test: Path,
    *,
    name: str,
    seed: int = LIANG_SEED,
    log_format: LogFormat | None = None,
    valid: Path | None = None,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> PreparedDataset:
    """Prepare a split made elsewhere; only duplicates are filtered.

    Parameters
    ----------
    train, test : Path
        Lines of `user item item ...` (LightGCN), or logs with a user and an item column.
    name : str
        Name of the result.
    seed : int
        Seed of the draw of validation targets.
    log_format : LogFormat, optional
        What is known about the files.
    valid : Path, optional
        Validation targets of the same users; by default they are drawn from the training file.
    progress, max_memory
        See `read_events`.

    Returns
    -------
    PreparedDataset
        With the items of the training file.

    Raises
    ------
    UsageError, DataError
        If a file cannot be used, or they share nothing.
    """
    files = {"train": train, "test": test, **({} if valid is None else {"valid": valid})}
    parts = _parts(files, log_format, progress, max_memory)
    split = ready_made(parts["train"], parts["test"], seed, validation=parts.get("valid"))
    return _ready_made(split, parts, files, name)


def prepare_parts(
    train: Path,
    valid_fold_in: Path,
    valid_targets: Path,
    test_fold_in: Path,
    test_targets: Path,
    *,
    name: str,
    seed: int = LIANG_SEED,
    log_format: LogFormat | None = None,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> PreparedDataset:
    """Prepare a split made elsewhere whose held-out users are not trained on, as the code of Liang et al. writes it.

    Parameters
    ----------
    train : Path
        The training interactions.
    valid_fold_in, valid_targets, test_fold_in, test_targets : Path
        Known and hidden items of the held-out users.
    name : str
        Name of the result.
    seed : int
        Has no effect: nothing is drawn.
    log_format, progress, max_memory
        See `read_events`.

    Returns
    -------
    PreparedDataset
        With the items of the training file.

    Raises
    ------
    UsageError, DataError
        If a file cannot be used, or they share nothing.
    """
    del seed
    files = {"train": train, "valid_fold_in": valid_fold_in, "valid_targets": valid_targets}
    files |= {"test_fold_in": test_fold_in, "test_targets": test_targets}
    parts = _parts(files, log_format, progress, max_memory)
    held_out = [(parts[f"{part}_fold_in"], parts[f"{part}_targets"]) for part in ("valid", "test")]
    return _ready_made(other_users(parts["train"], *held_out), parts, files, name)


def _parts(
    files: dict[str, Path], log_format: LogFormat | None, progress: Progress | None, max_memory: int | None
) -> dict[str, Events]:
    """Read the files of a split made elsewhere, of which `train` is the first."""
    parts: dict[str, Events] = {}
    log_format = replace(log_format or LogFormat(), lists=True)
    for role, path in files.items():
        events = drop_duplicates(read_events(path, log_format, progress=progress, max_memory=max_memory))
        parts[role] = events
        first = parts["train"]
        if events.item_ids.dtype != first.item_ids.dtype or events.user_ids.dtype != first.user_ids.dtype:
            raise DataError(
                f"{files['train']} and {path} have different types of ids (numbers in one, strings in the other); "
                "use the same ids in both"
            )
    return parts


def _ready_made(split: Split, parts: dict[str, Events], files: dict[str, Path], name: str) -> PreparedDataset:
    origin = {role: _origin([files[role]], events) for role, events in parts.items()}
    reading = parts["train"].reading
    assert reading is not None
    dataset = Dataset.from_split(split, name=name, source={"name": name, **origin, "reading": reading.to_json()})
    return PreparedDataset(dataset, [one for events in parts.values() for one in _doubts(events)], [], reading)


def _doubts(events: Events) -> list[str]:
    return [] if events.reading is None else events.reading.warnings()


def _origin(sources: Sequence[Source | Path | str], events: Events) -> dict[str, Any]:
    """Return the name and checksum of what was read, without folders, which may be private."""
    assert events.reading is not None
    files = events.reading.files
    first = sources[0]
    member = first.member if isinstance(first, Source) else None
    origin: dict[str, Any] = {"file": (first.path if isinstance(first, Source) else Path(first)).name}
    if len(files) == 1:
        origin["sha256"] = files[0].sha256
    else:
        origin["files"] = len(files)
        origin["sha256"] = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
    return origin if member is None else {**origin, "member": member}
