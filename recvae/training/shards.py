"""The items of one process, where several have the items of a network shared out: its rows of the item layers.

Process r of n has consecutive items (`Ranks.part_of`), and all users of a batch with their interactions with these.

Letters in shape comments: I items, N interactions of a batch, n of them with the items of this process, B users.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch

from recvae.compute.ranks import Ranks
from recvae.training.batches import OwnItems, SparseBatch

_DRAWN = 1 << 22  # numbers that are drawn at a time
_EVEN = 16  # rows: PyTorch makes normal numbers by sixteens, so that other blocks would not be those of the whole


@dataclass(frozen=True)
class Shard:
    """Which of all items are those of this process.

    Parameters
    ----------
    n_items : int
        Of the whole network.
    ranks : Ranks
        Which of the processes this one is.
    """

    n_items: int
    ranks: Ranks

    @property
    def first(self) -> int:
        """Its first item."""
        return self.ranks.part_of(self.n_items)[0]

    @property
    def last(self) -> int:
        """The item after its last one."""
        return self.ranks.part_of(self.n_items)[1]

    @property
    def n_own(self) -> int:
        """How many are its own."""
        return self.last - self.first

    def of_batch(self, batch: SparseBatch) -> SparseBatch:
        """Return a batch of all its users and the items of this process alone, which count from 0.

        Parameters
        ----------
        batch : SparseBatch
            With all items.

        Returns
        -------
        SparseBatch
            `inputs` and `totals` are still those of the users' whole rows.
        """
        chosen = ((batch.items >= self.first) & (batch.items < self.last)).nonzero()[:, 0]  # (n,); a GPU is waited for
        rows = batch.rows[chosen]
        lengths = torch.bincount(rows, minlength=len(batch))  # (B,)
        return replace(
            batch,
            items=batch.items[chosen] - self.first,
            offsets=(lengths.cumsum(0) - lengths).to(batch.offsets.dtype),  # (B,)
            rows=rows,
            values=batch.values[chosen],
            inputs=batch.inputs[chosen],
            lengths=lengths,
            own=OwnItems(n_interactions=len(batch.items), interactions=chosen),
        )

    def of_rows(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        """Return the columns of its items, (n_users, n_own)."""
        return sp.csr_matrix(matrix[:, self.first : self.last])

    def rows_of(self, whole: torch.Tensor) -> torch.Tensor:
        """Return its rows of what has one for each item."""
        return whole[self.first : self.last]

    @torch.no_grad()
    def fill(self, own: torch.Tensor, draw: Callable[[torch.Tensor], object]) -> None:
        """Fill its rows with the numbers that a draw of all rows would give them, without ever having all.

        Parameters
        ----------
        own : Tensor of shape (n_own, ...)
            Filled.
        draw : callable
            Fills a tensor with uniform or normal numbers, from a generator that goes on.
        """
        for start, end in _blocks(self.n_items, max(1, own[0].numel())):
            block = own.new_empty((end - start, *own.shape[1:]))
            draw(block)
            first, last = max(start, self.first), min(end, self.last)
            if first < last:
                own[first - self.first : last - self.first] = block[first - start : last - start]


def _blocks(n_rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive blocks of rows, by sixteens, and none that is smaller."""
    step = max(_EVEN, _DRAWN // width // _EVEN * _EVEN)
    start = 0
    while start < n_rows:
        end = n_rows if n_rows - start < step + _EVEN else start + step
        yield start, end
        start = end


def merged(columns: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each process has ranked of its items as candidates of each user, by ascending column.

    Parameters
    ----------
    columns, scores : ndarray of shape (n_processes, n_users, k)
        What `recvae.ranking.rank` has found of the items of each, with the columns of all items; -1 and -inf where a
        process ran out of items.

    Returns
    -------
    columns, scores : ndarray of shape (n_users, n_processes * k)
        For `recvae.ranking.rank_candidates`.
    """
    columns, scores = (np.concatenate(list(one), axis=1) for one in (columns, scores))  # (n, B, k) -> (B, n k)
    last = np.iinfo(columns.dtype).max
    order = np.argsort(np.where(columns < 0, last, columns), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(scores, order, axis=1)
