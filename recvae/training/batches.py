"""Sparse rows of users, in batches, on the device: nothing of size users x items is ever dense.

Letters in shape comments: U users, I items, B users of a batch, N interactions stored in it; b and n of a part of it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import scipy.sparse as sp
import torch

from recvae.training.batch_parts import OwnItems, Share

RESIDENT_BYTES = 4 << 30  # on a GPU, interactions up to this size stay in its memory
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
        lengths = np.diff(matrix.indptr).astype(np.int64)  # (U,)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        norms = np.sqrt(np.bincount(rows, weights=matrix.data.astype(np.float64) ** 2, minlength=len(lengths)))
        inputs = matrix.data / norms[rows]  # an empty row has no entry to divide, so no 0 / 0
        totals = np.bincount(rows, weights=matrix.data, minlength=len(lengths))
        self.n_users = len(lengths)
        self._starts = torch.from_numpy(matrix.indptr[:-1].astype(np.int64)).to(device)  # (U,)
        self._lengths_on_host = torch.from_numpy(lengths)  # (U,)
        self._lengths = self._lengths_on_host.to(device)  # (U,)
        self._items = torch.from_numpy(matrix.indices.astype(np.int32)).to(device)
        self._values = torch.from_numpy(matrix.data.astype(np.float32)).to(device)
        self._inputs = torch.from_numpy(inputs.astype(np.float32)).to(device)
        self._totals = torch.from_numpy(totals.astype(np.float32)).to(device)  # (U,)

    @staticmethod
    def bytes_of(matrix: sp.csr_matrix) -> int:
        """Return how many bytes the tensors of a matrix take."""
        return SparseRows.bytes_for(matrix.shape[0], matrix.nnz)

    @staticmethod
    def bytes_for(n_users: int, n_interactions: int) -> int:
        """Return how many bytes the tensors of a matrix of that size take."""
        return 12 * n_interactions + 20 * n_users

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


def _index_type(n_interactions: int) -> torch.dtype:
    """Return the type of items and offsets, which must be the same: int32, as long as it can count them."""
    return torch.int32 if n_interactions <= _MOST_INT32 else torch.int64


def whole_batch(matrix: sp.csr_matrix, device: torch.device) -> SparseBatch:
    """Return all rows of a block of users as one batch."""
    return SparseRows(matrix, device).whole()


def batch_of(items: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> SparseBatch:
    """Return rows of interactions as one batch, by nothing that a PyTorch program or ONNX could not repeat.

    Positions are compared with offsets, and sums are products of matrices: runtimes leave open in which order they add
    up what is scattered. That takes a block of users x interactions, so that large batches had better be cut.

    Parameters
    ----------
    items : Tensor of shape (n_interactions,), int64
        Item column of each interaction, user after user.
    offsets : Tensor of shape (n_users + 1,), int64
        Where each user's interactions begin, and the last one's end.
    weights : Tensor of shape (n_interactions,), float32
        x_ui.

    Returns
    -------
    SparseBatch
        On the same device.
    """
    starts, ends = offsets[:-1], offsets[1:]  # (B,)
    position = torch.arange(items.shape[0], device=items.device)  # (N,)
    belongs = ((position >= starts[:, None]) & (position < ends[:, None])).to(weights.dtype)  # (B, N)
    norms = (belongs @ weights.square()).sqrt() @ belongs  # (N,) -> (B,) -> (N,)
    return SparseBatch(
        items=items,
        offsets=starts,
        rows=(position >= ends[:, None]).sum(dim=0),  # (B, N) -> (N,)
        values=weights,
        inputs=weights / torch.where(norms > 0, norms, 1.0),
        totals=belongs @ weights,  # (B,)
        lengths=ends - starts,
    )


class SparseBatches:
    """Shuffled batches of users, epoch after epoch; the last, smaller batch is kept.

    On the CPU, and on a GPU when the matrix fits into `resident_bytes`, batches are cut on the device itself.
    Otherwise a thread prepares them ahead in pinned memory of the host.

    Parameters
    ----------
    matrix : csr_matrix of shape (n_users, n_items), float32
        Checked interactions.
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
        matrix: sp.csr_matrix,
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
        self.prepares_ahead = device.type != "cpu" and SparseRows.bytes_of(matrix) > resident_bytes
        self._rows = SparseRows(matrix, torch.device("cpu") if self.prepares_ahead else device)
        self._rank, self._world_size, self._of_items = rank, world_size, of_items

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same for every process."""
        return -(-self._rows.n_users // self.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[SparseBatch]:
        """Yield every user exactly once, in an order drawn from a CPU generator.

        Yields
        ------
        SparseBatch
            On `device`.
        """
        # The order is drawn on the CPU, so that a seed means the same on every device and share.
        order = torch.randperm(self._rows.n_users, generator=generator)
        parts = order.split(self.batch_size)
        if self.prepares_ahead:
            yield from self._prepared(list(parts))
            return
        for users in parts:
            yield self._cut(users)

    def _cut(self, users: torch.Tensor) -> SparseBatch:
        """Return the share of this process; of every batch, so that all make the same number of updates."""
        if self._of_items is not None:
            return self._of_items(self._rows.batch(users))
        if self._world_size == 1:
            return self._rows.batch(users)
        return self._rows.part(users, self._rank, self._world_size)

    def _prepared(self, parts: list[torch.Tensor]) -> Iterator[SparseBatch]:
        def prepare(users: torch.Tensor) -> SparseBatch:
            batch = self._cut(users)
            return batch.map(torch.Tensor.pin_memory) if torch.cuda.is_available() else batch

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="recvae-batches") as pool:
            waiting: deque[Future[SparseBatch]] = deque()
            for users in parts:
                waiting.append(pool.submit(prepare, users))
                if len(waiting) > _AHEAD:
                    yield self._to_device(waiting.popleft().result())
            while waiting:
                yield self._to_device(waiting.popleft().result())

    def _to_device(self, batch: SparseBatch) -> SparseBatch:
        return batch.map(lambda tensor: tensor.to(self.device, non_blocking=True))
