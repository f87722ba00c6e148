"""How a log is filtered and split, and the data set that comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recvae.datasets.catalog.entry import KnownDataset
from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events, Filters, usual_min_rating
from recvae.datasets.reading.report import Reading
from recvae.datasets.splits.base import LIANG_SEED, SPLIT, TARGET_SHARE
from recvae.datasets.splits.protocols import check_protocol


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
    others : mapping of str to Reading
        The same of the other files of a split made elsewhere, by the name of the part, e.g. "test".
    """

    dataset: Dataset
    warnings: list[str]
    confirmed: list[str]
    reading: Reading | None = None
    others: Mapping[str, Reading] = field(default_factory=dict)


def usual_protocol(known: KnownDataset, **chosen: Any) -> Protocol:
    """Return the protocol of the papers that use a data set.

    Parameters
    ----------
    known : KnownDataset
        The data set.
    chosen : Any
        Fields of `Protocol` that differ from the usual ones.

    Returns
    -------
    Protocol
        Where `min_rating` and `heldout_users` are open, `prepare_known` fills them in.

    Raises
    ------
    UsageError
        If a field is wrong for any data.
    """
    usual = {"min_user_items": known.min_user_items, "min_item_users": known.min_item_users, "split": known.split}
    return Protocol(**(usual | chosen))


def prepared(
    events: Events, name: str, protocol: Protocol, source: dict[str, Any], titles: dict[str, str] | None
) -> Dataset:
    """Filter and split a log by a protocol.

    Parameters
    ----------
    events : Events
        The log.
    name : str
        Name of the data set.
    protocol : Protocol
        How to filter and split.
    source : dict
        Origin of the log, for the manifest.
    titles : dict of str to str, optional
        Titles by item id.

    Returns
    -------
    Dataset
        The data set, which is not written yet.

    Raises
    ------
    UsageError
        If the ratings are no stars from 1 to 5 and the protocol has no threshold.
    DataError
        If too little is left.
    """
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
        consume=True,
    )
