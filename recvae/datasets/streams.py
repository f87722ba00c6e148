"""The training matrix of a data set in shards as training reads it: block by block, never the whole of it.

A block is some consecutive users of one shard. Blocks are small parts of the buffer, so that users of many places of
the data are in it at a time. Which blocks there are depends on the shards and the size of the buffer alone.

Letters in shape comments: U users of a block or shard, N interactions of them, I items, K blocks.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import scipy.sparse as sp

from recvae.datasets.shards import ShardedMatrix
from recvae.errors import DataError, UsageError
from recvae.interactions import LEAST_WEIGHT, MOST_WEIGHT, StoredRows, counts_of, in_chunks

BUFFER_BYTES = 1_000_000_000
"""What training holds of the interactions at a time: about 80 million of them."""

INTERACTION_BYTES, USER_BYTES = 12, 20
"""What an interaction and a user take in the buffer; `recvae.training.batches.SparseRows` holds them."""

_BLOCKS = 64  # of a buffer, or more
_LEAST_BLOCK = 16 << 10  # bytes of the buffer: smaller reads take longer than they are worth
_MOST_BLOCK = 3 << 20  # the same: larger ones would take more memory while they are made ready
_LEAST_BLOCKS = 8  # of a small buffer

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Consecutive users: lengths (U,) int64, columns (N,) int32 and values (N,) float32 of their interactions."""

_NOTHING = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))

_Mark = tuple[int, int, int] | None  # inode, size, time of the last change; None of a file that is not there


@dataclass(frozen=True, eq=False)
class _Known:
    """What the first reading of all shards finds."""

    blocks: np.ndarray  # (K, 4), int64: shard, first row in it, row after the last, interactions
    item_counts: np.ndarray  # (I,), int64
    squares: float  # sum of the squared weights
    n_users: int  # with an interaction


