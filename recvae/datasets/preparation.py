"""From a name or a file to a data set: reading, filtering, splitting and the manifest, in one call."""

import html
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recvae.datasets.catalog.entry import KnownDataset
from recvae.datasets.catalog.known import both, check_counts, known_dataset, locate
from recvae.datasets.columns import LOG
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events
from recvae.datasets.logs import read_events
from recvae.datasets.made_elsewhere import doubts_of, made_elsewhere, origin_of, read_parts, shared_users
from recvae.datasets.protocol import PreparedDataset, Protocol, prepared, usual_protocol
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.datasets.splits.base import LIANG_SEED
from recvae.datasets.splits.ready_made import other_users, ready_made
from recvae.datasets.synthetic import synthetic_log
from recvae.datasets.titles import read_titles
from recvae.progress import Progress


def prepare_known(
    known_name: str,
    protocol: Protocol | None = None,
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
        A name of `recvae.datasets.catalog.known.CATALOG`, or NAME:PART.
    protocol : Protocol, optional
        How to filter and split; by default `usual_protocol`. A ready-made pair takes only its seed.
    source : Path
        Its folder, zip, tar or file.
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
    protocol = protocol or usual_protocol(known)
    name = name or known.folder_name
    with tempfile.TemporaryDirectory(prefix="recvae-") as folder:
        scratch = Path(folder)
        log, log_format, titles = locate(known, source, scratch)
        if known.is_pair:
            test, _, _ = locate(replace(known, ratings=known.test), source, scratch)
            parts = read_parts({"train": log, "test": test}, log_format, progress, max_memory)
            return _known_pair(known, parts, {"train": log, "test": test}, name, protocol.seed, force)
        events = read_events(log, log_format, progress=progress, max_memory=max_memory)
        warnings = check_counts(known, events, force)
        names = None if titles is None else read_titles([titles[0]], titles[1])
        origin = {"name": known.name, "url": known.url, **origin_of([log], events)}
        if log.path.is_relative_to(scratch):
            origin["file"] = source.name
    if known.has_entities and names is not None:
        names = {item: html.unescape(title) for item, title in names.items()}
    if protocol.min_rating is None and events.ratings is not None:
        protocol = replace(protocol, min_rating=known.min_rating)
    if protocol.heldout_users is None and protocol.split == "strong":
        protocol = replace(protocol, heldout_users=known.heldout_users)
    dataset = prepared(events, name, protocol, origin, names)
    confirmed = _confirmed(known, warnings)
    for what, found, expected in _expected(known, dataset, protocol):
        if found == expected:
            confirmed.append(f"{expected:,} {what}")
        else:
            warnings.append(f"{known.name}: got {found:,} {what}, the published number is {expected:,}")
    return PreparedDataset(dataset, [*warnings, *doubts_of(events)], confirmed, events.reading)


def _known_pair(
    known: KnownDataset, parts: dict[str, Events], files: dict[str, Source], name: str, seed: int, force: bool
) -> PreparedDataset:
    warnings = check_counts(known, both(parts["train"], parts["test"]), force)
    split = ready_made(parts["train"], parts["test"], seed)
    prepared_pair = made_elsewhere(split, parts, files, name, {"name": known.name, "url": known.url})
    return replace(
        prepared_pair,
        warnings=[*warnings, *prepared_pair.warnings],
        confirmed=_confirmed(known, warnings),
    )


def _confirmed(known: KnownDataset, warnings: list[str]) -> list[str]:
    """Return the published counts in one line, if all of them were found."""
    published = {"events": known.n_events, "users": known.n_users, "items": known.n_items}
    counts = [f"{count:,} {what}" for what, count in published.items() if count is not None]
    return [f"{', '.join(counts)} read"] if counts and not warnings else []


def _expected(known: KnownDataset, dataset: Dataset, protocol: Protocol) -> list[tuple[str, int, int]]:
    """Return (what, found, expected) for each published count that this protocol should reproduce."""
    usual = usual_protocol(known, heldout_users=known.heldout_users, min_rating=known.min_rating)
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
    remarks: list[str] = []
    names = None if titles is None else read_titles([titles], titles_format, remarks)
    reading = events.reading
    assert reading is not None
    columns = {role: getattr(reading.columns, role) for role in LOG}
    origin = {"name": name, **origin_of(sources, events), "columns": columns}
    dataset = prepared(events, name, protocol, origin, names)
    warnings = [*doubts_of(events), *remarks]
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
    return PreparedDataset(prepared(replace(events, reading=None), name, protocol, source, names), [], [])


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
    parts = read_parts(files, log_format, progress, max_memory)
    split = ready_made(parts["train"], parts["test"], seed, validation=parts.get("valid"))
    return made_elsewhere(split, parts, files, name)


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
    parts = read_parts(files, log_format, progress, max_memory)
    held_out = [(parts[f"{part}_fold_in"], parts[f"{part}_targets"]) for part in ("valid", "test")]
    split = other_users(parts["train"], *held_out)
    return made_elsewhere(split, parts, files, name, remarks=shared_users(split))
