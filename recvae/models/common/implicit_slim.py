"""Item vectors made anew in one step of ImplicitSLIM: Shenbin and Nikolenko, ICLR 2024.

    W' = W W^T (I / alpha + W C W^T)^-1 W C,   C = (G + l2 I) D^2 (G + l2 I),   D = (diag(G) + l2 I)^-1

W (width x items) has a vector for each item, and G = X^T X says how often two items occur together. The vectors of
items are mixed as the weights of a linear autoencoder (SLIM, EASE) would mix them, whose items x items matrix is never
made: W G = (W X^T) X takes the interactions twice for each number of a vector.

For rows of ones this is the authors' code (ilya-shenbin/ImplicitSLIM) in float32, with their threshold at 0, below
which items have no part in it. Their D has the sums of the columns of X, which differ from the diagonal of G where
interactions have weights: with the diagonal, the scale of the weights does not matter. Their alpha is 1 for RecVAE.
"""

import numpy as np
import scipy.sparse as sp

from recvae.datasets.streams import parts_of
from recvae.interactions import StoredRows

_BLOCK_BYTES = 4 << 20  # of users' or items' vectors at a time
_FLOAT = 4  # bytes
ALPHA = 1.0

# Letters in shape comments: I items, D width of a vector, B users or items of a block.


def implicit_slim(
    vectors: np.ndarray, train: sp.csr_matrix | StoredRows, l2: float, alpha: float = ALPHA
) -> np.ndarray:
    """Return new vectors of all items, of the same width.

    Three arrays of that size are held beside the old vectors: no more than training, with two moments of each weight
    and the best so far.

    Parameters
    ----------
    vectors : ndarray of shape (n_items, width), float32
        W^T.
    train : csr_matrix or StoredRows of shape (n_users, n_items)
        X; rows that lie on disk are read three times.
    l2 : float
        Above 0; the higher, the less few interactions count.
    alpha : float
        Above 0.

    Returns
    -------
    ndarray of shape (n_items, width), float32
        W'^T.
    """
    scale = (_squares(train) + l2)[:, None].astype(np.float32)  # (I, 1)
    products = _with_neighbours(vectors, train, l2)  # (I, D)
    products /= scale
    products /= scale  # not by its square, which float32 may not have
    products = _with_neighbours(products, train, l2)  # (I, D): C W^T
    weighted, plain = _among(vectors, products), _among(vectors, vectors)  # (D, D): W C W^T and W W^T
    turn = np.linalg.solve(np.eye(len(plain)) / alpha + weighted, plain)  # (D, D)
    return products @ turn.astype(np.float32)  # (I, D) x (D, D) -> (I, D)


def _squares(train: sp.csr_matrix | StoredRows) -> np.ndarray:
    """Return the diagonal of X^T X, shape (n_items,)."""
    found = np.zeros(train.shape[1])
    for part in parts_of(train):
        found += np.bincount(part.indices, np.square(part.data, dtype=np.float64), minlength=part.shape[1])
    return found


def _with_neighbours(vectors: np.ndarray, train: sp.csr_matrix | StoredRows, l2: float) -> np.ndarray:
    """Return (G + l2 I) W^T, (I, D), block by block of the users."""
    found = np.float32(l2) * vectors
    users = _rows_of(vectors)
    for part in parts_of(train):
        for start in range(0, part.shape[0], users):
            rows = part[start : start + users]  # (B, I)
            found += rows.T @ (rows @ vectors)  # (I, B) x (B, D) -> (I, D)
    return found


def _among(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the products of all columns of both, (D, D), summed in float64."""
    found = np.zeros((vectors.shape[1], others.shape[1]))
    items = _rows_of(vectors)
    for start in range(0, len(vectors), items):
        block = slice(start, start + items)
        found += vectors[block].T.astype(np.float64) @ others[block]  # (D, B) x (B, D) -> (D, D)
    return found


def _rows_of(vectors: np.ndarray) -> int:
    """Return how many vectors are taken at a time."""
    return max(1, _BLOCK_BYTES // (_FLOAT * vectors.shape[1]))
