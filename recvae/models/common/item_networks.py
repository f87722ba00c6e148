"""What a network states of its items and of its latent variables.

Letters in shape comments: B users of a batch, I items, H width of the last layer, D latent dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from recvae.models.common.networks import SparseLinear
from recvae.training.batches import SparseBatch
from recvae.training.shards import Shard

Draw = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""Standard normal noise (n_users, code width) -> codes of that shape, and log p(z) - log q(z | x) of each user.

The latter is None where the model has no distribution of codes, or its prior is not known.
"""


class ItemNetwork(nn.Module, ABC):
    """A network from users' rows to scores of all items; it states its item layer once, as `output`.

    Parameters
    ----------
    n_items : int
        Width of input and output.
    """

    prior: Any  # a module or None; Any, so that a network may say which module
    """What only training has, in networks that have it: neither scored with nor kept in a bundle."""

    shard: Shard | None = None
    """Which items it has, where several processes share those of a larger network; None: it has all."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    @property
    @abstractmethod
    def output(self) -> "nn.Linear | ItemVectors":
        """The last layer, which makes the scores: its `weight` has a row for each item, shape (n_items, width)."""

    def item_parameters(self) -> dict[str, nn.Parameter]:
        """Return by name the parameters that have a row for each item, of the first layers and the last."""
        layers = [module.weight for module in self.modules() if isinstance(module, SparseLinear)]
        found = {id(one) for one in (*layers, *self.output.parameters())}
        return {name: parameter for name, parameter in self.named_parameters() if id(parameter) in found}

    @abstractmethod
    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return what the encoder makes of each user, without any noise, shape (n_users, latent_dim)."""

    def posterior(self, batch: SparseBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mean and log-variance of the codes of each user, (n_users, latent_dim); None where they have none."""
        return self.code(batch), None

    @abstractmethod
    def forward(self, batch: SparseBatch) -> torch.Tensor:
        """Return the scores of each user, without any noise, shape (n_users, n_items)."""


class LogitNetwork(ItemNetwork):
    """A network whose last layer is linear and makes logits of the items."""

    @property
    @abstractmethod
    def output(self) -> nn.Linear:
        """The last layer, whose outputs are the logits of the items."""


class ProductNetwork(LogitNetwork):
    """A network whose scores are what its last layer makes of a user's vector: inner products plus a bias."""

    @abstractmethod
    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return what the last layer makes logits of, shape (n_users, width)."""

    def hidden(self, batch: SparseBatch) -> torch.Tensor:
        """Return what the last layer is given, without any noise, shape (n_users, width)."""
        return self.decode(self.code(batch))  # (B, D) -> (B, H)

    def draws(self, batch: SparseBatch) -> Draw:
        """Return what turns noise into draws of the users' codes, with the prior N(0, I).

        log p(z) - log q(z | x) with z = mean + sigma e is sum_d (e_d^2 + log sigma_d^2 - z_d^2) / 2.
        """
        mean, logvar = self.posterior(batch)  # (B, D)
        if logvar is None:
            return lambda _: (mean, None)
        sigma = (0.5 * logvar).exp()

        def draw(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = mean + noise * sigma  # (B, D)
            return z, 0.5 * (noise.square() + logvar - z.square()).sum(dim=1)  # (B, D) -> (B,)

        return draw

    @property
    def has_normal_prior(self) -> bool:
        """Whether the prior is N(0, I), so that the divergence from it is known; not where `draws` is its own."""
        return type(self).draws is ProductNetwork.draws

    def forward(self, batch: SparseBatch) -> torch.Tensor:
        """Return the logits, shape (n_users, n_items)."""
        return self.output(self.hidden(batch))  # (B, H) -> (B, I)


class ItemVectors(nn.Module):
    """An item layer without bias: one vector for each item.

    Parameters
    ----------
    n_items, width : int
        Shape of the weight.
    """

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items, width))
