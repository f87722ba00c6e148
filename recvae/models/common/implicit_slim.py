"""Item vectors made anew in one step of ImplicitSLIM: Shenbin and Nikolenko, ICLR 2024.

    W' = W W^T (I / alpha + W C W^T)^-1 W C,   C = (G + l2 I) D^2 (G + l2 I),   D = diag(n + l2)^-1

W (width x items) has a vector for each item, G = X^T X counts how often two items occur together, n sums the columns
of X. The vectors of items are then mixed as the weights of a linear autoencoder (SLIM, EASE) would mix them, whose
items x items matrix is never made: W G = (W X^T) X takes the interactions twice for each number of a vector.

This is the authors' code (ilya-shenbin/ImplicitSLIM) without its threshold, below which items have no part in it, and
without its half precision. Their alpha is 1 for RecVAE.
"""

import numpy as np
import scipy.sparse as sp

from recvae.datasets.streams import parts_of
from recvae.interactions import StoredRows

_BLOCK_BYTES = 64 << 20  # of users' vectors at a time
ALPHA = 1.0

# Letters in shape comments: I items, D width of a vector, B users of a block.


def implicit_slim(
    vectors: np.ndarray, train: sp.csr_matrix | StoredRows, l2: float, alpha: float = ALPHA
) -> np.ndarray:
    """Return new vectors of all items, of the same width.

    Parameters
    ----------
    vectors : ndarray of shape (n_items, width), float32
        W^T.
    train : csr_matrix or StoredRows of shape (n_users, n_items)
        X; rows that lie on disk are read twice.
    l2 : float
        Above 0; the higher, the less few interactions count.
    alpha : float
        Above 0.

    Returns
    -------
    ndarray of shape (n_items, width), float32
        W'^T.
    """
    sums = np.zeros(len(vectors))  # (I,)
    for part in parts_of(train):
        sums += np.asarray(part.sum(axis=0, dtype=np.float64)).ravel()
    mixed = _with_neighbours(vectors, train, l2)  # (I, D)
    mixed /= np.square(sums + l2)[:, None].astype(np.float32)
    mixed = _with_neighbours(mixed, train, l2)  # (I, D): C W^T
    among = vectors.T.astype(np.float64) @ mixed  # (D, I) x (I, D) -> (D, D)
    within = vectors.T.astype(np.float64) @ vectors  # (D, I) x (I, D) -> (D, D)
    turned = np.linalg.solve(np.eye(len(among)) / alpha + among, within)  # (D, D)
    return mixed @ turned.astype(np.float32)  # (I, D) x (D, D) -> (I, D)


def _with_neighbours(vectors: np.ndarray, train: sp.csr_matrix | StoredRows, l2: float) -> np.ndarray:
    """Return (G + l2 I) W^T, (I, D), block by block of the users."""
    found = np.float32(l2) * vectors
    users = max(1, _BLOCK_BYTES // (4 * vectors.shape[1]))
    for part in parts_of(train):
        for start in range(0, part.shape[0], users):
            rows = part[start : start + users]  # (B, I)
            found += rows.T @ (rows @ vectors)  # (I, B) x (B, D) -> (I, D)
    return found
