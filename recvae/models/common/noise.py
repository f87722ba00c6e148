"""Noise of training: dropout, draws of codes, corrupted inputs.

Letters in shape comments: B users of a batch, N interactions in it, I items, D latent dimensions.
"""

from dataclasses import dataclass

import torch

from recvae.training.batches import SparseBatch
from recvae.training.draws import of_interactions, of_users

NOISES = ("masking", "gaussian", "salt-and-pepper")


def dropout(
    values: torch.Tensor, probability: float, generator: torch.Generator, of: SparseBatch | None = None
) -> torch.Tensor:
    """Set each value to 0 with a probability and scale the others by 1 / (1 - probability).

    Parameters
    ----------
    values : Tensor
        Of any shape. For a sparse row only the stored values need be drawn: the others are 0 anyway.
    probability : float
        In [0, 1).
    generator : Generator
        On the device of `values`.
    of : SparseBatch, optional
        Whose interactions have the values; None where several processes have the same values.
    """
    if probability == 0:
        return values
    if of is None:
        draw = torch.rand(values.shape, generator=generator, device=values.device)
    else:
        draw = of_interactions(torch.rand, of, generator)  # (N,)
    kept = draw >= probability
    return values * kept / (1 - probability)


def sample(
    mean: torch.Tensor, logvar: torch.Tensor, generator: torch.Generator, of: SparseBatch | None = None
) -> torch.Tensor:
    """Return a draw from N(mean, exp(logvar)) that gradients pass through, with noise of unit variance.

    Parameters
    ----------
    mean, logvar : Tensor of shape (n_users, latent_dim)
        Parameters of the posterior.
    generator : Generator
        On the same device.
    of : SparseBatch, optional
        The users; needed where several processes share a batch.
    """
    if of is None:
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    else:
        noise = of_users(torch.randn, of, mean.shape[1], generator, mean.dtype)  # (B, D)
    return mean + noise * torch.exp(0.5 * logvar)


@dataclass(frozen=True)
class NoisyInput:
    """A corrupted input in two parts, to be added up.

    Parameters
    ----------
    values : Tensor of shape (n_interactions,)
        At the user's own items.
    extra : Tensor of shape (n_users, n_items) or None
        At all items, None where it would be 0.
    """

    values: torch.Tensor
    extra: torch.Tensor | None = None


def corrupt(
    batch: SparseBatch, n_items: int, noise: str, share: float, level: float, generator: torch.Generator
) -> NoisyInput:
    """Return the L2-normalised rows of a batch with noise: Vincent et al., JMLR 2010, section 3.3.

    Noise that also falls on items a user has not touched is a dense block of one batch; masking needs only the stored
    values.

    Parameters
    ----------
    batch : SparseBatch
        The users.
    n_items : int
        Width of the input.
    noise : str
        "masking" sets a `share` of the user's values to 0 and scales up the others, so that the mean stays; "gaussian"
        adds N(0, level^2) to every item's value; "salt-and-pepper" sets a share `level` of all items, the user's own
        or not, by the toss of a coin to 0 or to the user's highest value.
    share, level : float
        In [0, 1), and >= 0 (salt and pepper: at most 1).
    generator : Generator
        On the device of the batch.
    """
    if noise == "masking":
        return NoisyInput(dropout(batch.inputs, share, generator, batch))
    if noise == "gaussian":
        return NoisyInput(batch.inputs, of_users(torch.randn, batch, n_items, generator) * level)  # (B, I)
    draw = of_users(torch.rand, batch, n_items, generator)  # (B, I)
    highest = torch.zeros(len(batch), device=batch.device)
    highest = highest.scatter_reduce(0, batch.rows, batch.inputs, "amax")  # (N,) -> (B,)
    untouched = draw[batch.rows, batch.items.long()] >= level  # (N,)
    return NoisyInput(batch.inputs * untouched, (draw < level / 2) * highest[:, None])
