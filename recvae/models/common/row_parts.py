"""Rows that several processes solve for, each for its part; after each half of an iteration all have all vectors.

Letters in shape comments: U users, I items, R rows that are solved for, C columns of these rows, F factors.
"""

import heapq
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.ranks import Ranks, current
from recvae.models.common.ridge import BATCH_BYTES, batches_of
from recvae.training.records import StopTraining

_SUMMED = 1 << 20  # interactions that are added up at a time, in float64


def owners(interactions: Sequence[int], n: int) -> list[int]:
    """Deal batches of rows out to n processes, each to the one with the fewest interactions so far.

    Batches come from the longest rows to the shortest. Then what is alike after each of them, to one batch, is not
    only the number of interactions, and memory with it, but also whatever takes more for an interaction the longer its
    row is, such as time.

    Parameters
    ----------
    interactions : sequence of int
        Of each batch.
    n : int
        Number of processes.

    Returns
    -------
    list of int
        Whose each batch is, from 0 to n - 1.
    """
    loads, found = [(0, rank) for rank in range(n)], []
    for more in interactions:
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + more, rank))
        found.append(rank)
    return found


def most_of_part(n_interactions: int, longest: int, factors: int, block: int) -> int:
    """Return the most interactions that one of the processes has.

    Parameters
    ----------
    n_interactions, longest : int
        Of all rows, and the most that one of them may have.
    factors, block : int
        Number of factors, and of those that are solved for at a time.
    """
    n, of_batch = current().size, BATCH_BYTES // (4 * min(block, factors))
    return n_interactions if n == 1 else min(n_interactions, n_interactions // n + max(longest, of_batch))


class RowPart:
    """The rows that this process solves for: all of them, if it is alone.

    Whole batches are dealt out, those that one process would have: in the last bits, a row's solution depends on who
    else is in its batch, and so all find what one process finds, to the bit.

    Parameters
    ----------
    ranks : Ranks
        Which of the processes this one is.
    lengths : ndarray of shape (n_rows,), int
        Interactions of each row, the same in all processes.
    factors, block : int
        Number of factors, and of those that are solved for at a time.
    """

    def __init__(self, ranks: Ranks, lengths: np.ndarray, factors: int, block: int) -> None:
        self.ranks, self.has_any = ranks, bool(lengths.any())
        batches = list(batches_of(lengths, factors, block))[::-1]  # the longest rows first
        whose = owners([int(lengths[batch].sum()) for batch, _ in batches], ranks.size)
        self.batches = [one for one, owner in zip(batches, whose, strict=True) if owner == ranks.rank]
        """Its rows, and what they are filled up to; see `batches_of`."""
        self.lengths = np.zeros(len(lengths), dtype=np.int64)
        """Interactions of its rows, 0 for all others, (n_rows,)."""
        for batch, _ in self.batches:
            self.lengths[batch] = lengths[batch]

    def columns_as_rows(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        """Return a matrix (C, R) by its columns, as rows (R, C) that are empty where they are not its own."""
        if not self.ranks.several:
            return sp.csr_matrix(matrix.T)
        own = sp.csr_matrix(matrix[:, np.flatnonzero(self.lengths)].T)
        starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(own.indptr.dtype)  # (R + 1,)
        return sp.csr_matrix((own.data, own.indices, starts), shape=(len(self.lengths), matrix.shape[0]))

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
