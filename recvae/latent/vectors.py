"""The vectors that a model has of items and of users, at one width, and simple ones to compare them with.

Letters in shape comments: U users, I items, D width of a vector.
"""

from typing import Literal

import numpy as np
import scipy.sparse as sp

from recvae.compute.memory import check_memory
from recvae.errors import DataError, UsageError
from recvae.latent.probes import narrowed
from recvae.models.common.base import Model
from recvae.models.common.codes import CodeModel

Of = Literal["items", "users"]
SVD, RANDOM = "truncated SVD", "random numbers"
"""Names of simple vectors."""

WIDTH = 64
"""Of vectors that are compared, unless those of a model are narrower: a probe of wider ones takes minutes."""


def item_vectors_of(model: Model) -> np.ndarray | None:
    """Return the model's own vectors of items.

    Parameters
    ----------
    model : Model
        A fitted model.

    Returns
    -------
    ndarray of shape (n_items, width), float32, or None
        None where the model has no vector of an item.
    """
    if isinstance(model, CodeModel):
        try:
            return model.item_embeddings()
        except UsageError:  # some have none
            return None
    return model.item_vectors()[0] if model.has_item_vectors else None


def own_width(model: Model, of: Of) -> int | None:
    """Return how wide the model's own vectors are, None where it has none."""
    if of == "users" and model.has_embeddings:
        nobody = sp.csr_matrix(np.zeros((1, model.n_items_), dtype=np.float32))
        return model.embed(nobody).shape[1]
    found = item_vectors_of(model)
    return None if found is None else found.shape[1]


def vectors_of(
    model: Model,
    train: sp.csr_matrix,
    of: Of,
    width: int,
    *,
    max_memory: int | None = None,
) -> np.ndarray:
    """Return a vector for each item, or for each user, of at most one width.

    Parameters
    ----------
    model : Model
        A fitted model: one with vectors of its own, or with a matrix of items x items, such as EASE.
    train : csr_matrix of shape (n_users, n_items), float32
        The histories of the users.
    of : {"items", "users"}
        Whose vectors. Those of a user are the model's codes or factors; a model without these has the sum of the
        vectors of the user's items.
    width : int
        Wider vectors, and the rows of a matrix of items x items, are narrowed by a truncated SVD.
    max_memory : int, optional
        Bytes that scoring may take.

    Returns
    -------
    ndarray of shape (n_items, at most width) or (n_users, at most width)

    Raises
    ------
    UsageError
        If the model has neither vectors nor a matrix of items x items, or a width is out of range.
    DataError
        If the vectors are not finite.
    MemoryLimitError
        If narrowing them needs more than is allowed or free.
    """
    if of == "users" and model.has_embeddings:
        found = model.embed(train, max_memory=max_memory)  # (U, D)
        return _at_most(width, found, model, max_memory)
    vectors = item_vectors_of(model)
    if vectors is None:
        vectors = getattr(model, "similarity_", None)  # (I, I)
    if vectors is None:
        raise UsageError(
            f"got {model.name}, which has no vectors of {of}; use an autoencoder, als, ials, elsa, ease or edlae"
        )
    vectors = _at_most(width, vectors, model, max_memory)  # (I, D)
    return vectors if of == "items" else train @ vectors  # (U, I) @ (I, D)


def simple_vectors(train: sp.csr_matrix, of: Of, width: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Return vectors that need no model: what any other should beat.

    Parameters
    ----------
    train : csr_matrix of shape (n_users, n_items), float32
        The histories of the users.
    of : {"items", "users"}
        Whose vectors.
    width : int
        Of those by SVD, and of those that are random.
    seed : int
        Of the random ones.

    Returns
    -------
    dict of str to ndarray of shape (n_items or n_users, width or 1)
        By truncated SVD of the interactions, by nothing but the number of interactions, and random ones.
    """
    rows = train.T.tocsr() if of == "items" else train
    counts = np.diff(rows.indptr)
    return {
        SVD: narrowed(rows, width),
        "popularity" if of == "items" else "length of the history": np.log1p(counts)[:, None],
        RANDOM: random_vectors(len(counts), width, seed),
    }


def random_vectors(n: int, width: int, seed: int) -> np.ndarray:
    """Return vectors that know nothing, (n, width), float64."""
    return np.random.default_rng(seed).standard_normal((n, width))


def _at_most(width: int, vectors: np.ndarray | sp.csr_matrix, model: Model, max_memory: int | None) -> np.ndarray:
    """Return vectors (n, D) that are finite, and narrowed where they are wider."""
    sparse = sp.issparse(vectors)
    if not np.isfinite(vectors.data if sparse else vectors).all():
        raise DataError(f"got vectors of {model.name} that are NaN or infinite, expected numbers; train the run again")
    if vectors.shape[1] <= width and isinstance(vectors, np.ndarray):
        return vectors
    n_bytes = (vectors.nnz if sparse else vectors.size) * np.dtype(np.float64).itemsize
    check_memory(n_bytes, max_memory, f"narrowing the vectors of {model.name}", "probe another model")
    return narrowed(vectors, width)
