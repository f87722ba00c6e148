"""Building blocks of the networks: a first layer that takes sparse rows as they are, and the papers' initialisation.

Letters in shape comments: B users of a batch, N interactions stored in it, I items, H width of a layer.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from recvae.batches import SparseBatch

BIAS_STD = 1e-3


class SparseLinear(nn.Module):
    """A linear layer on sparse rows: adds up the weight rows of a user's items, no dense input in between.

    Parameters
    ----------
    n_items : int
        Width of the input.
    width : int
        Width of the output.
    """

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items, width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, batch: SparseBatch, inputs: torch.Tensor) -> torch.Tensor:
        """Return W^T x + b of each user, shape (n_users, width).

        Parameters
        ----------
        batch : SparseBatch
            Whose items count.
        inputs : Tensor of shape (n_interactions,)
            The values of x at these items.
        """
        hidden = functional.embedding_bag(
            batch.items, self.weight, batch.offsets, mode="sum", per_sample_weights=inputs
        )  # (N,) -> (B, H)
        return hidden + self.bias


def layers(widths: list[int]) -> nn.ModuleList:
    """Return linear layers from width to width, not initialised: no global random state is touched."""
    return nn.ModuleList(nn.utils.skip_init(nn.Linear, first, second) for first, second in pairwise(widths))


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Fill weights with Glorot's uniform draw and biases with a normal of std 0.001 cut at two std (Liang et al.).

    Parameters
    ----------
    network : Module
        Of linear layers, on the CPU.
    generator : Generator
        The only source of randomness.
    """
    for parameter in network.parameters():
        if parameter.dim() == 2:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            nn.init.trunc_normal_(parameter, std=BIAS_STD, a=-2 * BIAS_STD, b=2 * BIAS_STD, generator=generator)


def dropout(values: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Set each value to 0 with a probability and scale the others by 1 / (1 - probability).

    Parameters
    ----------
    values : Tensor
        Of any shape. For a sparse row only the stored values need be drawn: the others are 0 anyway.
    probability : float
        In [0, 1).
    generator : Generator
        On the device of `values`.
    """
    if probability == 0:
        return values
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= probability
    return values * kept / (1 - probability)
