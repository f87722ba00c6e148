"""What a denoising autoencoder does to its input: masking, Gaussian noise, or salt and pepper.

Vincent, Larochelle, Lajoie, Bengio and Manzagol, JMLR 2010, section 3.3. Noise that also falls on items a user has
not touched is a dense block of one batch; masking needs only the stored values.
"""

from dataclasses import dataclass

import torch

from recvae.batches import SparseBatch
from recvae.models.networks import dropout

# Letters in shape comments: B users of a batch, N interactions stored in it, I items.

NOISES = ("masking", "gaussian", "salt-and-pepper")


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
    """Return the L2-normalised rows of a batch with noise.

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
        return NoisyInput(dropout(batch.inputs, share, generator))
    shape = (len(batch), n_items)
    if noise == "gaussian":
        extra = torch.randn(shape, generator=generator, device=batch.device) * level  # (B, I)
        return NoisyInput(batch.inputs, extra)
    draw = torch.rand(shape, generator=generator, device=batch.device)  # (B, I)
    highest = torch.zeros(len(batch), device=batch.device)
    highest = highest.scatter_reduce(0, batch.rows, batch.inputs, "amax")  # (N,) -> (B,)
    untouched = draw[batch.rows, batch.items.long()] >= level  # (N,)
    return NoisyInput(batch.inputs * untouched, (draw < level / 2) * highest[:, None])