@dataclass(frozen=True, eq=False)
class StreamedMatrix(StoredRows):
    """A matrix in shards that is read as training goes on.

    Parameters
    ----------
    shards : ShardedMatrix
        Where it lies.
    buffer : int
        Bytes of interactions to hold at a time, >= 1; see `INTERACTION_BYTES` and `USER_BYTES`.
    """

    shards: ShardedMatrix
    buffer: int = BUFFER_BYTES

    def __post_init__(self) -> None:
        if self.buffer < 1:
            raise UsageError(f"got a buffer of {self.buffer} bytes, expected 1 or more")

    @property
    def shape(self) -> tuple[int, int]:
        """Users and items."""
        return self.shards.shape

    @property
    def nnz(self) -> int:
        """Number of interactions."""
        return self.shards.nnz

    @property
    def fits(self) -> bool:
        """Whether the buffer holds all of it."""
        return self.share >= 1

    @property
    def share(self) -> float:
        """Which part of all users the buffer holds, above 0; 1 or more where it holds all."""
        n_bytes = INTERACTION_BYTES * self.nnz + USER_BYTES * self.shape[0]
        return self.buffer / n_bytes if n_bytes else 1.0

    @property
    def layout(self) -> str | None:
        """Where shards end, as a short hash; None where the buffer holds all, so that the order is that in memory."""
        ends = np.array([shard.rows for shard in self.shards.shards], dtype="<i8")
        return None if self.fits else hashlib.sha256(ends.tobytes()).hexdigest()[:12]

    @property
    def item_counts(self) -> np.ndarray:
        """The number of users of each item, shape (n_items,), int64."""
        return self._known.item_counts

    @property
    def blocks(self) -> np.ndarray:
        """What is read at a time, shape (n_blocks, 4), int64: shard, first row in it, row after the last, nnz."""
        return self._known.blocks

    @property
    def squares(self) -> float:
        """Sum of the squared weights."""
        return self._known.squares

    @property
    def n_users_with_items(self) -> int:
        """Number of users with an interaction."""
        return self._known.n_users

    def checked(self) -> "StreamedMatrix":
        """Return it after all shards were read once, as `as_interactions` does with a matrix in memory.

        Raises
        ------
        DataError
            If there are no users or items, or a shard is missing, damaged, or has rows that no shard may have.
        """
        for length, what in zip(self.shape, ("users (rows)", "items (columns)"), strict=True):
            if not length:
                raise DataError(f"got no {what} in the shards of {self.shards.folder}, expected at least one")
        _ = self._known
        return self

    @cached_property
    def _known(self) -> _Known:
        """Read all shards once, and refuse what training must not be given."""
        counts = np.zeros(self.shape[1], dtype=np.int64)
        squares, n_users, blocks = 0.0, 0, [np.empty((0, 4), dtype=np.int64)]
        size = block_bytes(self.buffer)
        for number, shard in enumerate(self.shards.shards):
            starts, columns, values = self._mapped(number)
            _check_rows(self.shards.folder / shard.file, starts, columns, values, len(counts))
            counts += counts_of(columns, len(counts))
            squares += sum(float(np.square(values[part], dtype=np.float64).sum()) for part in in_chunks(len(values)))
            n_users += int(np.count_nonzero(np.diff(starts)))
            blocks.append(_blocks(number, starts, size))
        return _Known(np.concatenate(blocks), counts, squares, n_users)

    @cached_property
    def marks(self) -> tuple[_Mark, ...]:
        """What would change if a shard were replaced or written to; as it was when this was first asked for."""
        return tuple(_mark(self.shards.folder / shard.file) for shard in self.shards.shards)

    def marked(self) -> "StreamedMatrix":
        """Return it with `marks` from now on."""
        _ = self.marks
        return self

    def _mapped(self, number: int) -> Rows:
        """Map a shard's starts, columns and values, and check that they are still those of the first time."""
        before, shard = self.marks[number], self.shards.shards[number]
        arrays = shard.arrays(self.shards.folder)
        if _mark(self.shards.folder / shard.file) != before:
            raise DataError(
                f"{self.shards.folder / shard.file} was changed after it was checked; leave a data set as it is while "
                "it is trained on, and train again"
            )
        return arrays["indptr"], arrays["indices"], arrays["data"]

    def read(self, chosen: np.ndarray) -> Iterator[Rows]:
        """Yield the rows of some blocks, as they lie in their files: they are to be copied.

        Parameters
        ----------
        chosen : ndarray of shape (n,), int
            Blocks, ascending.

        Raises
        ------
        DataError
            If a shard is no longer what was checked.
        """
        mapped, arrays = -1, _NOTHING
        for number, first, end, _ in self.blocks[chosen].tolist():
            if mapped != number:
                arrays = _NOTHING  # let go of one shard before the next
                mapped, arrays = number, self._mapped(number)
            starts = arrays[0][first : end + 1]  # (U + 1,)
            place = slice(int(starts[0]), int(starts[-1]))
            yield np.diff(starts), arrays[1][place], arrays[2][place]

    def parts(self) -> Iterator[sp.csr_matrix]:
        """Yield all rows in their order as matrices in memory, each of at least a block.

        One takes half of the buffer, the other half is for putting it together.
        """
        costs = INTERACTION_BYTES * self.blocks[:, 3] + USER_BYTES * (self.blocks[:, 2] - self.blocks[:, 1])
        room = max(self.buffer // 2 - int(costs.max(initial=0)), 1)
        edges = np.flatnonzero(np.diff((np.cumsum(costs) - costs) // room)) + 1
        for chosen in np.split(np.arange(len(costs)), edges):
            yield self.in_memory(chosen)

    def in_memory(self, chosen: np.ndarray) -> sp.csr_matrix:
        """Return the rows of some blocks, copied.

        Parameters
        ----------
        chosen : ndarray of shape (n,), int
            Blocks, ascending.
        """
        rows = [tuple(array.copy() for array in one) for one in self.read(chosen)]
        lengths, columns, values = (np.concatenate(of_blocks) for of_blocks in zip(*rows, strict=True))
        starts = np.append(0, np.cumsum(lengths))
        return sp.csr_matrix((values, columns, starts), shape=(len(lengths), self.shape[1]))


def parts_of(train: sp.csr_matrix | StoredRows) -> Iterator[sp.csr_matrix]:
    """Yield training rows in their order: a matrix in memory as it is, one that is streamed in several parts."""
    yield from train.parts() if isinstance(train, StreamedMatrix) else [cast(sp.csr_matrix, train)]


def first_users(train: sp.csr_matrix | StoredRows, n_users: int) -> sp.csr_matrix:
    """Return the rows of the first users."""
    if not isinstance(train, StreamedMatrix):
        return cast(sp.csr_matrix, train)[:n_users]
    ends = np.cumsum(train.blocks[:, 2] - train.blocks[:, 1])  # (K,)
    n_blocks = min(int(np.searchsorted(ends, n_users)) + 1, len(ends))
    return train.in_memory(np.arange(n_blocks))[:n_users]


def spread_users(train: sp.csr_matrix | StoredRows, n_users: int) -> sp.csr_matrix:
    """Return the rows of that many users or more, or of all: a matrix in memory as it is, else blocks far apart."""
    if not isinstance(train, StreamedMatrix):
        return cast(sp.csr_matrix, train)
    sizes = train.blocks[:, 2] - train.blocks[:, 1]  # (K,)
    n_blocks, chosen = _LEAST_BLOCKS, np.empty(0, dtype=np.int64)
    while len(chosen) < len(sizes) and (len(chosen) < _LEAST_BLOCKS or sizes[chosen].sum() < n_users):
        chosen = np.unique(np.linspace(0, len(sizes) - 1, n_blocks).astype(np.int64))
        n_blocks *= 2
    return train.in_memory(chosen)


def buffer_for(stream: bool, buffer: int | None) -> int | None:
    """Return how many bytes of training rows are held at a time, None for all: those not streamed need no buffer.

    Raises
    ------
    UsageError
        If there is a buffer without a stream.
    """
    if buffer is not None and not stream:
        raise UsageError(f"got buffer={buffer!r} without stream=True, where it has no effect; add that or leave it out")
    return BUFFER_BYTES if stream and buffer is None else buffer


def check_in_memory(train: sp.csr_matrix | StoredRows, purpose: str) -> None:
    """Refuse training rows that are streamed, where all are needed at once.

    Parameters
    ----------
    train : csr_matrix or StoredRows of shape (n_users, n_items)
        Of a data set.
    purpose : str
        For the message: what needs them.

    Raises
    ------
    UsageError
        If they are.
    """
    if isinstance(train, StoredRows):
        raise UsageError(
            f"got a data set whose training rows are streamed to {purpose}, which needs all of them in memory; load it "
            "without stream=True"
        )


def block_bytes(buffer: int) -> int:
    """Return how many bytes of the buffer a block takes, but for the last user in it.

    Parameters
    ----------
    buffer : int
        Its size in bytes.
    """
    return max(1, min(max(_LEAST_BLOCK, buffer // _BLOCKS), _MOST_BLOCK, buffer // _LEAST_BLOCKS))


def _blocks(number: int, starts: np.ndarray, size: int) -> np.ndarray:
    """Cut the rows of a shard into blocks of about that many bytes; return (K, 4), see `_Known`."""
    if len(starts) == 1:
        return np.empty((0, 4), dtype=np.int64)
    rows = np.arange(len(starts) - 1)
    before = INTERACTION_BYTES * starts[:-1] + USER_BYTES * rows  # (U,), bytes before each row
    edges = np.concatenate([[0], np.flatnonzero(np.diff(before // size)) + 1, [len(rows)]])  # (K + 1,)
    columns = (np.full(len(edges) - 1, number), edges[:-1], edges[1:], np.diff(starts[edges]))
    return np.stack(columns, axis=1).astype(np.int64)


def _check_rows(path: Path, starts: np.ndarray, columns: np.ndarray, values: np.ndarray, n_items: int) -> None:
    """Refuse rows that are not those of a sorted matrix of weights, in pieces that take little memory."""
    if starts[0] != 0 or starts[-1] != len(columns) or (np.diff(starts) < 0).any():
        raise DataError(f"{path} has rows that overlap or end beyond its interactions; preprocess again")
    for part in in_chunks(len(columns)):
        here = columns[part.start : part.stop + 1]  # with the first of the next piece
        if len(here) and not (here.min() >= 0 and here.max() < n_items):
            raise DataError(
                f"{path} has item columns from {here.min():,} to {here.max():,}, expected 0 to {n_items - 1:,}; "
                "preprocess again"
            )
        falls = np.flatnonzero(np.diff(here) <= 0) + part.start + 1  # allowed where a row begins
        if not (starts[np.searchsorted(starts, falls)] == falls).all():
            raise DataError(f"{path} has a row whose items are not in order, each once; preprocess again")
        weights = values[part]
        if len(weights) and not (weights.min() >= LEAST_WEIGHT and weights.max() <= MOST_WEIGHT):
            raise DataError(
                f"{path} has weights from {weights.min():.3g} to {weights.max():.3g}, expected {LEAST_WEIGHT:g} to "
                f"{MOST_WEIGHT:g}; preprocess again"
            )


def _mark(path: Path) -> _Mark:
    """Return what changes when a file is replaced or written to."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
