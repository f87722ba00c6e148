"""The items that the loss of a batch sees where it does not see all: those of its users, and drawn ones.

Letters in shape comments: N interactions of a batch, S items of the sample.
"""

from dataclasses import dataclass

import torch

from recvae.training.batches import SparseBatch


@dataclass(frozen=True)
class ItemSample:
    """The items that the loss of a batch sees.

    Parameters
    ----------
    items : Tensor of shape (n_sampled,), int64
        No item twice.
    positions : Tensor of shape (n_interactions,), int32
        Where the item of each interaction is in `items`.
    """

    items: torch.Tensor
    positions: torch.Tensor


def sample_items(batch: SparseBatch, n_items: int, n_draws: int, generator: torch.Generator) -> ItemSample:
    """Return the items of a batch and others, drawn evenly; one that is drawn twice, or is of the batch, counts once.

    Parameters
    ----------
    batch : SparseBatch
        The users.
    n_items, n_draws : int
        Items of the catalogue, and draws; as many draws as items stand for all items.
    generator : Generator
        On the device of the batch.
    """
    if batch.share is None:
        own, positions = batch.items.long().unique(return_inverse=True)  # (N,), ascending
    else:  # all that share the batch have one sample, with the items of them all
        own = batch.share.whole_items().to(batch.device).long().unique()
        positions = torch.searchsorted(own, batch.items.long())  # (N,)
    if n_draws >= n_items:
        drawn = torch.arange(n_items, device=batch.device)
    else:
        drawn = torch.randint(n_items, (n_draws,), generator=generator, device=batch.device).unique()
    others = drawn[~torch.isin(drawn, own, assume_unique=True)]
    return ItemSample(torch.cat([own, others]), positions.to(batch.offsets.dtype))  # (S,), (N,)
