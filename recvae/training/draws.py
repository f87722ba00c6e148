"""Noise for the users of a batch: the same numbers, however many processes share the batch.

Each process draws the noise of the whole batch and takes that of its own users: drawing is cheap next to what a network
computes, and the generators of all stay in step.

Letters in shape comments: B users of a batch, N interactions in it.
"""

from collections.abc import Callable

import torch

from recvae.training.batches import SparseBatch

Draw = Callable[..., torch.Tensor]
"""`torch.rand` or `torch.randn`."""


def of_interactions(draw: Draw, batch: SparseBatch, generator: torch.Generator) -> torch.Tensor:
    """Return a draw for each interaction of a batch.

    Parameters
    ----------
    draw : callable
        `torch.rand` or `torch.randn`.
    batch : SparseBatch
        Whole, or what one of several processes has of it.
    generator : Generator
        On the device of the batch.

    Returns
    -------
    Tensor of shape (n_interactions,), float32
    """
    part = batch.share or batch.own
    if part is None:
        return draw(batch.inputs.shape, generator=generator, device=batch.device)  # (N,)
    whole = draw((part.n_interactions,), generator=generator, device=batch.device)
    return whole[part.interactions]  # (N,)


def of_users(
    draw: Draw, batch: SparseBatch, width: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return as many draws for each user of a batch as asked for.

    Parameters
    ----------
    draw, batch, generator
        See `of_interactions`.
    width : int
        Draws for a user.
    dtype : torch.dtype
        Of the draws.

    Returns
    -------
    Tensor of shape (n_users, width)
    """
    n_users = len(batch) if batch.share is None else batch.share.n_users
    whole = draw((n_users, width), generator=generator, device=batch.device, dtype=dtype)
    return whole if batch.share is None else whole[batch.share.users]  # (B, width)
