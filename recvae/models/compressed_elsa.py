"""Compressed ELSA: what `entries` adds to `elsa`.

Vancura, Spisak, Alves and Peska, Efficient Learning of Sparse Representations from Interactions, WWW 2026. Each row of
A keeps its largest entries by size, fewer and fewer of them: after epoch e of E,

    k_e = latent_dim^(1 - s) entries^s,  s = min(1, e / (3/4 E))

What is 0 stays 0, so that a quarter of the epochs trains what is left. The authors halve k every few epochs and train
as long again at the end; their code may also set what is left back to where it began, which is not done here. Rows of
the result have length 1, but for rounding to 16 bits. An epoch is validated with what would be left at the end.
"""

from typing import Any

import torch

from recvae.compute.collectives import summed
from recvae.compute.ranks import current
from recvae.errors import UsageError
from recvae.models.common.item_networks import ItemNetwork, ItemVectors
from recvae.models.common.sparse_vectors import WIDEST, SparseItemVectors
from recvae.training.batches import SparseBatch

# Letters in shape comments: B users of a batch, N interactions stored in it, I items, D latent dimensions.

_SHRINKING = 0.75  # of the epochs, in which rows of A lose entries


def entries_after(epoch: int, epochs: int, latent_dim: int, entries: int) -> int:
    """Return how many entries each row of A keeps after an epoch, fewer by the same factor each time.

    Parameters
    ----------
    epoch, epochs : int
        Epochs done, and of the whole run.
    latent_dim, entries : int
        Entries at the beginning and at the end.
    """
    share = min(1.0, epoch / max(1, round(_SHRINKING * epochs)))
    return round(latent_dim ** (1 - share) * entries**share)


def check_entries(entries: int | None, latent_dim: int) -> None:
    """Refuse more entries than there are columns, and more columns than an entry can name.

    Raises
    ------
    UsageError
        With both numbers.
    """
    if entries is not None and entries > latent_dim:
        raise UsageError(
            f"got entries={entries} with latent_dim={latent_dim}, expected at most as many; "
            "lower entries or raise latent_dim"
        )
    if entries is not None and latent_dim > WIDEST:
        raise UsageError(f"got latent_dim={latent_dim} with entries={entries}, expected at most {WIDEST:,}; lower it")


class CompressedNetwork(ItemNetwork):
    """A with few entries in each row, for scoring.

    Parameters
    ----------
    vectors : SparseItemVectors
        A.
    """

    def __init__(self, vectors: SparseItemVectors) -> None:
        super().__init__(len(vectors.columns))
        self.items = vectors

    @property
    def output(self) -> ItemVectors:
        """There is none.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError("got a compressed ELSA, whose item vectors are sparse; read them from `weights()`")

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return x A, shape (n_users, latent_dim)."""
        own = self.items.code(batch)  # (N,) -> (B, D)
        return own if batch.own is None else summed(own, current())  # with the items of other processes

    def item_parameters(self) -> dict[str, Any]:
        """Return by name what has a row for each item; see `ItemNetwork.item_parameters`."""
        return dict(self.items.named_buffers(prefix="items"))

    def forward(self, batch: SparseBatch) -> torch.Tensor:
        """Return x A A^T - x, shape (n_users, n_items)."""
        scores = self.items.products(self.code(batch))  # (B, D) -> (B, I)
        return scores.index_put((batch.rows, batch.items.long()), -batch.values, accumulate=True)
