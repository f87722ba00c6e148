"""The data set that a model was fitted on: what it keeps of it, and what `fit` takes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recvae.display import one_line
from recvae.errors import DataError, UsageError
from recvae.interactions import StoredRows
from recvae.items import ItemIndex

if TYPE_CHECKING:  # a service loads models without what prepares data
    pass


@dataclass(frozen=True, kw_only=True)
class FittedOn:
    """What a model keeps of its data set: no interactions, but what recommending by ids needs.

    Parameters
    ----------
    items : ItemIndex
        Ids, titles and training counts of the columns.
    manifest : dict
        Manifest of the data set.
    """

    items: ItemIndex = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return one_line(self.manifest.get("name", "unnamed data"))

    def is_same(self, manifest: Mapping[str, Any], item_ids: np.ndarray) -> bool:
        """Whether this is the data set with that manifest and those ids (n_items,)."""
        return self.manifest.get("fingerprint") == manifest.get("fingerprint") and self.has_items(item_ids)

    def has_items(self, item_ids: np.ndarray) -> bool:
        """Whether its columns are these items: ids of shape (n_items,)."""
        return len(self.items.ids) == len(item_ids) and self.items.ids.tolist() == item_ids.tolist()


def training_data(train: Any, validation: Any) -> tuple[Any, Any, FittedOn | None]:
    """Return the interactions and validation users of what `fit` was given, and of a data set what the model keeps.

    Parameters
    ----------
    train : Dataset or sparse matrix
        A data set is taken apart: its training rows and its validation users.
    validation : HeldOut or tuple, optional
        Not with a data set, which has its own.

    Raises
    ------
    UsageError
        If both have validation users, or it is a path or a table.
    """
    if sp.issparse(train) or isinstance(train, StoredRows):
        return train, validation, None
    from recvae.datasets.dataset import Dataset

    if isinstance(train, str | Path):
        raise UsageError(f"got the path {train} to train on, expected a Dataset; load it: Dataset.load({str(train)!r})")
    if hasattr(train, "columns"):  # a log as a table, which as a matrix would be something else
        kind = type(train).__name__
        raise UsageError(f"got a {kind} to train on, expected a Dataset; make one of a log: Dataset.from_pandas(table)")
    if not isinstance(train, Dataset):
        return train, validation, None  # which is refused where matrices are checked
    if validation is not None:
        raise UsageError(
            f"got validation users with the data set {train.name}, which has its own; leave them out, or give "
            "fit(dataset.train, validation)"
        )
    return train.train, train.validation, FittedOn(items=train.items, manifest=train.manifest)


def check_parts_data(parts: Mapping[str, Any], data: FittedOn | None) -> None:
    """Refuse to fit what is made of other models to a data set that one of these was not fitted on.

    Parameters
    ----------
    parts : mapping of str to Model
        By role.
    data : FittedOn or None
        What the whole is fitted on; None for a plain matrix.

    Raises
    ------
    DataError
        If a part is known to be fitted on other data.
    """
    for role, part in parts.items():
        theirs = part.fitted_on_ if part.n_items_ else None
        if data is not None and theirs is not None and not theirs.is_same(data.manifest, data.items.ids):
            raise DataError(
                f"the {role} part, {part.name}, was fitted on {theirs.name} as it was then, and not on {data.name} as "
                "it is now; fit it again on the same data set"
            )
