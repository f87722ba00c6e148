"""Splits made elsewhere: the files of their parts as events, and the data set, with what was read of every file."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, drop_duplicates
from recvae.datasets.logs import read_events
from recvae.datasets.protocol import PreparedDataset
from recvae.datasets.reading.dialects import looks_like_lists
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.reading.sources import Source
from recvae.datasets.splits.base import Split
from recvae.errors import DataError
from recvae.progress import Progress


def read_parts(
    files: Mapping[str, Path | Source], log_format: LogFormat | None, progress: Progress | None, max_memory: int | None
) -> dict[str, Events]:
    """Read the files of a split made elsewhere, of which `train` is the first; each pair of user and item is kept once.

    Raises
    ------
    DataError
        If the ids of two files are of different types, or one cannot be read.
    """
    parts: dict[str, Events] = {}
    form = log_format or LogFormat()
    of_tables = (form.separator, form.header, form.quote, form.time_format, *form.columns.values())
    may_be_lists = all(one is None for one in of_tables) and not form.without
    for role, path in files.items():
        one = replace(form, lists=form.lists or looks_like_lists(path)) if may_be_lists else form
        events = drop_duplicates(read_events(path, one, progress=progress, max_memory=max_memory))
        parts[role] = events
        first = parts["train"]
        if events.item_ids.dtype != first.item_ids.dtype or events.user_ids.dtype != first.user_ids.dtype:
            raise DataError(
                f"{_shown(files['train'])} and {_shown(path)} have different types of ids (numbers in one, strings in "
                "the other); use the same ids in both"
            )
    return parts


def _shown(file: Path | Source) -> str:
    return file.name if isinstance(file, Source) else str(file)


def made_elsewhere(
    split: Split,
    parts: Mapping[str, Events],
    files: Mapping[str, Path | Source],
    name: str,
    source: dict[str, Any] | None = None,
    remarks: Sequence[str] = (),
) -> PreparedDataset:
    """Return the data set of such a split.

    Parameters
    ----------
    split : Split
        What was made of the parts.
    parts, files : mapping
        What was read, and from where, by the name of the part; see `read_parts`.
    name : str
        Of the data set.
    source : dict, optional
        Where it is from, for the manifest.
    remarks : sequence of str
        What a person should know.
    """
    readings = {role: events.reading for role, events in parts.items() if events.reading is not None}
    others = {role: reading for role, reading in readings.items() if role != "train"}
    origin = {role: origin_of([files[role]], events) for role, events in parts.items()}
    for role, reading in others.items():
        origin[role]["reading"] = reading.to_json()
    repeated = {
        f"{role.replace('_', ' ')} events that repeat another": reading.events - len(parts[role])
        for role, reading in readings.items()
        if reading.events > len(parts[role])
    }
    dataset = Dataset.from_split(
        replace(split, dropped=split.dropped | repeated),
        name=name,
        source={**(source or {"name": name}), **origin, "reading": readings["train"].to_json()},
    )
    doubts = [one for events in parts.values() for one in doubts_of(events)]
    return PreparedDataset(dataset, [*doubts, *remarks], [], readings["train"], others)


def shared_users(split: Split) -> list[str]:
    """Return remarks on held-out users who have the id of a training user, and on their targets in training."""
    remarks = []
    for name, part in (("validation", split.validation), ("test", split.test)):
        rows = pd.Index(split.train_user_ids).get_indexer(pd.Index(part.user_ids))  # (U,) -1 where there is none
        if (rows >= 0).any():
            n_seen = split.train[rows[rows >= 0]].multiply(part.targets[rows >= 0]).nnz
            seen = f"; targets of theirs that were trained on: {n_seen:,}" if n_seen else ""
            remarks.append(
                f"{(rows >= 0).sum():,} of {part.n_users:,} {name} users are training users too, by their ids{seen}"
            )
    return remarks


def doubts_of(events: Events) -> list[str]:
    """Return what a person should look at again in what was read."""
    return [] if events.reading is None else events.reading.warnings()


def origin_of(sources: Sequence[Source | Path | str], events: Events) -> dict[str, Any]:
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
