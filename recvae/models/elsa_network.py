"""The network of ELSA, whose equations are in `elsa.py`: one matrix A that encodes and decodes.

Several processes may share the items (`Shard`): each has its rows of A, and of a batch it adds to x A, which all have
then, what its items give. It scores its own items alone, and |f(x)|^2 is the sum over all.

Letters in shape comments: B users, N interactions of them, I items, S sampled ones, D latent.
"""

from dataclasses import replace

import torch
from torch.nn import functional

from recvae.compute.collectives import replicated, summed
from recvae.compute.matmul import product
from recvae.compute.ranks import ALONE, Ranks, current
from recvae.models.common.item_networks import ItemNetwork, ItemVectors
from recvae.models.common.networks import sparse_product
from recvae.training.batches import SparseBatch
from recvae.training.item_samples import ItemSample

_LEAST = 1e-4  # of |f(x)|^2: float32 cannot tell it from 0 below about 1e-6, and gradients would explode
_TINY = 1e-12  # least length of a row, as in PyTorch's normalize


class ELSANetwork(ItemNetwork):
    """One matrix A that encodes and decodes.

    Parameters
    ----------
    n_items, latent_dim : int
        Shape of A.
    row_wise : bool
        Whether only some rows of A learn in an update, so that no step may make another A.
    sparse : bool
        Whether entries of A that are 0 stay 0 while it learns.
    """

    def __init__(self, n_items: int, latent_dim: int, *, row_wise: bool = False, sparse: bool = False) -> None:
        super().__init__(n_items)
        self.items = ItemVectors(n_items, latent_dim)
        self.row_wise, self.sparse = row_wise, sparse
        self._scale: tuple[int, torch.Tensor] | None = None

    @property
    def output(self) -> ItemVectors:
        """The layer of A."""
        return self.items

    def vectors(self, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return A with rows of length 1, shape (n_items, latent_dim); or some of its rows, with sparse gradients."""
        weight = self.items.weight
        if not weight.requires_grad:  # fitted, it is of length 1 already
            return weight if items is None else weight[items]
        if items is not None:
            weight = functional.embedding(items, weight, sparse=True)  # (S,) -> (S, D)
        vectors = functional.normalize(weight)
        return vectors * (weight != 0) if self.sparse else vectors  # what is 0 has no gradient then

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return x A, shape (n_users, latent_dim)."""
        if self.row_wise and self.items.weight.requires_grad:
            inputs = batch.values * self._scales()[batch.items.long()]  # (N,)
            return sparse_product(batch, inputs, self.items.weight)
        own = sparse_product(batch, batch.values, self.vectors())  # (N,) -> (B, D)
        return summed(own, _ranks_of(batch))

    def forward(self, batch: SparseBatch) -> torch.Tensor:
        """Return x A A^T - x, shape (n_users, n_items)."""
        if self.row_wise and self.items.weight.requires_grad:
            scores = product(self.code(batch), self.items.weight.t()) * self._scales()  # (B, D) x (D, I) -> (B, I)
        else:
            scores = product(self.code(batch), self.vectors().t())  # (B, D) x (D, I) -> (B, I)
        return scores.index_put((batch.rows, batch.items.long()), -batch.values, accumulate=True)

    def _scales(self) -> torch.Tensor:
        """Return 1 over the lengths of the rows, shape (n_items,), as long as A stays the same."""
        weight = self.items.weight
        if self._scale is None or self._scale[0] != weight._version:
            self._scale = weight._version, 1 / torch.linalg.vector_norm(weight, dim=1).clamp_(min=_TINY)
        return self._scale[1]

    @torch.no_grad()
    def fix(self, *, in_place: bool) -> None:
        """Give the rows of A length 1 for good, unless they have it: scoring then need not do it each time.

        Parameters
        ----------
        in_place : bool
            Whether A may be written to, which may be a file mapped into memory.
        """
        weight = self.items.weight.requires_grad_(False)
        self._scale = None
        lengths = torch.linalg.vector_norm(weight, dim=1, keepdim=True)  # (I, 1)
        if not torch.allclose(lengths.square(), torch.ones_like(lengths), atol=1e-4):
            lengths.clamp_(min=_TINY)
            weight.data = weight.data.div_(lengths) if in_place else weight / lengths

    def cosine(self, batch: SparseBatch, sample: ItemSample | None = None) -> torch.Tensor:
        """Return the cosine of x and f(x) of each user, shape (n_users,); 0 for a user without interactions.

        Parameters
        ----------
        batch : SparseBatch
            The users.
        sample : ItemSample, optional
            The only items that x and f(x) have; by default all.
        """
        vectors = self.vectors(None if sample is None else sample.items)  # (I, D) or (S, D)
        if sample is not None:
            batch = replace(batch, items=sample.positions)
        ranks = _ranks_of(batch)
        hidden = summed(sparse_product(batch, batch.inputs, vectors), ranks)  # (N,) -> (B, D), of rows of length 1
        length = (batch.totals > 0).to(hidden.dtype)  # (B,) |x|^2, of all items of a user
        explained = hidden.square().sum(dim=1)  # (B,) |h|^2
        if len(batch) <= vectors.shape[1]:
            scores = product(replicated(hidden, ranks), vectors.t())  # (B, D) x (D, I) -> (B, I)
            scores = scores.index_put((batch.rows, batch.items.long()), -batch.inputs, accumulate=True)
            square = summed(scores.square().sum(dim=1), ranks)  # (B,) |f(x)|^2
        else:
            gram = summed(product(vectors.t(), vectors), ranks)  # (D, I) x (I, D) -> (D, D)
            square = (product(hidden, gram) * hidden).sum(dim=1) - 2 * explained + length
        return (explained - length) / square.clamp(min=_LEAST).sqrt()


def _ranks_of(batch: SparseBatch) -> Ranks:
    """Return the processes over which a batch is added up: those that share its items."""
    return ALONE if batch.own is None else current()
