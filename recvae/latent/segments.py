"""Groups of users in the latent space: k-means on their vectors, named by what sets them apart.

    lift of an item in a group = (share of the group's users who have it) / (share of all users who have it)

An item belongs to the group in which its lift is highest; one that few users have belongs to none.

How stable the groups are is how much k-means with other seeds agrees with them: the adjusted Rand index, 1 for the
same groups, 0 for no more than chance. Groups that other seeds do not find are not in the data.

Letters in shape comments: U users, I items, D width of a vector.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.display import plural
from recvae.errors import DataError, UsageError, requires_extra
from recvae.interactions import as_interactions
from recvae.latent.vectors import item_vectors_of
from recvae.models.common.base import Model
from recvae.models.common.draws import check_seed
from recvae.progress import Progress, part_of

_USERS_EACH = 10  # at least, on average
_LEAST_SHARE = 0.1  # of a group's users, who have an item that it is named by
_STARTS = 4  # of k-means, of which the best is kept
_EMBEDDING = 0.3  # of the work, about
LEAST_USERS = 10
"""Users that an item must have to belong to a group or to name one, and a group to be named: of fewer, it is chance."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A group of users.

    Parameters
    ----------
    n_users : int
        How many.
    share : float
        Of all users.
    mean_length : float
        Mean number of items of its users.
    items : ndarray of shape (n_named,), int64
        Columns of the items it is named by, highest lift first; none of an item or a group of fewer than 10 users.
    lifts, shares : ndarray of shape (n_named,), float64
        Lift of each, and the share of the group's users who have it.
    """

    n_users: int
    share: float
    mean_length: float
    items: np.ndarray
    lifts: np.ndarray
    shares: np.ndarray

    @property
    def is_small(self) -> bool:
        """Whether it has too few users to be named, see `LEAST_USERS`."""
        return self.n_users < LEAST_USERS


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Groups of users.

    Parameters
    ----------
    labels : ndarray of shape (n_users,), int64
        Group of each user; the largest group is 0.
    segments : list of Segment
        By label.
    stability : float
        Mean adjusted Rand index with k-means of other seeds, at most 1.
    vectors : ndarray of shape (n_users, width), float32
        What was grouped.
    item_labels : ndarray of shape (n_items,), int64
        The group in which each item has the highest lift; -1 for an item that fewer than 10 users have.
    item_vectors : ndarray of shape (n_items, width), float32, or None
        Vectors of the items, for a map of them; None where the model has none.
    """

    labels: np.ndarray
    segments: list[Segment]
    stability: float
    vectors: np.ndarray
    item_labels: np.ndarray
    item_vectors: np.ndarray | None


