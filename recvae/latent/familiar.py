"""Users of a file whom a model knows from training: by their id, or since their history is a training user's.

A model finds what it was trained on more usual than it is, so that such users look less odd than others do. Only the
same items are found, in any order and with any weights; a history that differs in one item is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recvae.datasets.dataset import Dataset
from recvae.errors import UsageError
from recvae.ids import plain_id, spellings
from recvae.interactions import as_interactions
from recvae.models.common.draws import content_keys


@dataclass(frozen=True, kw_only=True)
class Familiar:
    """Which users a model knows from training.

    Parameters
    ----------
    by_id : ndarray of shape (n_users,), bool, or None
        Whose id is that of a training user; None where the data set has no ids of these.
    by_items : ndarray of shape (n_users,), bool
        Whose items are exactly those of a training user.
    """

    by_id: np.ndarray | None
    by_items: np.ndarray

    @property
    def any(self) -> np.ndarray:
        """Whom it knows by one of the two, shape (n_users,), bool."""
        return self.by_items if self.by_id is None else self.by_items | self.by_id

    def to_json(self) -> dict[str, int | None]:
        """Return how many users there are of each kind; null where that is not known."""
        by_id = None if self.by_id is None else int(self.by_id.sum())
        return {"by_id": by_id, "by_items": int(self.by_items.sum()), "any": int(self.any.sum())}


def familiar_users(users: Sequence[object], rows: sp.csr_matrix, dataset: Dataset) -> Familiar:
    """Find the users whom a model of this data set knows from training.

    Parameters
    ----------
    users : sequence
        Their ids, in any spelling.
    rows : sparse matrix of shape (n_users, n_items)
        Their histories.
    dataset : Dataset
        What the model was trained on.

    Returns
    -------
    Familiar

    Raises
    ------
    UsageError
        If there are not as many ids as rows.
    DataError
        If the items are not those of the data set.
    """
    rows = as_interactions(rows, "the users", dataset.train.shape[1])
    if len(users) != rows.shape[0]:
        raise UsageError(f"got {len(users)} ids for {rows.shape[0]} histories, expected as many of each")
    histories = set(_item_keys(dataset.train))
    by_items = np.array([key in histories for key in _item_keys(rows)], dtype=bool) & (rows.getnnz(axis=1) > 0)
    if dataset.train_user_ids is None:
        return Familiar(by_id=None, by_items=by_items)
    return Familiar(by_id=in_training(users, dataset), by_items=by_items)


def in_training(users: Sequence[object], dataset: Dataset) -> np.ndarray:
    """Return whose id is that of a training user, shape (n_users,), bool; of nobody where none were kept."""
    ids = [] if dataset.train_user_ids is None else dataset.train_user_ids.tolist()
    known = {plain_id(one) for one in ids}
    return np.array([any(text in known for text in spellings(user)) for user in users], dtype=bool)


def _item_keys(rows: sp.csr_matrix) -> list[bytes]:
    """Return what stands for the items of each user, whatever their weights are."""
    ones = np.ones(rows.nnz, np.float32)
    return content_keys(sp.csr_matrix((ones, rows.indices, rows.indptr), shape=rows.shape))
