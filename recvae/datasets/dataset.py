"""A data set to train and evaluate on: matrices, item index, and a manifest that says how it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from recvae.datasets.events import Events, Filters, filter_events, usual_min_rating
from recvae.datasets.features import ItemFeatures, features_for, with_features_of
from recvae.datasets.folder import MANIFEST, read_folder, write_parts
from recvae.datasets.logs import events_of
from recvae.datasets.manifests import check_content, manifest_of_split
from recvae.datasets.reading.options import LogFormat
from recvae.datasets.shown import ShownDataset
from recvae.datasets.splits.base import LIANG_SEED, SPLIT, TARGET_SHARE, Split
from recvae.datasets.splits.protocols import NEEDS_TIMES, split_events
from recvae.datasets.streams import buffer_for, check_in_memory
from recvae.datasets.titles import titles_of
from recvae.errors import UsageError
from recvae.interactions import HeldOut, item_counts_of
from recvae.items import ItemIndex
from recvae.storage.files import check_room, write_folder, write_json

_PARTS = ("validation", "test")


@dataclass(frozen=True, kw_only=True, repr=False)
class Dataset(ShownDataset):
    """Train, validation and test parts of one log under one protocol.

    Parameters
    ----------
    train : csr_matrix of shape (n_train_users, n_items), float32
        The training interactions; a `StreamedMatrix` where they stay on disk, see `load`.
    validation, test : HeldOut
        The held-out users: those evaluated during training, and those evaluated once at the end.
    item_ids : ndarray of shape (n_items,), int64 or object (str)
        External ids of the item columns.
    titles : ndarray of shape (n_items,), object (str or None), optional
        Titles of the items, if known.
    manifest : dict
        Name, source, filters, protocol, counts and fingerprint.
    features : ItemFeatures, optional
        What is known about the items, in their order; see `with_features`.
    train_user_ids : ndarray of shape (n_train_users,), optional
        External ids of the training rows; see `recvae.datasets.joining`.

    Examples
    --------
    >>> from recvae.datasets.synthetic import synthetic_log
    >>> events, titles = synthetic_log(n_users=200, n_items=100, n_events=5000, seed=1)
    >>> dataset = Dataset.from_events(events, name="toy", heldout_users=20)
    >>> dataset.train.shape[0], dataset.test.n_users
    (146, 20)
    """

    train: sp.csr_matrix
    validation: HeldOut
    test: HeldOut
    item_ids: np.ndarray
    titles: np.ndarray | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    features: ItemFeatures | None = None
    train_user_ids: np.ndarray | None = None

    @classmethod
    def from_events(
        cls,
        events: Events,
        *,
        name: str,
        filters: Filters | None = None,
        split: str = SPLIT,
        heldout_users: int | None = None,
        seed: int = LIANG_SEED,
        target_share: float = TARGET_SHARE,
        titles: Mapping[Any, str] | None = None,
        source: dict[str, Any] | None = None,
        features: Any = None,
        consume: bool = False,
    ) -> Self:
        """Filter and split a log.

        Parameters
        ----------
        events : Events
            The log.
        name : str
            Name of the data set.
        filters : Filters, optional
            By default those of the command and the paper: ratings >= 4 if they are stars from 1 to 5, and users with at
            least five items. On any other scale there is no default. `Filters()` keeps every rating.
        split, heldout_users, seed, target_share
            See `recvae.datasets.splits.protocols.split_events`.
        titles : mapping, optional
            Titles by item id; 12, "12" and 12.0 are one id.
        source : dict, optional
            Origin of the log, for the manifest; what was read is added.
        features : Path, str, table or ItemFeatures, optional
            Features of the items; see `with_features`.
        consume : bool
            Whether the columns of `events` may be used up: a long log then takes half the memory.

        Returns
        -------
        Dataset
            With a complete manifest.

        Raises
        ------
        UsageError, DataError
            If filters or protocol are invalid, or leave too little data.
        """
        filters = filters or Filters(min_rating=usual_min_rating(events))
        left, steps = filter_events(events, filters, consume)
        if consume and split not in NEEDS_TIMES:
            left.release("timestamps")
        parts = split_events(left, split, heldout_users=heldout_users, seed=seed, target_share=target_share)
        dataset = cls.from_split(
            parts,
            name=name,
            filters={**asdict(filters), "steps": [asdict(step) for step in steps]},
            titles=titles,
            source=(source or {}) | ({} if events.reading is None else {"reading": events.reading.to_json()}),
        )
        return dataset if features is None else dataset.with_features(features)

    @classmethod
    def from_pandas(
        cls,
        table: Any,
        *,
        name: str = "log",
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        time: str | None = None,
        without: Sequence[str] = (),
        **options: Any,
    ) -> Self:
        """Read, filter and split a table of pandas, polars or Arrow, by the rules that hold for files.

        Parameters
        ----------
        table : pandas.DataFrame, polars.DataFrame or pyarrow.Table
            One row per event.
        name : str
            Name of the data set.
        user, item, rating, time : str, optional
            The columns; by default found by their usual names, as `recvae preprocess` does.
        without : sequence of str
            Columns that are not looked for: "rating", "time".
        **options
            `filters`, `split`, `heldout_users`, `seed`, `target_share`, `titles`, `features`, as in `from_events`.

        Returns
        -------
        Dataset
            Its manifest says which columns were read, and counts the rows that were left out.

        Raises
        ------
        UsageError, DataError
            If the table, the filters or the protocol cannot be used.

        Examples
        --------
        >>> import pandas as pd
        >>> plays = pd.DataFrame({"listener": [1, 1, 2, 2] * 9, "track": list(range(36))})
        >>> dataset = Dataset.from_pandas(plays, user="listener", item="track", split="holdout")
        >>> dataset.train.shape[0]
        2
        """
        log_format = LogFormat(user=user, item=item, rating=rating, time=time, without=tuple(without))
        return cls.from_events(events_of(table, log_format), name=name, **options)

    @classmethod
    def from_split(
        cls,
        split: Split,
        *,
        name: str,
        filters: dict[str, Any] | None = None,
        titles: Mapping[Any, str] | None = None,
        source: dict[str, Any] | None = None,
    ) -> Self:
        """Make a data set of a split, with titles and a manifest.

        Parameters
        ----------
        split : Split
            The matrices, item ids and protocol.
        name : str
            Name of the data set: letters, digits, dots, dashes and underscores.
        filters, source : dict
            For the manifest.
        titles : mapping, optional
            Titles by item id; 12, "12" and 12.0 are one id.

        Returns
        -------
        Dataset
            With a complete manifest.

        Raises
        ------
        UsageError
            If the name cannot be the name of a folder.
        """
        known_titles = None if titles is None else titles_of(split.item_ids.tolist(), titles)
        return cls(
            train=split.train,
            validation=split.validation,
            test=split.test,
            item_ids=split.item_ids,
            titles=known_titles,
            manifest=manifest_of_split(split, name, filters, source),
            train_user_ids=split.train_user_ids,
        )

    def with_features(self, given: Any, *, item: str | None = None, columns: Sequence[str] | None = None) -> Self:
        """Return the same data set with features of its items; its fingerprint stays.

        Parameters
        ----------
        given : Path, str, table or ItemFeatures
            What `recvae preprocess --features` takes; a table of pandas, polars or Arrow; or a matrix that has a row
            for each item, in the order of `item_ids`.
        item : str, optional
            The column of item ids; by default found by its usual names.
        columns : sequence of str, optional
            The columns to read; by default all that can be features.

        Returns
        -------
        Dataset
            Its manifest lists the columns, and what was left out as `warnings`.

        Raises
        ------
        UsageError, DataError
            If the features cannot be used, or belong to other items.

        Examples
        --------
        >>> import pandas as pd
        >>> plays = pd.DataFrame({"user": [1, 1, 2, 2] * 9, "item": list(range(36))})
        >>> dataset = Dataset.from_pandas(plays, split="holdout")
        >>> dataset = dataset.with_features(pd.DataFrame({"item": range(36), "genre": ["Drama", "Crime"] * 18}))
        >>> dataset.features.names
        ('genre=Crime', 'genre=Drama')
        """
        features, remarks = features_for(given, self.item_ids, self.name, LogFormat(item=item), columns)
        manifest = {**self.manifest, "features": {**features.to_json(), "warnings": remarks}}
        return replace(self, features=features, manifest=manifest)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return str(self.manifest.get("name", "unnamed"))

    @property
    def fingerprint(self) -> str:
        """A hash of all matrices and item ids: metrics of two runs are comparable only if it is the same."""
        return str(self.manifest.get("fingerprint", ""))

    @property
    def items(self) -> ItemIndex:
        """The item index, with the number of training users of each item."""
        return ItemIndex(ids=self.item_ids, titles=self.titles, train_counts=item_counts_of(self.train))

    def part(self, name: str) -> HeldOut:
        """Return the held-out users of "validation" or "test".

        Raises
        ------
        UsageError
            If `name` is neither.
        """
        if name not in _PARTS:
            raise UsageError(f"got split '{name}', expected one of: {', '.join(_PARTS)}")
        return self.test if name == "test" else self.validation

    def save(self, folder: Path | str, *, shards: bool = False) -> None:
        """Write the data set to a folder, completely or not at all, replacing an existing data set.

        Parameters
        ----------
        folder : Path or str
            Its name need not be that of the data set.
        shards : bool
            Whether to write the matrices in several files, from which `load` can stream the training rows.

        Raises
        ------
        UsageError, StorageError
            If its training rows are streamed, its manifest is of other matrices, or it cannot be written.
        """
        check_in_memory(self.train, "save")
        check_content(self.manifest, self.train, self.validation, self.test, self.item_ids)
        matrices = [self.train, *(one for name in _PARTS for one in (self.part(name).fold_in, self.part(name).targets))]
        check_room(Path(folder), sum(one.data.nbytes + one.indices.nbytes + one.indptr.nbytes for one in matrices))
        with write_folder(Path(folder), MANIFEST) as aside:
            parts = {name: self.part(name) for name in _PARTS}
            listed = write_parts(aside, self.train, self.train_user_ids, parts, in_shards=shards)
            self.items.write(aside / "items.parquet")
            if self.features is not None:
                self.features.write(aside)
            write_json(aside / MANIFEST, with_features_of(self.manifest, self.features) | listed)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        stream: bool = False,
        buffer: int | None = None,
        max_memory: int | None = None,
    ) -> Self:
        """Read a data set and check that it is intact.

        Parameters
        ----------
        folder : Path or str
            A data set written by `save` or `recvae preprocess`.
        stream : bool
            Whether the training rows stay on disk, in shards; models with `streams` are fitted to them.
        buffer : int, optional
            With `stream`: bytes of training rows in memory (10^9); where that is not all, the order depends on it.
        max_memory : int, optional
            Bytes that the matrices of a data set in shards may take in memory; by default what is free.

        Raises
        ------
        UsageError, DataError, MemoryLimitError
            If there is no data set; if it is damaged, unfinished or of a newer format; if it shall be streamed and is
            not in shards; if its shards do not fit into memory.
        """
        return cls(**read_folder(Path(folder), buffer_for(stream, buffer), max_memory))