def find_segments(
    model: Model,
    users: sp.csr_matrix,
    n: int = 8,
    *,
    named_by: int = 3,
    seeds: int = 5,
    seed: int = 0,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Segments:
    """Group users by their vectors.

    Parameters
    ----------
    model : Model
        Fitted, with user embeddings: an autoencoder, als or ials.
    users : sparse matrix of shape (n_users, n_items)
        Their histories; each should have one.
    n : int
        How many groups, 2 or more.
    named_by : int
        Items that a group is named by, 1 or more.
    seeds : int
        How many other seeds of k-means to compare with, 1 or more.
    seed : int
        Of k-means, 0 or more.
    max_memory : int, optional
        Bytes that scoring may take.
    progress : Progress, optional
        Called with how much is done, in per cent, and what is being done.

    Returns
    -------
    Segments

    Raises
    ------
    UsageError
        If the model has no user embeddings, a parameter is out of range, or scikit-learn is missing.
    DataError
        If there are fewer than ten users for each group, or fewer different users than groups.
    NotFittedError
        Before `fit`.
    """
    if not model.has_embeddings:
        raise UsageError(f"got {model.name}, which has no vectors of users to group; use an autoencoder, als or ials")
    for name, value, least in (("groups", n, 2), ("named_by", named_by, 1), ("seeds", seeds, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"got {name}={value!r}, expected a whole number >= {least}; give one")
    check_seed(seed)
    model.check_fitted()
    rows = as_interactions(users, "the users", model.n_items_)
    if rows.shape[0] < _USERS_EACH * n:
        raise DataError(
            f"got {plural(rows.shape[0], 'user')} for {n} groups, expected {_USERS_EACH * n} or more users; ask for "
            "fewer groups" + (f", at most {rows.shape[0] // _USERS_EACH}" if rows.shape[0] >= 2 * _USERS_EACH else "")
        )
    embedding = part_of(progress, 0, _EMBEDDING, "codes of users")
    vectors = model.embed(rows, max_memory=max_memory, progress=embedding)  # (U, D)
    if not np.isfinite(vectors).all():
        raise DataError("got vectors of users that are NaN or infinite, expected numbers; train the run again")
    with requires_extra("latent", "grouping users"):
        from sklearn.metrics import adjusted_rand_score
    grouping = part_of(progress, _EMBEDDING, 1, "k-means, seed by seed")
    found = []
    for step in range(1 + seeds):
        found.append(_clusters(vectors, n, seed + step))
        if (different := found[0].max() + 1) < n:
            raise DataError(
                f"got users with only {different} different vectors, expected {n} or more; ask for fewer groups"
            )
        if grouping is not None:
            grouping(step + 1, 1 + seeds, "")
    labels, *others = found
    return Segments(
        labels=labels,
        segments=[_segment(rows, labels == label, named_by) for label in range(n)],
        stability=float(np.mean([adjusted_rand_score(labels, other) for other in others])),
        vectors=vectors,
        item_labels=_of_items(rows, labels),
        item_vectors=item_vectors_of(model),
    )


def _clusters(vectors: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return the group of each user, (n_users,), the largest first."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of too few different vectors, which are refused
        found: Any = KMeans(n, n_init=_STARTS, random_state=seed).fit_predict(vectors)  # type: ignore[arg-type]
    order = np.argsort(-np.bincount(found, minlength=n), kind="stable")
    places = np.empty(n, np.int64)
    places[order] = np.arange(n)
    return places[found]


def _shares(rows: sp.csr_matrix) -> np.ndarray:
    return np.bincount(rows.indices, minlength=rows.shape[1]) / rows.shape[0]  # (I,)


def _of_items(rows: sp.csr_matrix, labels: np.ndarray) -> np.ndarray:
    """Return the group in which each item has the highest lift, (n_items,), -1 where that is chance."""
    highest, found = np.zeros(rows.shape[1]), np.zeros(rows.shape[1], np.int64)  # (I,), (I,)
    for label in range(labels.max() + 1):
        shares = _shares(rows[np.flatnonzero(labels == label)])  # the lift times what is the same in all groups
        found[shares > highest] = label
        highest = np.maximum(highest, shares)
    found[np.bincount(rows.indices, minlength=rows.shape[1]) < LEAST_USERS] = -1
    return found


def _segment(rows: sp.csr_matrix, chosen: np.ndarray, named_by: int) -> Segment:
    part = rows[np.flatnonzero(chosen)]
    shares, overall = _shares(part), _shares(rows)  # (I,), (I,)
    lifts = shares / np.maximum(overall, 1e-12)
    enough = (overall * rows.shape[0] > LEAST_USERS - 0.5) & (part.shape[0] >= LEAST_USERS)  # (I,)
    common = np.flatnonzero(enough & (shares >= _LEAST_SHARE) & (lifts > 1))  # a group of short histories may have none
    top = common[np.argsort(-lifts[common], kind="stable")[:named_by]]
    return Segment(
        n_users=part.shape[0],
        share=part.shape[0] / rows.shape[0],
        mean_length=float(part.getnnz(axis=1).mean()),
        items=top.astype(np.int64),
        lifts=lifts[top],
        shares=shares[top],
    )
