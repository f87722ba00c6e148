"""The order of users whose matrix does not fit into memory: some blocks of it at a time, mixed in a buffer.

An epoch draws an order of all blocks and cuts it into fills of the buffer, of about the same size. The users of a fill
are mixed with one another, and go into batches; those who are left wait for the next fill. Everyone comes once.
Where the buffer holds all, there is one fill, whose order is that of a matrix in memory.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from recvae.datasets.streams import INTERACTION_BYTES, USER_BYTES, Rows, StreamedMatrix

# Letters in shape comments: U users of a fill, R of them from the fill before, K blocks.


class HeldRows(Protocol):
    """Rows in memory that batches are cut from; `SparseRows` are."""

    def taken(self, users: torch.Tensor) -> Rows:
        """Return some rows, copied."""
        ...


HeldT = TypeVar("HeldT", bound=HeldRows)
BatchT = TypeVar("BatchT")


class Buffer(Generic[HeldT]):
    """What is held of a streamed matrix, fill after fill.

    Parameters
    ----------
    matrix : StreamedMatrix
        Checked.
    hold : callable
        (rows, number of users, number of interactions) -> the same in memory, copied.
    """

    def __init__(self, matrix: StreamedMatrix, hold: Callable[[Iterable[Rows], int, int], HeldT]) -> None:
        self._matrix, self._hold = matrix, hold

    def epoch(
        self, generator: torch.Generator, batch_size: int, cut: Callable[[HeldT, torch.Tensor], BatchT]
    ) -> Iterator[BatchT]:
        """Yield batches with every user exactly once; only the last may be smaller.

        Parameters
        ----------
        generator : Generator
            On the CPU; the order depends on it, the shards and the buffer.
        batch_size : int
            Users per batch.
        cut : callable
            (rows, which of them) -> batch, which must not hold on to the rows: the next fill takes their place.
        """
        fills = fills_of(self._matrix, generator)
        waiting: list[Rows] = []
        for number, chosen in enumerate(fills):
            blocks = self._matrix.blocks[chosen]  # (K, 4)
            n_waiting = sum(len(lengths) for lengths, _, _ in waiting)
            n_new = int((blocks[:, 2] - blocks[:, 1]).sum())
            n_interactions = int(blocks[:, 3].sum()) + sum(len(columns) for _, columns, _ in waiting)
            rows = self._hold(_chain(waiting, self._matrix.read(chosen)), n_waiting + n_new, n_interactions)
            mixed = torch.randperm(n_new, generator=generator) + n_waiting
            order = torch.cat([torch.arange(n_waiting), mixed])  # (U,)
            is_last = number == len(fills) - 1
            n_ready = len(order) if is_last else len(order) // batch_size * batch_size
            for users in order[:n_ready].split(batch_size) if n_ready else ():
                yield cut(rows, users)
            waiting = [] if is_last else [rows.taken(order[n_ready:])]
            del rows  # before the next fill is read


def _chain(waiting: list[Rows], new: Iterator[Rows]) -> Iterator[Rows]:
    yield from waiting
    yield from new


def fills_of(matrix: StreamedMatrix, generator: torch.Generator) -> list[np.ndarray]:
    """Draw which blocks are in the buffer at the same time.

    Parameters
    ----------
    matrix : StreamedMatrix
        Checked.
    generator : Generator
        On the CPU; nothing is drawn where all blocks fit at once.

    Returns
    -------
    list of ndarray
        Blocks of each fill, ascending, so that files are read from start to end.
    """
    blocks = matrix.blocks  # (K, 4)
    if matrix.fits:
        return [np.arange(len(blocks))]
    sizes = INTERACTION_BYTES * blocks[:, 3] + USER_BYTES * (blocks[:, 2] - blocks[:, 1])  # (K,), bytes
    largest = int(sizes.max())
    room = max(matrix.buffer - largest, matrix.buffer // 2, 1)  # a fill may have a part of a block more than its share
    total = int(sizes.sum())
    n_fills = -(-total // room)
    drawn = torch.randperm(len(blocks), generator=generator).numpy()
    before = np.cumsum(sizes[drawn]) - sizes[drawn]  # (K,), bytes before each
    fill = before // -(-total // n_fills)
    return [np.sort(part) for part in np.split(drawn, np.flatnonzero(np.diff(fill)) + 1)]
