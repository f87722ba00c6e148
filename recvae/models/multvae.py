"""Mult-VAE: Liang, Krishnan, Hoffman and Jebara, Variational Autoencoders for Collaborative Filtering, WWW 2018.

    z_u ~ N(0, I),  x_u ~ Mult(n_u, softmax(f(z_u)))                                    (eq. 1)
    L_u = E_q[log p(x_u | z_u)] - beta KL(q(z_u | x_u) || p(z_u))                       (eq. 5)
    q(z_u | x_u) = N(mu(x_u), diag sigma^2(x_u))

The encoder sees the L2-normalised row after dropout, the likelihood the row itself. beta is annealed from 0 to
a cap below 1. Scores are f(mu(x_u)): nothing is sampled once training is over.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from recvae.errors import UsageError
from recvae.models.common.hyperparameters import Range, Space, hyperparameter
from recvae.models.common.item_networks import ProductNetwork
from recvae.models.common.likelihood import TIED, LikelihoodChoice
from recvae.models.common.networks import SparseLinear, TiedLinear, layers
from recvae.models.common.noise import dropout, sample
from recvae.models.common.variational import VariationalAutoencoder
from recvae.training.batches import SparseBatch
from recvae.training.latents import kl_beyond_free_bits
from recvae.training.losses import kl_to_standard_normal
from recvae.training.step_sizes import DECAYS
from recvae.training.task import Losses

# Letters in shape comments: B users of a batch, N interactions stored in it, I items, D latent dimensions.


class MultVAENetwork(ProductNetwork):
    """Encoder and decoder with tanh between linear layers.

    Parameters
    ----------
    n_items : int
        Width of input and output.
    hidden_dims : tuple of int
        Widths between items and latent variables; the decoder has them in reverse.
    latent_dim : int
        Number of latent variables.
    tied : bool
        Whether the last layer has the weight of the first; not without hidden layers.
    """

    def __init__(self, n_items: int, hidden_dims: tuple[int, ...], latent_dim: int, tied: bool = False) -> None:
        super().__init__(n_items)
        width, *others = [*hidden_dims, 2 * latent_dim]
        first = SparseLinear(n_items, width)
        self.encoder = nn.ModuleList([first, *layers([width, *others])])
        widths = [latent_dim, *reversed(hidden_dims), n_items]
        self.decoder = nn.ModuleList([*layers(widths[:-1]), TiedLinear(first)]) if tied else layers(widths)

    def encode(self, batch: SparseBatch, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of q(z | x), each of shape (n_users, latent_dim)."""
        hidden = self.encoder[0](batch, inputs)  # (N,) -> (B, H)
        for layer in self.encoder[1:]:
            hidden = layer(torch.tanh(hidden))
        mean, logvar = hidden.chunk(2, dim=1)  # (B, 2 D) -> (B, D), (B, D)
        return mean, logvar

    def decode(self, code: torch.Tensor) -> torch.Tensor:
        """Return what the last layer makes logits of, shape (n_users, width)."""
        for layer in self.decoder[:-1]:
            code = torch.tanh(layer(code))
        return code  # (B, H)

    @property
    def output(self) -> nn.Linear:
        """The last layer, whose outputs are the logits f(z) of the items."""
        layer = self.decoder[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def posterior(self, batch: SparseBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of q(z | x) without dropout, each of shape (n_users, latent_dim)."""
        return self.encode(batch, batch.inputs)

    def code(self, batch: SparseBatch) -> torch.Tensor:
        """Return the mean of q(z | x), shape (n_users, latent_dim)."""
        return self.posterior(batch)[0]  # (B, D)


@dataclass(kw_only=True)
class MultVAE(LikelihoodChoice[MultVAENetwork], VariationalAutoencoder[MultVAENetwork]):
    """The variational autoencoder with a multinomial likelihood; widths, dropout and beta are the paper's.

    The paper trains 200 epochs of 500 users per update and a step size of .001. On five small data sets a larger one
    that decays reached as much or more in a seventh of the epochs (docs/training.md); large ones were not tried.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> train = sp.csr_matrix(np.kron(np.eye(2), np.ones((20, 5))))
    >>> model = MultVAE(hidden_dims=(16,), latent_dim=4, epochs=40, batch_size=10, seed=1).fit(train)
    >>> items, scores = model.recommend(sp.csr_matrix([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]), k=2)
    >>> sorted(items[0].tolist())
    [3, 4]
    """

    name: ClassVar[str] = "multvae"
    shares_users: ClassVar[bool] = True
    shares_items: ClassVar[bool] = True
    paper: ClassVar[str] = "Liang et al.: Variational Autoencoders for Collaborative Filtering (WWW 2018)"
    space: ClassVar[Space] = {
        "learning_rate": Range(1e-3, 1e-2, log=True),
        "batch_size": (None, 50, 100, 200),
        "latent_dim": (100, 200, 400),
        "dropout": Range(0.4, 0.8),
        "beta": Range(0.1, 1.0, log=True),
    }

    epochs: int = hyperparameter(30, "passes over the training users", low=1)
    learning_rate: float = hyperparameter(3e-3, "step size of Adam, at its highest", low=0)
    decay: str = hyperparameter("cosine", "how the step size falls to 0 over the epochs", choices=DECAYS)
    warmup: float = hyperparameter(
        0.1, "part of the epochs over which the step size first rises from 0", low=0, high=1, below_high=True
    )
    hidden_dims: tuple[int, ...] = hyperparameter((600,), "widths between items and latent variables", low=1)
    latent_dim: int = hyperparameter(200, "number of latent variables", low=1)
    dropout: float = hyperparameter(
        0.5, "share of a user's items hidden from the encoder", low=0, high=1, below_high=True
    )
    beta: float = hyperparameter(0.2, "highest weight of the KL term", low=0)
    free_bits: float = hyperparameter(
        0.0, "nats of each latent unit, on average over a batch, that the KL term does not count", low=0
    )
    tied: bool = hyperparameter(False, TIED)

    def check_together(self) -> None:
        """Refuse to tie layers of different widths; see `Model.check_together`."""
        super().check_together()
        if self.tied and not self.hidden_dims:
            raise UsageError(
                f"got tied=True without hidden_dims, where the first layer is {2 * self.latent_dim} wide (means and "
                f"log-variances) and the last {self.latent_dim}; set hidden_dims, e.g. hidden_dims=600"
            )

    def _network(self, n_items: int) -> MultVAENetwork:
        return MultVAENetwork(n_items, self.hidden_dims, self.latent_dim, self.tied)

    def _loss(self, batch: SparseBatch, beta: float, generator: torch.Generator) -> Losses:
        network = self.network_
        mean, logvar = network.encode(batch, dropout(batch.inputs, self.dropout, generator, batch))
        hidden = network.decode(sample(mean, logvar, generator, batch))  # (B, D) -> (B, H)
        reconstruction = self._nll(hidden, batch, generator).mean()  # (B,) -> ()
        kl = kl_to_standard_normal(mean, logvar).mean()  # (B,) -> ()
        counted = kl_beyond_free_bits(mean, logvar, self.free_bits, batch.share) if self.free_bits else kl
        return Losses(reconstruction + beta * counted, reconstruction, kl)
