"""What vectors of items or users know of features that no model was told, such as genres or age: linear probes.

A logistic regression tells items with a feature from those without it, by their vectors alone. It is measured on items
that it was not fitted on. It is the same with users in place of items. The ROC-AUC is the chance that an item with the
feature is ranked above one without it: .5 is guessing, 1 is perfect. A vector that a straight cut can read has the
feature in it; a low value does not say that the feature is absent, only that it is not on a straight line.

How sure the mean over features is, a bootstrap over items (or users) says, for the fits as they are. Fits on other
items would vary too, which it does not count: where nothing can be read, such an interval holds .5 less often than it
should (`benchmarks/probe_intervals.py`). So compare with random numbers. Vectors that are probed with the same features
and seed are compared item by item; see `Probe.difference`.

Letters in shape comments: I items or users, D width of a vector, F features, P items with the feature in a fold, Q
without, R rows of weights of the items.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from recvae.datasets.features import ItemFeatures
from recvae.errors import DataError, UsageError, requires_extra

PENALTIES = (1e-3, 1e-2, 1e-1)
"""Inverse strengths of the L2 penalty, of which an inner cross-validation takes the best for each fit."""

RESAMPLES = 1000
"""Of the bootstrap over items."""

_INNER_FOLDS = 3
_AT_A_TIME = 64  # resamples, so that what is multiplied stays small
_BOUNDS = (2.5, 97.5)  # of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How well features are read from vectors of items or users.

    Parameters
    ----------
    names : tuple of str
        The features that were probed.
    left_out : tuple of str
        Features that too few items (or users) have, or that too few lack.
    aucs : ndarray of shape (n_features,), float64
        ROC-AUC of each.
    n_items, width : int
        How many items (or users), and how wide a vector is.
    resampled : ndarray of shape (n_resamples,), float64
        The mean over features when items are drawn again with replacement. Without a feature of which no item with it,
        or none without it, is drawn.
    key : tuple
        Features, folds and seed; probes with the same key are compared item by item.
    """

    names: tuple[str, ...]
    left_out: tuple[str, ...]
    aucs: np.ndarray
    n_items: int
    width: int
    resampled: np.ndarray = field(repr=False)
    key: tuple[Any, ...] = field(repr=False)

    @property
    def mean(self) -> float:
        """Mean of the ROC-AUC over features."""
        return float(self.aucs.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over items (or users) for the same fits: percentiles of the bootstrap."""
        low, high = np.percentile(self.resampled, _BOUNDS)
        return float(low), float(high)

    def difference(self, other: "Probe") -> tuple[float, float, float]:
        """Return by how much this mean is above another, and the 95 % interval of it, for the same items.

        Parameters
        ----------
        other : Probe
            Of other vectors of the same items, with the same features, folds and seed.

        Raises
        ------
        UsageError
            If it is of other items, features, folds or another seed.
        """
        if self.key != other.key:
            raise UsageError("got probes of different features, folds or seeds, expected the same; probe both alike")
        low, high = np.percentile(self.resampled - other.resampled, _BOUNDS)
        return self.mean - other.mean, float(low), float(high)


def probe(
    vectors: np.ndarray,
    features: ItemFeatures | sp.csr_matrix | np.ndarray | pd.DataFrame | Sequence[Sequence[float]],
    names: Sequence[str] | None = None,
    *,
    of: Literal["items", "users"] = "items",
    folds: int = 5,
    least: int = 20,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Probe:
    """Measure how well features are read from vectors of items or users by logistic regression.

    Each number of a vector is standardised first. The strength of the penalty is chosen within the items that are
    fitted on. ROC-AUC is taken within each fold, since two fits have no common scale.

    Parameters
    ----------
    vectors : ndarray of shape (n_items, width) or (n_users, width)
        A vector for each item, such as `model.item_embeddings()`, or for each user, such as
        `model.embed(dataset.train)`.
    features : ItemFeatures, or matrix, table or nested lists of shape (n_items, n_features) or (n_users, n_features)
        1 for an item that has the feature, 0 for others, such as `dataset.features`; of users in the order of the
        vectors, which for those of training is that of `dataset.train_user_ids`.
    names : sequence of str, optional
        Which features to probe, by default all of them; of a matrix without names, names for its columns.
    of : {"items", "users"}
        Whose vectors they are, for messages.
    folds : int
        Parts of the items, each measured with a fit on the others, 2 or more.
    least : int
        Items that must have a feature, and that must lack it; others are left out. At least twice the folds, and 6, so
        that each of the folds, and of the three within the others, has some of both kinds.
    resamples : int
        Of the bootstrap over items, 100 or more.
    seed : int
        Of folds and resamples, 0 or more.

    Returns
    -------
    Probe

    Raises
    ------
    UsageError
        If a parameter is out of range, a name is unknown, or scikit-learn is missing.
    DataError
        If vectors or features cannot be used, or no feature has enough items.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((200, 4))
    >>> found = probe(vectors, (vectors[:, :1] > 0), ["first is positive"], resamples=100)
    >>> found.names, found.mean > 0.9
    (('first is positive',), True)
    """
    if of not in ("items", "users"):
        raise UsageError(f"got of={of!r}, expected 'items' or 'users': whose vectors they are")
    check_options(folds, least, resamples, seed)
    points = _as_array(vectors, "vectors", of)
    if points.ndim != 2 or points.dtype.kind not in "fiu" or not points.size:
        raise DataError(f"got vectors of shape {points.shape}, expected numbers of shape (n_{of}, width)")
    if not np.isfinite(points).all():
        raise DataError(f"got {of[:-1]} vectors that are not finite, expected numbers; look for NaN in them")
    labels, known = _labels(features, names, len(points), of)
    counts = np.diff(labels.indptr)  # (F,)
    enough = np.minimum(counts, len(points) - counts) >= least
    if not enough.any():
        raise DataError(f"got no feature that {least} {of} have and {least} lack; probe others, or lower `least`")
    labels = labels[:, np.flatnonzero(enough)]  # (I, F)
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + resamples, len(points)), np.int16)  # (1 + R, I), the first of them all items once
    for row in weights[1:]:
        row[:] = rng.multinomial(len(points), np.full(len(points), 1 / len(points)))
    with requires_extra("latent", "probing item vectors"):
        import sklearn  # noqa: F401
        from threadpoolctl import threadpool_limits
    with threadpool_limits(1):  # in fits this small threads wait for one another: six times as long with two
        found = [_of_feature(points, _column(labels, n), weights, folds, seed) for n in range(labels.shape[1])]
    aucs = np.stack(found, axis=1)  # (1 + R, F)
    return Probe(
        names=tuple(name for name, kept in zip(known, enough, strict=True) if kept),
        left_out=tuple(name for name, kept in zip(known, enough, strict=True) if not kept),
        aucs=aucs[0],
        n_items=len(points),
        width=points.shape[1],
        resampled=_means(aucs[1:]),
        key=(_digest(labels), labels.shape, folds, resamples, seed),
    )


def _means(aucs: np.ndarray) -> np.ndarray:
    """Return means over features, (R,), of resamples (R, F); NaN is a feature of which no item with it was drawn.

    It is the same for all vectors, so that resamples without any feature are left out of all.
    """
    is_known = ~np.isnan(aucs)
    counts = is_known.sum(axis=1)
    return np.where(is_known, aucs, 0).sum(axis=1)[counts > 0] / counts[counts > 0]


def narrowed(matrix: np.ndarray | sp.csr_matrix, width: int, *, seed: int = 0) -> np.ndarray:
    """Return rows in fewer numbers by a truncated SVD: U S, the best of that width by squared error.

    It makes rows of any width comparable: those of EASE's items x items weights, or the items of a users x items
    matrix, transposed.

    Parameters
    ----------
    matrix : matrix of shape (n_rows, n_columns)
        Not centred.
    width : int
        Numbers of a row that is returned, at least 1 and below both sides of the matrix.
    seed : int
        Of the start vector.

    Returns
    -------
    ndarray of shape (n_rows, width), float64
        The direction that says most first.

    Raises
    ------
    UsageError
        If the width is out of range.
    DataError
        If the matrix has entries that are not finite.
    """
    least = min(matrix.shape)
    if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width < least:
        raise UsageError(f"got width={width!r} for a matrix of shape {matrix.shape}, expected 1 to {least - 1}")
    wide = matrix.astype(np.float64)
    if not np.isfinite(wide.data if sp.issparse(wide) else wide).all():
        raise DataError("got a matrix that is not finite, expected numbers; look for NaN in it")
    start = np.random.default_rng(seed).standard_normal(least)
    left, values, _ = svds(wide, k=width, v0=start)
    order = np.argsort(-values, kind="stable")
    return left[:, order] * values[order]  # (I, D)


def fewest(folds: int) -> int:
    """Return how many items must have a feature at least, so that every fold has some with it and some without."""
    return max(2 * folds, 2 * _INNER_FOLDS)


def check_options(folds: int, least: int, resamples: int, seed: int) -> None:
    """Refuse what `probe` cannot be called with."""
    limits = (("folds", folds, 2), ("resamples", resamples, 100), ("seed", seed, 0), ("least", least, fewest(folds)))
    for name, value, lowest in limits:
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise UsageError(f"got {name}={value!r}, expected a whole number >= {lowest}; give one")


def _labels(
    features: ItemFeatures | sp.csr_matrix | np.ndarray | pd.DataFrame | Sequence[Sequence[float]],
    names: Sequence[str] | None,
    n_items: int,
    of: str,
) -> tuple[sp.csc_matrix, tuple[str, ...]]:
    """Return who has which feature, (n_items, n_features), sparse, and the names of the features."""
    matrix = features.matrix if isinstance(features, ItemFeatures) else features
    if sp.issparse(matrix):
        matrix = sp.csc_matrix(matrix, copy=True)
        matrix.sum_duplicates()
    else:
        matrix = _as_array(matrix, "features", of)
    if matrix.ndim != 2 or matrix.shape[0] != n_items:
        raise DataError(f"got features of shape {matrix.shape}, expected a row for each of the {n_items:,} {of}")
    known = features.names if isinstance(features, ItemFeatures) else getattr(features, "columns", None)
    if known is None:  # those of a data set and of a table have names, of which some can be taken
        wanted = tuple(map(str, range(matrix.shape[1]))) if names is None else tuple(names)
        if len(wanted) != matrix.shape[1]:
            raise UsageError(f"got {len(wanted)} names for {matrix.shape[1]} features, expected a name for each")
    else:
        known = tuple(map(str, known))
        wanted = known if names is None else tuple(names)
        missing = [name for name in wanted if name not in known]
        if missing:
            raise UsageError(f"got unknown feature {missing[0]!r}, expected some of {', '.join(known[:10])}")
        if len(set(known)) < len(known):
            raise UsageError(f"got features with the same name, {max(known, key=known.count)!r}; rename one")
        matrix = matrix[:, [known.index(name) for name in wanted]]
    values = matrix.data if sp.issparse(matrix) else matrix
    if np.any(pd.isna(values)):
        raise DataError(
            f"got features that are not 0 or 1 but missing for some {of}, expected a row with numbers for each; leave "
            f"{of} that the table of features lacks out of both"
        )
    if not np.isin(values, (0, 1)).all():
        raise DataError("got features that are not 0 or 1, expected genres or the like; name those in `names`")
    labels = sp.csc_matrix(matrix, dtype=bool)  # (I, F); few items have most features
    labels.eliminate_zeros()
    labels.sort_indices()
    return labels, wanted


def _as_array(given: Any, what: str, of: str) -> np.ndarray:
    """Return a table or nested lists as an array; refuse what is none, such as rows of different lengths."""
    try:
        return np.asarray(given)
    except ValueError as error:
        raise DataError(
            f"got {what} that are no array ({error}), expected a row of numbers for each {of[:-1]}"
        ) from error


def _column(labels: sp.csc_matrix, place: int) -> np.ndarray:
    """Return which items have one feature, (n_items,), bool."""
    found = np.zeros(labels.shape[0], bool)
    found[labels.indices[labels.indptr[place] : labels.indptr[place + 1]]] = True
    return found


def _digest(labels: sp.csc_matrix) -> str:
    """Return what tells features from others."""
    return sha256(labels.indptr.astype(np.int64).tobytes() + labels.indices.astype(np.int64).tobytes()).hexdigest()


def _of_feature(points: np.ndarray, labels: np.ndarray, weights: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the ROC-AUC of one feature with each row of weights of the items, (n_weights,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    above, pairs = np.zeros((2, len(weights)))
    for fitted, measured in StratifiedKFold(folds, shuffle=True, random_state=seed).split(points, labels):
        fit = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        inner = StratifiedKFold(_INNER_FOLDS, shuffle=True, random_state=seed)
        search = GridSearchCV(fit, {"logisticregression__C": PENALTIES}, cv=inner, scoring="roc_auc")
        scores = search.fit(points[fitted], labels[fitted]).decision_function(points[measured])
        found = _pairs(np.asarray(scores), labels[measured], weights[:, measured])
        above, pairs = above + found[0], pairs + found[1]
    return np.divide(above, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _pairs(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pairs are in the right order, ties counted half, and how many there are, by weights."""
    order = np.argsort(scores[~labels], kind="stable")
    lower = np.searchsorted(scores[~labels][order], scores[labels], "left")  # (P,)
    not_higher = np.searchsorted(scores[~labels][order], scores[labels], "right")
    right = np.empty(len(weights))
    for start in range(0, len(weights), _AT_A_TIME):
        block = weights[start : start + _AT_A_TIME].astype(np.float64)  # (R, P + Q)
        below = np.pad(block[:, ~labels][:, order].cumsum(axis=1), ((0, 0), (1, 0)))  # (R, 1 + Q)
        right[start : start + len(block)] = (block[:, labels] * (below[:, lower] + below[:, not_higher]) / 2).sum(
            axis=1
        )
    with_it = weights[:, labels].sum(axis=1, dtype=np.float64)  # (R, P) -> (R,)
    return right, with_it * weights[:, ~labels].sum(axis=1, dtype=np.float64)
