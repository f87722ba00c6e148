"""Vectors of users or items in two dimensions, for a map.

Letters in shape comments: n vectors, D width of a vector.
"""

import warnings

import numpy as np

from recvae.errors import DataError, UsageError, requires_extra
from recvae.models.common.draws import check_seed

PROJECTIONS = ("pca", "umap")
FEWEST = 3
"""Vectors below which there is no plane to draw."""

_NEIGHBOURS = 15  # of UMAP, its default; fewer where there are fewer
_SPECTRAL = 50  # vectors from which on the spectral start of UMAP finds its eigenvectors


def principal_components(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first two principal components of each vector, and the share of variance that each of the two has.

    Parameters
    ----------
    embeddings : ndarray of shape (n, width)
        Of users or items, at least 3.

    Returns
    -------
    places : ndarray of shape (n, 2), float64
        The sign is such that the largest loading of each component is positive; 0 where there is no second one.
    shares : ndarray of shape (2,), float64
        In [0, 1].

    Raises
    ------
    DataError
        If there are fewer than 3 vectors, one is not finite, or all are the same.
    """
    centred = _centred(embeddings)  # (n, D)
    # By the covariance, which is small: a decomposition of the vectors themselves would make another two like them.
    sizes, axes = np.linalg.eigh(centred.T @ centred)  # (D,), (D, D), in order of what they explain, least first
    sizes, axes = sizes[::-1].clip(0), axes[:, ::-1][:, :2]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # which the decomposition leaves open
    places = centred @ (axes * signs)  # (n, 2)
    missing = 2 - places.shape[1]
    return np.pad(places, ((0, 0), (0, missing))), np.pad(sizes[:2] / sizes.sum(), (0, missing))


def project(vectors: np.ndarray, how: str = "pca", *, seed: int = 0) -> np.ndarray:
    """Return vectors in two dimensions.

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
        If there are fewer than 3 vectors, one is not finite, or all are the same.
    """
    check_projection(how)
    if how == "pca":
        return principal_components(vectors)[0]
    check_seed(seed)
    centred = _centred(vectors)
    n = len(centred)
    start = "spectral" if n >= _SPECTRAL else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that umap-learn looks for, and of its own settings
        with requires_extra("umap", "a map by UMAP"):
            from umap import UMAP  # type: ignore[import-not-found]
        made = UMAP(n_neighbors=min(_NEIGHBOURS, n - 1), init=start, random_state=seed, n_jobs=1)
        return np.asarray(made.fit_transform(centred.astype(np.float32)), dtype=np.float64)


def check_projection(how: str) -> None:
    """Refuse a way to project that there is not.

    Raises
    ------
    UsageError
        With those there are.
    """
    if how not in PROJECTIONS:
        raise UsageError(f"got projection {how!r}, expected one of {', '.join(PROJECTIONS)}")


def _centred(vectors: np.ndarray) -> np.ndarray:
    """Return vectors around 0, (n, D), float64; what cannot be drawn is refused."""
    values = np.asarray(vectors, dtype=np.float64)
    if values.ndim != 2 or len(values) < FEWEST or not values.shape[1]:
        raise DataError(f"got embeddings of shape {values.shape}, expected {FEWEST} rows or more to draw a map")
    if not np.isfinite(values).all():
        raise DataError("got embeddings that are NaN or infinite, expected numbers; train the run again")
    centred = values - values.mean(axis=0)  # (n, D)
    if np.allclose(centred, 0, atol=1e-12 * max(1.0, float(np.abs(values).max()))):
        raise DataError("got the same embedding for all, expected different ones; train the run for longer")
    return centred
