"""Rows that several processes solve for, each for its part; after each half of an iteration all have all vectors.

Letters in shape comments: U users, I items, R rows that are solved for, C columns of these rows, F factors.
"""

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.ranks import Ranks
from recvae.training.records import StopTraining

_SUMMED = 1 << 20  # interactions that are added up at a time, in float64


def owners(lengths: np.ndarray, n: int) -> np.ndarray:
    """Deal rows out to n processes, the longest first, back and forth.

    Whatever a row takes, if it grows with the length, two processes differ by what one longest row takes at most. So
    the parts are alike in interactions, in time and in memory.

    Parameters
    ----------
    lengths : ndarray of shape (n_rows,), int
        Interactions of each row.
    n : int
        Number of processes.

    Returns
    -------
    ndarray of shape (n_rows,), int64
        Whose each row is, from 0 to n - 1.
    """
    place = np.arange(len(lengths)) % (2 * n)  # (R,)
    found = np.empty(len(lengths), dtype=np.int64)
    found[np.argsort(-lengths, kind="stable")] = np.minimum(place, 2 * n - 1 - place)
    return found


class RowPart:
    """The rows that this process solves for: all of them, if it is alone.

    Parameters
    ----------
    ranks : Ranks
        Which of the processes this one is.
    lengths : ndarray of shape (n_rows,), int
        Interactions of each row, the same in all processes.
    """

    def __init__(self, ranks: Ranks, lengths: np.ndarray) -> None:
        self.ranks, self.has_any = ranks, bool(lengths.any())
        self.is_own = owners(lengths, ranks.size) == ranks.rank
        """Which rows are its own, (n_rows,)."""
        self.lengths = np.where(self.is_own, lengths, 0)
        """Interactions of its own rows, 0 for all others, (n_rows,)."""

    def columns_as_rows(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        """Return a matrix (C, R) by its columns, as rows (R, C) that are empty where they are not its own."""
        if self.is_own.all():
            return sp.csr_matrix(matrix.T)
        own = sp.csr_matrix(matrix[:, np.flatnonzero(self.is_own)].T)
        starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(own.indptr.dtype)  # (R + 1,)
        return sp.csr_matrix((own.data, own.indices, starts), shape=(len(self.is_own), matrix.shape[0]))

    def of_all(self, found: torch.Tensor) -> torch.Tensor:
        """Return the vectors (R, F) of all rows, in place, where each process has those of its own and 0 elsewhere."""
        self.ranks.check(same=found.numel())
        self.ranks.sum(found)  # x + 0 + 0: what was found, to the bit
        return found


def row_weights(rows: sp.csr_matrix) -> np.ndarray:
    """Return the sum of each row (R,), in float64, without a copy of all weights in float64."""
    found = np.zeros(rows.shape[0])
    start = 0
    while start < len(found):
        end = int(np.searchsorted(rows.indptr, rows.indptr[start] + _SUMMED, side="right")) - 1
        end = min(max(end, start + 1), len(found))
        found[start:end] = np.asarray(rows[start:end].sum(axis=1, dtype=np.float64)).ravel()
        start = end
    return found


def stop_of_all(ranks: Ranks, wish: StopTraining | None) -> StopTraining | None:
    """Return the wish of the first process to end training, in all of them."""
    if not ranks.several or not ranks.check(wish=wish is not None):
        return wish
    return StopTraining(ranks.from_first(wish and wish.reason))
