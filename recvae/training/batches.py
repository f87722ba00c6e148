"""Sparse rows of users, in batches, on the device: nothing of size users x items is ever dense.

Letters in shape comments: U users, I items, B users of a batch, N interactions stored in it; b and n of a part of it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch

from recvae.datasets.streams import INTERACTION_BYTES, USER_BYTES, Rows, StreamedMatrix
from recvae.training.batch_parts import OwnItems, Share
from recvae.training.buffers import Buffer

RESIDENT_BYTES = 4 << 30  # on a GPU, interactions up to this size stay in its memory
PIECE = 1 << 18  # interactions that rows are made of at a time
_MOST_INT32 = 2**31 - 1
_AHEAD = 2  # batches prepared in advance where they do not


@dataclass(frozen=True)
class SparseBatch:
    """The interactions of some users, as a network takes them.

    Parameters
    ----------
    items : Tensor of shape (n_interactions,), int32
        Item column of each interaction, user after user; int64 where offsets are.
    offsets : Tensor of shape (n_users,), int32
        Where each user's interactions begin; int64 beyond 2**31 - 1 interactions.
    rows : Tensor of shape (n_interactions,), int64
        User of each interaction, as a row of the batch.
    values : Tensor of shape (n_interactions,), float32
        x_ui, the target of the likelihood.
    inputs : Tensor of shape (n_interactions,), float32
        x_ui over the L2 norm of the user's row, what the encoder is given.
    totals : Tensor of shape (n_users,), float32
        sum_i x_ui.
    lengths : Tensor of shape (n_users,), int64
        Number of interactions of each user.
    share : Share, optional
        Which part of a batch it is, where several processes share it.
    own : OwnItems, optional
        Which interactions it has, where several processes share the items.
    """

    items: torch.Tensor
    offsets: torch.Tensor
    rows: torch.Tensor
    values: torch.Tensor
    inputs: torch.Tensor
    totals: torch.Tensor
    lengths: torch.Tensor
    share: Share | None = None
    own: OwnItems | None = None

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.offsets)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.items.device

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "SparseBatch":
        """Return the batch with `move` applied to each tensor."""
        share, own = self.share and self.share.map(move), self.own and self.own.map(move)
        tensors = {field.name: getattr(self, field.name) for field in fields(self)[:-2]}
        return replace(self, share=share, own=own, **{name: move(tensor) for name, tensor in tensors.items()})


class SparseRows:
    """A users x items matrix as tensors on one device, from which batches of rows are cut.

    Parameters
    ----------
    matrix : csr_matrix of shape (n_users, n_items), float32
        Checked interactions.
    device : torch.device
        Where the tensors shall lie.
    """

    def __init__(self, matrix: sp.csr_matrix, device: torch.device) -> None:
        self._hold(rows_of(matrix), matrix.shape[0], matrix.nnz, device)

    @classmethod
    def joined(cls, rows: Iterable[Rows], n_users: int, n_interactions: int, device: torch.device) -> "SparseRows":
        """Return consecutive rows in several parts as one, each part copied as it comes."""
        made = cls.__new__(cls)
        made._hold(rows, n_users, n_interactions, device)
        return made

    def _hold(self, rows: Iterable[Rows], n_users: int, n_interactions: int, device: torch.device) -> None:
        lengths, totals = torch.empty(n_users, dtype=torch.int64), torch.empty(n_users)  # (U,)
        items = torch.empty(n_interactions, dtype=torch.int32)  # (N,)
        values, inputs = torch.empty(n_interactions), torch.empty(n_interactions)  # (N,)
        user = place = 0
        for of_rows, columns, weights in rows:
            users, here = slice(user, user + len(of_rows)), slice(place, place + len(columns))
            of_each = np.repeat(np.arange(len(of_rows)), of_rows)  # (n,)
            norms = np.sqrt(np.bincount(of_each, weights=weights.astype(np.float64) ** 2, minlength=len(of_rows)))
            lengths.numpy()[users], items.numpy()[here], values.numpy()[here] = of_rows, columns, weights
            inputs.numpy()[here] = weights / norms[of_each]  # an empty row has no entry to divide, so no 0 / 0
            totals.numpy()[users] = np.bincount(of_each, weights=weights, minlength=len(of_rows))
            user, place = users.stop, here.stop
        self.n_users = n_users
        self._starts = (lengths.cumsum(0) - lengths).to(device)  # (U,)
        self._lengths_on_host, self._lengths = lengths, lengths.to(device)  # (U,)
        self._items, self._values, self._inputs = items.to(device), values.to(device), inputs.to(device)
        self._totals = totals.to(device)  # (U,)

    @staticmethod
    def bytes_of(matrix: sp.csr_matrix | StreamedMatrix) -> int:
        """Return how many bytes the tensors of a matrix take."""
        return SparseRows.bytes_for(matrix.shape[0], matrix.nnz)

    @staticmethod
    def bytes_for(n_users: int, n_interactions: int) -> int:
        """Return how many bytes the tensors of a matrix of that size take."""
        return INTERACTION_BYTES * n_interactions + USER_BYTES * n_users

    def whole(self) -> SparseBatch:
        """Return all rows as one batch."""
        of_users = torch.arange(self.n_users, device=self._items.device)
        kind = _index_type(len(self._items))
        return SparseBatch(
            items=self._items.to(kind),
            offsets=self._starts.to(kind),
            rows=torch.repeat_interleave(of_users, self._lengths, output_size=len(self._items)),  # (U,) -> (N,)
            values=self._values,
            inputs=self._inputs,
            totals=self._totals,
            lengths=self._lengths,
        )

    def batch(self, users: torch.Tensor) -> SparseBatch:
        """Return the rows of some users as a batch.

        Parameters
        ----------
        users : Tensor of shape (n_users,), int64
            Row numbers, on the CPU.

        Returns
        -------
        SparseBatch
            In the order of `users`.
        """
        n = int(self._lengths_on_host[users].sum())  # counted on the host: a GPU would have to be waited for
        users = users.to(self._items.device, non_blocking=True)
        lengths = self._lengths[users]  # (B,)
        offsets = lengths.cumsum(0) - lengths  # (B,)
        of_batch = torch.arange(len(users), device=users.device)
        rows = torch.repeat_interleave(of_batch, lengths, output_size=n)  # (B,) -> (N,)
        position = torch.arange(len(rows), device=users.device) + (self._starts[users] - offsets)[rows]  # (N,)
        kind = _index_type(n)
        return SparseBatch(
            items=self._items[position].to(kind),
            offsets=offsets.to(kind),
            rows=rows,
            values=self._values[position],
            inputs=self._inputs[position],
            totals=self._totals[users],
            lengths=lengths,
        )

    def taken(self, users: torch.Tensor) -> Rows:
        """Return some rows, copied; see `batch`."""
        batch = self.batch(users)
        return batch.lengths.numpy(), batch.items.numpy(), batch.values.numpy()

    def part(self, users: torch.Tensor, rank: int, world_size: int) -> SparseBatch:
        """Return every `world_size`-th user of a batch, from that of the rank on, with `share`; see `batch`."""
        own = torch.arange(len(users))[rank::world_size]
        counted, own = len(own), own if len(own) else torch.zeros(1, dtype=torch.int64)
        batch = self.batch(users[own])
        lengths = self._lengths_on_host[users]  # (B,) of the whole batch
        starts = (lengths.cumsum(0) - lengths)[own].to(batch.device)  # (b,) of this part
        position = torch.arange(len(batch.items), device=batch.device)  # (n,)
        share = Share(
            n_users=len(users),
            n_interactions=int(lengths.sum()),
            counted=counted,
            users=own.to(batch.device),
            interactions=position + (starts - batch.offsets)[batch.rows],
            whole_items=lambda: self.batch(users).items,
        )
        return replace(batch, share=share)


def rows_of(matrix: sp.csr_matrix) -> Iterator[Rows]:
    """Yield the rows of a matrix in pieces, so that little memory is taken for what is made of them at a time."""
    lengths = np.diff(matrix.indptr).astype(np.int64)  # (U,)
    edges = np.flatnonzero(np.diff(matrix.indptr[:-1] // PIECE)) + 1
    for first, end in pairwise([0, *edges.tolist(), len(lengths)]):
        place = slice(int(matrix.indptr[first]), int(matrix.indptr[end]))
        yield lengths[first:end], matrix.indices[place], matrix.data[place]


def _index_type(n_interactions: int) -> torch.dtype:
    """Return the type of items and offsets, which must be the same: int32, as long as it can count them."""
    return torch.int32 if n_interactions <= _MOST_INT32 else torch.int64


def whole_batch(matrix: sp.csr_matrix, device: torch.device) -> SparseBatch:
    """Return all rows of a block of users as one batch."""
    return SparseRows(matrix, device).whole()


class SparseBatches:
    """Shuffled batches of users, epoch after epoch; the last, smaller batch is kept.

    On the CPU, and on a GPU when the matrix fits into `resident_bytes`, batches are cut on the device itself.
    Otherwise a thread prepares them ahead in pinned memory of the host.

    Parameters
    ----------
    matrix : csr_matrix or StreamedMatrix of shape (n_users, n_items), float32
        Checked interactions. Of one that is streamed no more is held than its buffer; see `recvae.training.buffers`.
    batch_size : int
        Users per batch, >= 1.
    device : torch.device
        Where batches are wanted.
    resident_bytes : int
        Budget for keeping the matrix on a GPU.
    rank, world_size : int
        Which share of the users this process takes, out of how many.
    of_items : callable, optional
        What makes of a batch what this process has of it, where several share the items; see `Shard.of_batch`.
    """

    def __init__(
        self,
        matrix: sp.csr_matrix | StreamedMatrix,
        batch_size: int,
        device: torch.device,
        *,
        resident_bytes: int = RESIDENT_BYTES,
        rank: int = 0,
        world_size: int = 1,
        of_items: Callable[[SparseBatch], SparseBatch] | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.device = device
        self._n_users = matrix.shape[0]
        passes = isinstance(matrix, StreamedMatrix) and not matrix.fits  # through the buffer
        self.prepares_ahead = device.type != "cpu" and (passes or SparseRows.bytes_of(matrix) > resident_bytes)
        hold = partial(SparseRows.joined, device=torch.device("cpu") if self.prepares_ahead else device)
        self._source: Buffer[SparseRows] | SparseRows
        if not isinstance(matrix, StreamedMatrix):
            self._source = hold(rows_of(matrix), self._n_users, matrix.nnz)
        elif passes:
            self._source = Buffer(matrix, hold)
        else:
            self._source = hold(matrix.read(np.arange(len(matrix.blocks))), self._n_users, matrix.nnz)
        self._rank, self._world_size, self._of_items = rank, world_size, of_items

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same for every process."""
        return -(-self._n_users // self.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[SparseBatch]:
        """Yield every user exactly once, in an order drawn from a CPU generator.

        Yields
        ------
        SparseBatch
            On `device`.
        """
        batches = self._batches(generator)
        return self._prepared(batches) if self.prepares_ahead else batches

    def _batches(self, generator: torch.Generator) -> Iterator[SparseBatch]:
        # The order is drawn on the CPU, so that a seed means the same on every device and share.
        if isinstance(self._source, Buffer):
            yield from self._source.epoch(generator, self.batch_size, self._cut)
            return
        order = torch.randperm(self._n_users, generator=generator)
        for users in order.split(self.batch_size):
            yield self._cut(self._source, users)

    def _cut(self, rows: SparseRows, users: torch.Tensor) -> SparseBatch:
        """Return the share of this process; of every batch, so that all make the same number of updates."""
        if self._of_items is not None:
            return self._of_items(rows.batch(users))
        if self._world_size == 1:
            return rows.batch(users)
        batch = rows.part(users, self._rank, self._world_size)
        if batch.share is None or not isinstance(self._source, Buffer):
            return batch
        items = batch.share.whole_items()  # now, since these rows will make room for others
        return replace(batch, share=replace(batch.share, whole_items=lambda: items))

    def _prepared(self, batches: Iterator[SparseBatch]) -> Iterator[SparseBatch]:
        def prepare() -> SparseBatch | None:
            batch = next(batches, None)
            return batch if batch is None or not torch.cuda.is_available() else batch.map(torch.Tensor.pin_memory)

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="recvae-batches") as pool:  # one: in their order
            waiting = deque(pool.submit(prepare) for _ in range(_AHEAD + 1))
            while (batch := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(prepare))
                yield self._to_device(batch)

    def _to_device(self, batch: SparseBatch) -> SparseBatch:
        return batch.map(lambda tensor: tensor.to(self.device, non_blocking=True))
