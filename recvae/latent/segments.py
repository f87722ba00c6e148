"""Groups of users in the latent space: k-means on their vectors, named by what sets them apart.

    lift of an item in a group = (share of the group's users who have it) / (share of all users who have it)

How stable the groups are is how much k-means with other seeds agrees with them: the adjusted Rand index, 1 for the
same groups, 0 for no more than chance. Groups that other seeds do not find are not in the data.

Letters in shape comments: U users, I items, D width of a vector.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from recvae.errors import DataError, UsageError, requires_extra
from recvae.interactions import as_interactions
from recvae.models.common.base import Model
from recvae.models.common.codes import check_seed
from recvae.progress import Progress, part_of

PROJECTIONS = ("pca", "umap")
_USERS_EACH = 10  # at least, on average
_LEAST_SHARE = 0.1  # of a group's users, who have an item that it is named by
_STARTS = 4  # of k-means, of which the best is kept
_EMBEDDING = 0.3  # of the work, about


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
        Columns of the items it is named by, highest lift first.
    lifts, shares : ndarray of shape (n_named,), float64
        Lift of each, and the share of the group's users who have it.
    """

    n_users: int
    share: float
    mean_length: float
    items: np.ndarray
    lifts: np.ndarray
    shares: np.ndarray


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
    """

    labels: np.ndarray
    segments: list[Segment]
    stability: float
    vectors: np.ndarray


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
        If there are fewer than ten users for each group.
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
            f"got {rows.shape[0]} users for {n} groups, expected {_USERS_EACH * n} or more; ask for fewer groups"
        )
    embedding = part_of(progress, 0, _EMBEDDING, "codes of users")
    vectors = model.embed(rows, max_memory=max_memory, progress=embedding)  # (U, D)
    with requires_extra("latent", "grouping users"):
        from sklearn.metrics import adjusted_rand_score
    grouping = part_of(progress, _EMBEDDING, 1, "k-means, seed by seed")
    found = []
    for step in range(1 + seeds):
        found.append(_clusters(vectors, n, seed + step))
        if grouping is not None:
            grouping(step + 1, 1 + seeds, "")
    labels, *others = found
    return Segments(
        labels=labels,
        segments=[_segment(rows, labels == label, named_by) for label in range(labels.max() + 1)],
        stability=float(np.mean([adjusted_rand_score(labels, other) for other in others])),
        vectors=vectors,
    )


def project(vectors: np.ndarray, how: str = "pca", *, seed: int = 0) -> np.ndarray:
    """Return vectors in two dimensions, for a map.

    Parameters
    ----------
    vectors : ndarray of shape (n, width)
        Of users or items, three or more.
    how : str
        "pca": the two directions in which they differ most; "umap": neighbours stay neighbours, distances say nothing
        (needs the package umap-learn).
    seed : int
        Of UMAP.

    Returns
    -------
    ndarray of shape (n, 2), float64

    Raises
    ------
    UsageError
        If there is no such way, or its package is missing.
    DataError
        If there are fewer than three vectors, or they have fewer than two dimensions.
    """
    if how not in PROJECTIONS:
        raise UsageError(f"got projection {how!r}, expected one of {', '.join(PROJECTIONS)}")
    if len(vectors) < 3 or vectors.shape[1] < 2:
        raise DataError(f"got vectors of shape {vectors.shape}, expected 3 or more of 2 or more dimensions for a map")
    if how == "umap":
        with requires_extra("umap", "a map by UMAP"):
            from umap import UMAP  # type: ignore[import-not-found]
        return np.asarray(UMAP(random_state=seed, n_jobs=1).fit_transform(vectors), dtype=np.float64)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # (D, D), in order of what they explain, least first
    axes = directions[:, :-3:-1]  # (D, 2)
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # not by the toss of a library's coin
    return centred @ axes  # (n, 2)


def _clusters(vectors: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return the group of each user, (n_users,), the largest first."""
    from sklearn.cluster import KMeans

    found: Any = KMeans(n, n_init=_STARTS, random_state=seed).fit_predict(vectors)  # type: ignore[arg-type]
    order = np.argsort(-np.bincount(found, minlength=n), kind="stable")
    places = np.empty(n, np.int64)
    places[order] = np.arange(n)
    return places[found]


def _segment(rows: sp.csr_matrix, chosen: np.ndarray, named_by: int) -> Segment:
    part = rows[np.flatnonzero(chosen)]
    n_items, n_users = rows.shape[1], part.shape[0]
    of_all = np.bincount(rows.indices, minlength=n_items) / rows.shape[0]  # (I,)
    shares = np.bincount(part.indices, minlength=n_items) / max(n_users, 1)
    lifts = shares / np.maximum(of_all, 1e-12)
    common = np.flatnonzero((shares >= _LEAST_SHARE) & (lifts > 1))  # a group of short histories may have none
    top = common[np.argsort(-lifts[common], kind="stable")[:named_by]]
    return Segment(
        n_users=n_users,
        share=n_users / rows.shape[0],
        mean_length=float(part.getnnz(axis=1).mean()) if n_users else 0.0,
        items=top.astype(np.int64),
        lifts=lifts[top],
        shares=shares[top],
    )
