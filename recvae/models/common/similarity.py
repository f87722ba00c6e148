"""How similar items are by their vectors.

Letters in shape comments: I items, C columns, O others, D dimensions.
"""

import numpy as np

_TINY = np.finfo(np.float32).tiny


def cosines(vectors: np.ndarray, columns: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Return the cosine of the angle between some vectors and others.

    Parameters
    ----------
    vectors : ndarray of shape (n_items, width), float32
        One per item; a vector of zeros is like no other.
    columns : ndarray of shape (n_columns,), int
        Which ones.
    others : ndarray of shape (n_others,), int, optional
        Which others; by default all.

    Returns
    -------
    ndarray of shape (n_columns, n_others), float32
        In [-1, 1].
    """
    chosen, rest = vectors[columns], vectors if others is None else vectors[others]  # (C, D), (O, D)
    products = chosen @ rest.T / _lengths(chosen)[:, None] / _lengths(rest)  # (C, D) x (D, O) -> (C, O)
    return np.clip(products, -1, 1)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), _TINY)  # (O, D) -> (O,)
